"""Which key signs, which is published, for how long: there is always one to sign with, and none is forgotten early."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import replace

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.web.auth import keys as deciding
from sessionpools.web.auth import tokens
from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.auth.keys import BEHIND_SECONDS, LEAD_SECONDS, PERIOD_SECONDS, Due, Key, KeySet, due, signer
from sessionpools.web.auth.tokens import LIFE_SECONDS
from support.auth import DAY, HOUR, MINUTE, NOON, rsa_key

NOW = int(NOON)


def key(kid: str, signs_from: float, created: float = NOON - 90 * DAY) -> Key:
    return Key(kid, int(created), int(signs_from), rsa_key().private)


def keys(*held: Key) -> KeySet:
    return KeySet.of(held)


def kids(key_set: KeySet) -> list[str]:
    return [each.kid for each in key_set.keys]


CURRENT, NEXT = key("current", NOON - DAY), key("next", NOON + 29 * DAY)


def test_at_first_there_is_one_key_that_signs_at_once_and_one_for_later() -> None:
    assert due(KeySet(), NOON) == Due(KeySet(), (NOW, NOW + PERIOD_SECONDS))


def test_between_two_turns_nothing_is_due() -> None:
    assert due(keys(CURRENT, NEXT), NOON) == Due(keys(CURRENT, NEXT))


def test_when_the_next_key_begins_to_sign_another_next_one_is_made() -> None:
    old, current = key("old", NOON - 30 * DAY), key("current", NOON)
    assert due(keys(old, current), NOON - 1) == Due(keys(old, current))
    assert due(keys(old, current), NOON) == Due(keys(old, current), (NOW + PERIOD_SECONDS,))


def test_an_old_key_goes_when_no_token_of_it_can_be_valid() -> None:
    old, current, following = key("old", NOON - 30 * DAY), key("current", NOON), NEXT
    over = NOON + LIFE_SECONDS + BEHIND_SECONDS
    assert due(keys(old, current, following), over - 1).keep == keys(old, current, following)
    assert due(keys(old, current, following), over).keep == keys(current, following)


def test_after_months_without_anyone_the_next_key_is_still_published_before_it_signs() -> None:
    old, current = key("old", NOON - 200 * DAY), key("current", NOON - 170 * DAY)
    assert due(keys(old, current), NOON) == Due(keys(current), (NOW + LEAD_SECONDS,))


def test_if_only_a_next_key_is_left_one_is_made_to_sign_now() -> None:
    assert due(keys(NEXT), NOON) == Due(keys(NEXT), (NOW,))


def test_asked_to_rotate_the_next_key_signs_at_once_as_it_has_long_been_published() -> None:
    decided = due(keys(CURRENT, NEXT), NOON, rotate_at=NOON)
    assert decided == Due(keys(CURRENT, replace(NEXT, signs_from=NOW)), (NOW + PERIOD_SECONDS,))


def test_a_next_key_that_is_new_is_waited_for() -> None:
    new = key("new", NOON + 30 * DAY, created=NOON - 4 * MINUTE)
    decided = due(keys(CURRENT, new), NOON, rotate_at=NOON)
    assert decided == Due(keys(CURRENT, replace(new, signs_from=NOW + 6 * 60)))
    again = due(decided.keep, NOON + MINUTE, rotate_at=NOON)
    assert again == Due(decided.keep)


def test_one_request_to_rotate_turns_the_keys_once() -> None:
    turned = keys(CURRENT, replace(NEXT, signs_from=NOW), key("third", NOON + 30 * DAY, created=NOON))
    assert due(turned, NOON + HOUR, rotate_at=NOON).make == ()
    assert due(turned, NOON + HOUR, rotate_at=NOON).keep.keys[1:] == turned.keys[1:]


def test_a_request_to_rotate_later_waits_for_its_time() -> None:
    assert due(keys(CURRENT, NEXT), NOON, rotate_at=NOON + 1) == Due(keys(CURRENT, NEXT))
    assert due(keys(CURRENT, NEXT), NOON + 1, rotate_at=NOON + 1) != Due(keys(CURRENT, NEXT))


def test_a_request_from_before_the_current_key_asks_for_nothing() -> None:
    assert due(keys(CURRENT, NEXT), NOON, rotate_at=NOON - 2 * DAY) == Due(keys(CURRENT, NEXT))


def test_the_latest_key_that_may_sign_signs() -> None:
    old, current = key("old", NOON - 30 * DAY), key("current", NOON)
    held = keys(old, current, NEXT)
    assert signer(held, NOON - 1, kids(held)) == old
    assert signer(held, NOON, kids(held)) == current


def test_a_key_that_no_gateway_can_know_does_not_sign() -> None:
    old, current = key("old", NOON - 30 * DAY), key("current", NOON)
    assert signer(keys(old, current, NEXT), NOON, ["old", "next"]) == old
    assert signer(keys(old, current, NEXT), NOON, ["next"]) is None
    assert signer(KeySet(), NOON, []) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 30, 60, 600, 900, 3600, 4500, 86_400, 10 * 86_400, 31 * 86_400, 100 * 86_400]),
        st.sampled_from(["", "rotate now", "rotate in an hour"]),
    ),
    max_size=30,
)


@given(STEPS)
def test_through_any_life_there_is_a_key_to_sign_with_and_every_token_is_known_for_its_hour(
    steps: list[tuple[int, str]],
) -> None:
    """What replicas do: look, carry out what is due, sign; with time passing and operators asking for other keys."""
    number = itertools.count()
    now, rotate_at, held = NOON, None, KeySet()
    signed: list[tuple[str, float]] = []  # by which key, until when the token is valid
    for seconds, wish in [(0, ""), *steps]:
        now += seconds
        rotate_at = {"": rotate_at, "rotate now": now, "rotate in an hour": now + HOUR}[wish]
        # a wait for several looks, as a look may only prepare what the next one does
        for _ in range(3):
            decided = due(held, now, rotate_at)
            made = [Key(f"k{next(number)}", int(now), each, rsa_key().private) for each in decided.make]
            held = KeySet.of([*decided.keep.keys, *made])
        assert due(held, now, rotate_at) == Due(held), "what was carried out is not due again"
        chosen = signer(held, now, kids(held))
        assert chosen is not None
        assert chosen.kid == "k0" or chosen.created + LEAD_SECONDS <= now, "it was published for long enough"
        assert [each for each in held.keys if each.signs_from > now], "there is a next key"
        assert len(held.keys) <= 3 + (LIFE_SECONDS + BEHIND_SECONDS) / LEAD_SECONDS
        signed.append((chosen.kid, now + LIFE_SECONDS))
        assert {kid for kid, until in signed if until > now} <= set(kids(held))


def test_a_key_set_is_read_as_it_was_written() -> None:
    held = keys(replace(rsa_key(), signs_from=NOW), replace(rsa_key(1), signs_from=NOW + PERIOD_SECONDS))
    text = deciding.dump(held)
    assert deciding.load(text) == held
    assert json.loads(text)["keys"][0]["signsFrom"] == "2027-01-15T12:00:00Z"
    token = tokens.issue(deciding.load(text).keys[0], Principal("ada", Role.READER), NOON).token
    assert tokens.verify(token, lambda kid: rsa_key().public, NOON).principal.name == "ada"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: "{", "Invalid JSON"),
        (lambda document: [], "Input should be an object"),
        (lambda document: document | {"version": 2}, "version: Input should be 1"),
        (lambda document: document | {"keys": [document["keys"][0] | {"privateKey": "secret"}]},
         "keys.0.privateKey: is no private key in PEM"),
        (lambda document: document | {"keys": [document["keys"][0] | {"kid": "mine"}]}, "keys.0.kid: is not that of "),
        (lambda document: document | {"keys": [document["keys"][0] | {"signsFrom": "soon"}]}, "keys.0.signsFrom: "),
        (lambda document: document | {"keys": [document["keys"][0] | {"signsFrom": "2027-01-15T12:00:00"}]},
         "keys.0.signsFrom: Input should have timezone info"),
    ],
)  # fmt: skip
def test_a_document_that_was_edited_wrongly_is_refused_without_being_quoted(change, message: str) -> None:  # type: ignore[no-untyped-def]
    changed = change(json.loads(deciding.dump(keys(rsa_key()))))
    with pytest.raises(ValueError, match=message) as refused:
        deciding.load(changed if isinstance(changed, str) else json.dumps(changed))
    assert "PRIVATE" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_key_set_document_holds_what_others_need_to_verify_and_no_more() -> None:
    held = keys(rsa_key(), replace(rsa_key(1), signs_from=NOW + PERIOD_SECONDS))
    document = deciding.jwks(held)
    assert [each["kid"] for each in document["keys"]] == kids(held)
    assert {name for each in document["keys"] for name in each} == {"kty", "use", "alg", "kid", "n", "e"}
    token = tokens.issue(held.keys[1], Principal("ada", Role.READER), NOON).token
    found = jwt.PyJWKSet.from_dict(document)[held.keys[1].kid]
    assert jwt.PyJWS().decode(token, found.key, algorithms=["RS256"])


def test_a_kid_fits_a_file_name_and_follows_from_the_key() -> None:
    assert len(rsa_key().kid) == 32
    assert set(rsa_key().kid) <= set("0123456789abcdef")
    assert rsa_key().kid != rsa_key(1).kid
    assert b"BEGIN PUBLIC KEY" in rsa_key().public_pem.encode()


def test_a_key_does_not_show_its_secret() -> None:
    assert "private" not in repr(rsa_key()).lower()
    assert base64.b64encode(b"secret").decode() not in repr(keys(rsa_key()))
