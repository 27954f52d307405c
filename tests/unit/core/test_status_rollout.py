"""What a pool's status says while its sessions are replaced."""

from typing import Any

import pytest

from sessionpools.api.v1alpha1 import Condition, SessionPool, SessionPoolStatus, State
from sessionpools.core.model import Failure, PodView
from sessionpools.core.status import Observation, pool_status
from sessionpools.core.target import Blocked, Target
from support.builders import node, places, pod, pool, process_pool, target_of

IMPORT_ERROR = Failure("SessionFailed", "ModuleNotFoundError: No module named 'foo' (import foo)")
NO_ROOM = Failure("Unschedulable", "Unschedulable: Insufficient memory")
QUOTA = Failure("QuotaExceeded", 'QuotaExceeded: pods "x" is forbidden: exceeded quota: sessions, requested: pods=1')
NO_ACCOUNT = Failure("PodRefused", 'PodRefused: pods "x" is forbidden: error looking up service account')


def status(
    p: SessionPool, pods: list[PodView], target: Target | Blocked | None = None, **more: Any
) -> SessionPoolStatus:
    return pool_status(Observation(p, target or target_of(p), places(p, node()), pods, now=1e9, **more))


def of_type(seen: SessionPoolStatus, type_: str) -> Condition:
    return next(c for c in seen.conditions if c.type == type_)


def stalled(seen: SessionPoolStatus) -> tuple[str, str]:
    return of_type(seen, "Stalled").status, of_type(seen, "Stalled").reason


def rolling(p: SessionPool, *new: PodView, ready: bool = True) -> list[PodView]:
    return [pod(target_of(p), p, s, revision="old", ready=ready) for s in range(p.spec.initial_pool_size)] + [*new]


def test_a_revision_that_fails_is_reported_while_the_old_sessions_serve() -> None:
    p = pool(2, 4)
    seen = status(p, rolling(p, pod(target_of(p), p, 0, ready=False, failure=IMPORT_ERROR)))
    assert (seen.state, of_type(seen, "Ready").status) == (State.SUCCESS, "True")
    assert seen.nodes[0].message == IMPORT_ERROR.message
    assert (of_type(seen, "Stalled").status, of_type(seen, "Stalled").reason) == ("True", "RevisionFailed")
    assert IMPORT_ERROR.message in of_type(seen, "Stalled").message
    assert of_type(seen, "Reconciling").status == "False"


def test_a_revision_that_fails_is_called_so_where_a_session_may_be_missing_too() -> None:
    p = pool(2, 4, update={"maxSurge": 0, "maxUnavailable": 1})
    t = target_of(p)
    seen = status(p, [pod(t, p, 0, revision="old"), pod(t, p, 1, ready=False, failure=IMPORT_ERROR)])
    assert seen.nodes[0].state is State.PENDING
    assert stalled(seen) == ("True", "RevisionFailed")


def test_without_older_sessions_it_is_no_rollout_that_fails() -> None:
    p = pool(0, 4)
    seen = status(p, [pod(target_of(p), p, 0, ready=False, failure=IMPORT_ERROR)])
    assert stalled(seen) == ("True", "SessionFailed")


def test_an_older_session_that_fails_is_replaced_and_stalls_nothing() -> None:
    p = pool(1, 4)
    seen = status(p, [pod(target_of(p), p, 0, revision="old", ready=False, failure=IMPORT_ERROR)])
    assert seen.nodes[0].message == IMPORT_ERROR.message
    assert stalled(seen)[0] == "False"


@pytest.mark.parametrize(
    ("p", "unavailable"), [(pool(2, 4), 1), (process_pool(3, 4), 3)], ids=["one of several", "all at once"]
)
def test_a_surge_session_without_room_is_said_with_what_helps(p: SessionPool, unavailable: int) -> None:
    seen = status(p, rolling(p, pod(target_of(p), p, 0, ready=False, failure=NO_ROOM)))
    assert stalled(seen) == ("True", "SurgeUnschedulable")
    message = of_type(seen, "Stalled").message
    assert message.startswith(f"node worker-1: {NO_ROOM.message}; ")
    assert "lower resources.requests" in message
    assert message.endswith(f"set update.maxSurge 0 and update.maxUnavailable {unavailable}")
    assert of_type(seen, "Ready").status == "True"


def test_a_surge_session_beyond_the_quota_is_said_so_too() -> None:
    p = pool(2, 4)
    assert stalled(status(p, rolling(p), held={"worker-1": QUOTA})) == ("True", "SurgeUnschedulable")
    assert stalled(status(p, rolling(p), held={"worker-1": NO_ACCOUNT})) == ("True", "RevisionFailed")


def test_without_surge_no_room_is_the_new_revisions_own_failure() -> None:
    p = pool(2, 4, update={"maxSurge": 0, "maxUnavailable": 1})
    t = target_of(p)
    seen = status(p, [pod(t, p, 0, revision="old"), pod(t, p, 1, ready=False, failure=NO_ROOM)])
    assert stalled(seen) == ("True", "RevisionFailed")


@pytest.mark.parametrize("old", [True, False], ids=["in a rollout", "after a resize"])
def test_want_of_room_does_not_last_while_pods_of_the_pool_leave_the_node(old: bool) -> None:
    p = pool(2, 4)
    t = target_of(p)
    starting = pod(t, p, 0, ready=False, failure=NO_ROOM)
    pods = [*(rolling(p) if old else []), starting]
    leaving = pod(t, p, 3, deleting=True)
    assert stalled(status(p, pods))[0] == "True"
    assert stalled(status(p, [*pods, leaving]))[0] == "False"
    assert stalled(status(p, pods, left={"worker-1"}))[0] == "False"
    refused = status(p, [*pods[:-1], leaving], held={"worker-1": QUOTA})
    assert stalled(refused)[0] == "False"
    assert refused.nodes[0].message == QUOTA.message or not old


def test_a_rollout_lasts_until_the_last_new_session_is_ready() -> None:
    p = pool(2, 4, update={"maxSurge": 0, "maxUnavailable": 1})
    t = target_of(p)
    first = status(p, [pod(t, p, 0, revision="old"), pod(t, p, 1)])
    assert of_type(first, "Reconciling").reason == "RollingOut"
    later = p.model_copy(update={"status": first})
    none_old = status(later, [pod(t, p, 0, ready=False), pod(t, p, 1)])
    assert (of_type(none_old, "Reconciling").status, of_type(none_old, "Reconciling").reason) == ("True", "RollingOut")
    last = status(p.model_copy(update={"status": none_old}), [pod(t, p, 0), pod(t, p, 1)])
    assert (of_type(last, "Reconciling").status, of_type(last, "Reconciling").reason) == ("False", "UpToDate")


def test_sessions_stay_counted_by_the_last_revision_known_while_the_next_one_is_not() -> None:
    p = pool(2, 4)
    t = target_of(p)
    known = p.model_copy(update={"status": p.status.model_copy(update={"revision": t.revision.name})})
    pods = [pod(t, p, 0), pod(t, p, 1, revision="old")]
    seen = status(known, pods, target=Blocked("ConfigMapNotFound", "create it"))
    assert (seen.sessions.updated, seen.sessions.old) == (1, 1)
