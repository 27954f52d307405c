"""What a reader of a pool's status hears of at once."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import Condition, NodeStatus, SessionCounts, SessionPoolStatus, State
from sessionpools.core.progress import only_progress

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def condition(**fields: Any) -> Condition:
    default = {"type": "Ready", "status": "False", "reason": "SessionsStarting", "message": "1 of 4"}
    return Condition(**(default | fields), observed_generation=1, last_transition_time=NOW)


def status(**fields: Any) -> SessionPoolStatus:
    default = {"observed_generation": 1, "state": State.PENDING, "revision": "a", "conditions": [condition()]}
    return SessionPoolStatus(**(default | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"sessions": SessionCounts(desired=4, ready=2)},
        {"nodes": [NodeStatus(name="a", state=State.SUCCESS, desired=2, ready=2)]},
        {"conditions": [condition(message="2 of 4")]},
    ],
)
def test_counts_rows_and_messages_are_progress(fields: dict[str, Any]) -> None:
    assert only_progress(status(), status(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"observed_generation": 2},
        {"state": State.SUCCESS},
        {"revision": "b"},
        {"image": "other:1"},
        {"conditions": [condition(status="True")]},
        {"conditions": [condition(reason="SessionFailed")]},
        {"conditions": [condition(), condition(type="Stalled")]},
    ],
)
def test_what_tools_and_users_wait_for_is_news(fields: dict[str, Any]) -> None:
    assert not only_progress(status(), status(**fields))
