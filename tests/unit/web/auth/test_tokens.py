"""A token is believed if it is ours, for us, of now and as we signed it; every other one is refused, and says why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.web.auth import tokens
from sessionpools.web.auth.errors import (
    Expired,
    Forged,
    Malformed,
    NotYet,
    TokenError,
    UnknownKey,
    WrongAudience,
    WrongIssuer,
)
from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.auth.tokens import Claims, LoginAnswer, bearer
from support.auth import HOUR, NOON, rsa_key

ADA = Principal("ada", Role.CONTRIBUTOR)
KEY = rsa_key()
CLAIMS = {
    "iss": "session-pools",
    "aud": "session-pools",
    "sub": "ada",
    "role": "Contributor",
    "iat": int(NOON),
    "exp": int(NOON + HOUR),
    "jti": "1",
}


def find_key(kid: str) -> RSAPublicKey | None:
    return KEY.public if kid == KEY.kid else None


def verified(token: str, now: float = NOON) -> Claims:
    return tokens.verify(token, find_key, now)


def signed(key: Any = KEY.private, algorithm: str = "RS256", kid: Any = KEY.kid, **changes: Any) -> str:
    """A token with other claims (None takes one away), key or header than ours have."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    headers = {} if kid is None else {"kid": kid}
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers=headers)


def segment(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def test_a_token_says_who_it_was_issued_to_until_its_hour_is_over() -> None:
    issued = tokens.issue(KEY, ADA, NOON)
    claims = verified(issued.token, NOON + HOUR - 1)
    assert claims == issued.claims
    assert claims.principal == ADA
    assert (claims.issued_at, claims.expires_at) == (int(NOON), int(NOON + HOUR))


def test_every_token_has_an_id_of_its_own() -> None:
    assert tokens.issue(KEY, ADA, NOON).claims.token_id != tokens.issue(KEY, ADA, NOON).claims.token_id


def test_what_others_verify_is_all_in_the_token() -> None:
    token = tokens.issue(KEY, ADA, NOON).token
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": KEY.kid}
    claims = jwt.decode(
        token, KEY.public_pem, algorithms=["RS256"], audience="session-pools", issuer="session-pools",
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert claims == CLAIMS | {"jti": claims["jti"]}


def test_a_token_as_we_make_them_passes() -> None:
    assert verified(signed()).principal == ADA


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_forged(algorithm: str) -> None:
    header = segment({"alg": algorithm, "typ": "JWT", "kid": KEY.kid})
    for signature in ("", base64.urlsafe_b64encode(b"x" * 256).rstrip(b"=").decode()):
        with pytest.raises(Forged):
            verified(f"{header}.{segment(CLAIMS)}.{signature}")


def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_forged() -> None:
    head = segment({"alg": "HS256", "typ": "JWT", "kid": KEY.kid}) + "." + segment(CLAIMS)
    mac = hmac.digest(KEY.public_pem.encode(), head.encode(), hashlib.sha256)
    with pytest.raises(Forged):
        verified(f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_our_own_key_with_another_algorithm_is_forged(algorithm: str) -> None:
    with pytest.raises(Forged):
        verified(signed(algorithm=algorithm))


def test_a_token_of_another_kind_of_key_is_forged() -> None:
    with pytest.raises(Forged):
        verified(signed(ec.generate_private_key(ec.SECP256R1()), "ES256"))


def test_another_key_that_goes_by_the_same_kid_is_forged() -> None:
    with pytest.raises(Forged):
        verified(signed(rsa_key(1).private))


def test_a_key_that_the_token_brings_along_is_not_looked_at() -> None:
    other = rsa_key(1)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(other.public, as_dict=True)
    headers = {"kid": KEY.kid, "jwk": jwk, "jku": "http://127.0.0.1:1/jwks.json"}
    token = jwt.PyJWS().encode(json.dumps(CLAIMS).encode(), other.private, algorithm="RS256", headers=headers)
    with pytest.raises(Forged):
        verified(token)


def test_a_key_that_is_not_ours_is_unknown() -> None:
    with pytest.raises(UnknownKey):
        verified(signed(rsa_key(1).private, kid=rsa_key(1).kid))


@pytest.mark.parametrize("kid", ["", "../../etc/passwd", "x" * 2000])
def test_a_kid_is_a_name_and_nothing_else(kid: str) -> None:
    with pytest.raises(UnknownKey):
        verified(signed(kid=kid))


def test_claims_that_were_changed_after_signing_are_forged() -> None:
    head, _, signature = tokens.issue(KEY, ADA, NOON).token.split(".")
    with pytest.raises(Forged):
        verified(f"{head}.{segment(CLAIMS | {'role': 'Owner'})}.{signature}")


def test_an_expired_token_is_refused() -> None:
    token = tokens.issue(KEY, ADA, NOON).token
    with pytest.raises(Expired):
        verified(token, NOON + HOUR)


def test_a_token_from_a_replica_whose_clock_is_a_little_ahead_is_believed() -> None:
    assert verified(tokens.issue(KEY, ADA, NOON + 59).token)


def test_a_token_from_the_future_is_not_believed_yet() -> None:
    with pytest.raises(NotYet):
        verified(tokens.issue(KEY, ADA, NOON + 62).token)
    with pytest.raises(NotYet):
        verified(signed(nbf=int(NOON + 62)))


@pytest.mark.parametrize("issuer", [None, "", "session-pool", "https://accounts.test", ["session-pools"], 1])
def test_a_token_of_another_issuer_is_refused(issuer: Any) -> None:
    with pytest.raises(WrongIssuer):
        verified(signed(iss=issuer))


@pytest.mark.parametrize("audience", [None, "", "kubernetes", ["session-pools"], True])
def test_a_token_for_another_audience_is_refused(audience: Any) -> None:
    with pytest.raises(WrongAudience):
        verified(signed(aud=audience))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", None), ("sub", ""), ("sub", 1),
        ("role", None), ("role", "King"), ("role", "owner"), ("role", ["Owner"]),
        ("iat", None), ("iat", str(int(NOON))), ("iat", NOON + 0.5), ("iat", True),
        ("exp", None), ("exp", str(int(NOON + HOUR))), ("exp", 1e99),
        ("nbf", "soon"), ("jti", None), ("jti", 7),
    ],
)  # fmt: skip
def test_a_claim_that_is_missing_or_of_another_type_is_named(claim: str, value: Any) -> None:
    with pytest.raises(Malformed, match=f"claim {claim} "):
        verified(signed(**{claim: value}))


@pytest.mark.parametrize("content", [b"[]", b'"ada"', b"", b"{", b"\xff", b"null"])
def test_content_that_is_no_object_is_malformed(content: bytes) -> None:
    token = jwt.PyJWS().encode(content, KEY.private, algorithm="RS256", headers={"kid": KEY.kid})
    with pytest.raises(Malformed):
        verified(token)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "ä.b.c", "a" * 5000, "e30.e30.", "bnVsbA.e30.e30"])
