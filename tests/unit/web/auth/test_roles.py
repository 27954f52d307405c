"""Every action and every role, on what is one's own, another's, nobody's and nothing in particular."""

from __future__ import annotations

import pytest

from sessionpools.web.auth.errors import Denied
from sessionpools.web.auth.identity import ANONYMOUS, Principal, Role
from sessionpools.web.auth.roles import RULES, Action, may, require

OWNER, CONTRIBUTOR, READER = (Principal("me", role) for role in Role)

# Who may: o Owner, c Contributor, r Reader; on one's own or nothing in particular, and on what is another's.
TABLE = {
    Action.LIST_SERVICES: ("ocr", "ocr"),
    Action.READ_SWAGGER: ("ocr", "ocr"),
    Action.CONSUME: ("ocr", "ocr"),
    Action.PUBLISH_SERVICE: ("oc", "o"),
    Action.UPDATE_SERVICE: ("oc", "o"),
    Action.DELETE_SERVICE: ("oc", "o"),
    Action.READ_LOGS: ("oc", "o"),
    Action.READ_POOL: ("ocr", "ocr"),
    Action.WRITE_POOL: ("oc", "o"),
    Action.DELETE_POOL: ("oc", "o"),
    Action.START_BATCH: ("ocr", "ocr"),
    Action.LIST_BATCHES: ("ocr", "ocr"),
    Action.READ_BATCH: ("ocr", "o"),
    Action.CANCEL_BATCH: ("ocr", "o"),
    Action.CREATE_SESSION: ("oc", "oc"),
    Action.LIST_SESSIONS: ("oc", "oc"),
    Action.USE_SESSION: ("oc", "o"),
    Action.LIST_SNAPSHOTS: ("oc", "oc"),
    Action.USE_SNAPSHOT: ("oc", "o"),
    Action.READ_STATUS: ("ocr", "ocr"),
    Action.READ_COMPUTE_NODES: ("o", "o"),
    Action.WRITE_COMPUTE_NODES: ("o", "o"),
}


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("principal", [OWNER, CONTRIBUTOR, READER], ids=lambda principal: principal.role)
def test_the_table_says_who_may(action: Action, principal: Principal) -> None:
    own, others = TABLE[action]
    letter = principal.role.value[0].lower()
    assert bool(may(principal, action)) is (letter in own)
    assert bool(may(principal, action, "me")) is (letter in own)
    assert bool(may(principal, action, "another")) is (letter in others)
    assert bool(may(principal, action, "")) is (letter in others), "what nobody owns is not one's own"


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


@pytest.mark.parametrize(
    ("principal", "action", "owner", "message"),
    [
        (READER, Action.PUBLISH_SERVICE, None,
         "'me' (Reader) may not publish a service: it takes the role Contributor"),
        (CONTRIBUTOR, Action.DELETE_SERVICE, "ada",
         "'me' (Contributor) may not delete a service of 'ada': it takes the role Owner, or 'ada'"),
        (CONTRIBUTOR, Action.UPDATE_SERVICE, "",
         "'me' (Contributor) may not update a service that nobody owns: it takes the role Owner"),
        (CONTRIBUTOR, Action.WRITE_COMPUTE_NODES, None,
         "'me' (Contributor) may not change compute nodes: it takes the role Owner"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_role_that_it_takes(
    principal: Principal, action: Action, owner: str | None, message: str
) -> None:
    assert may(principal, action, owner).message == message
    with pytest.raises(Denied) as refused:
        require(principal, action, owner)
    assert str(refused.value) == message
    assert refused.value.status == 403


def test_what_is_allowed_raises_nothing_and_says_nothing() -> None:
    require(CONTRIBUTOR, Action.DELETE_SERVICE, "me")
    assert may(CONTRIBUTOR, Action.DELETE_SERVICE, "me").message == ""


def test_names_are_compared_as_they_are() -> None:
    assert not may(CONTRIBUTOR, Action.DELETE_SERVICE, "Me")


def test_everybody_is_an_owner_where_authentication_is_turned_off() -> None:
    assert all(may(ANONYMOUS, action, "another") for action in Action)