def test_what_is_no_token_at_all_is_refused(token: str) -> None:
    with pytest.raises(TokenError):
        verified(token)


@pytest.mark.parametrize("kid", [None, 1, ["x"], {}])
def test_a_token_that_names_no_key_is_malformed(kid: Any) -> None:
    header = {"alg": "RS256", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    with pytest.raises(Malformed):
        verified(f"{segment(header)}.{segment(CLAIMS)}.e30")


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,60}(\.[A-Za-z0-9_-]{0,60}){0,4}", fullmatch=True))
def test_nothing_but_our_own_errors_comes_of_any_text(token: str) -> None:
    with pytest.raises(TokenError):
        verified(token)


@given(position=st.integers(0, 10_000), replacement=st.sampled_from("AZaz09-_."))
def test_no_character_of_a_token_can_be_another(position: int, replacement: str) -> None:
    token = signed()
    position %= len(token) - 1  # the last character has bits that say nothing
    changed = token[:position] + replacement + token[position + 1 :]
    if changed != token:
        with pytest.raises(TokenError):
            verified(changed)


def test_a_bearer_token_is_taken_from_the_header() -> None:
    assert bearer("Bearer abc") == "abc"
    assert bearer("bearer  abc ") == "abc"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YWRtaW46eA==", "abc"])
def test_a_request_without_a_token_is_told_what_to_send(header: str | None) -> None:
    with pytest.raises(Malformed, match="Authorization: Bearer TOKEN"):
        bearer(header)


def test_the_answer_to_a_login_has_the_old_names_and_types() -> None:
    answer = LoginAnswer(access_token="a", expires_in=3600, expires_on=1479937454, refresh_token="r")
    assert json.loads(answer.model_dump_json()) == {
        "token_type": "Bearer", "access_token": "a", "expires_in": 3600, "expires_on": 1479937454, "refresh_token": "r",
    }  # fmt: skip
    assert repr(answer) == "LoginAnswer(token_type='Bearer', expires_in=3600, expires_on=1479937454)"
