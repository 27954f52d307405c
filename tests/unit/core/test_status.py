"""A pool's status, from what was observed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import Condition, Isolation, SessionPool, SessionPoolStatus, State
from sessionpools.core.model import Failure, NodeView, PodView, SessionReport, Taint
from sessionpools.core.status import Observation, pool_status, says_more_in_seconds
from sessionpools.core.target import Blocked, Target
from support.builders import node, places, pod, pool, process_pool, target_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IMPORT_ERROR = Failure("SessionFailed", "ModuleNotFoundError: No module named 'foo' (import foo)")


def status(
    p: SessionPool, nodes: list[NodeView], pods: list[PodView], target: Target | Blocked | None = None, **more: Any
) -> SessionPoolStatus:
    observed = {"now": NOW.timestamp()} | more
    return pool_status(Observation(p, target or target_of(p), places(p, *nodes), pods, **observed))


def of_type(seen: SessionPoolStatus, type_: str) -> Condition:
    return next(c for c in seen.conditions if c.type == type_)


def report(ready: int, initial: int = 2, maximum: int = 4, **fields: Any) -> SessionReport:
    return replace(SessionReport(ready, 0, "ready", 0.0, initial, maximum), **fields)


def test_a_node_with_its_initial_sessions_ready_is_success() -> None:
    p = pool(2, 4)
    t = target_of(p)
    seen = status(p, [node()], [pod(t, p, 0), pod(t, p, 1)])
    assert [(n.state, n.desired, n.ready, n.message) for n in seen.nodes] == [(State.SUCCESS, 2, 2, "")]
    assert seen.state is State.SUCCESS
    assert (of_type(seen, "Ready").status, of_type(seen, "Reconciling").status, of_type(seen, "Stalled").status) == (
        "True",
        "False",
        "False",
    )


def test_a_node_that_awaits_sessions_is_pending_and_stands_first() -> None:
    p = pool(1, 4)
    t = target_of(p)
    seen = status(p, [node("a"), node("b")], [pod(t, p, 0, on="a")])
    assert [(n.name, n.state) for n in seen.nodes] == [("b", State.PENDING), ("a", State.SUCCESS)]
    assert seen.state is State.PENDING
    assert of_type(seen, "Ready").status == "False"
    assert of_type(seen, "Reconciling").status == "True"


def test_sessions_of_any_revision_count_as_ready_and_only_new_ones_as_updated() -> None:
    p = pool(2, 4)
    t = target_of(p)
    seen = status(p, [node()], [pod(t, p, 0, revision="old"), pod(t, p, 0)])
    assert seen.state is State.SUCCESS
    counts = seen.sessions
    assert (counts.desired, counts.ready, counts.updated, counts.old) == (2, 2, 1, 1)
    assert (of_type(seen, "Reconciling").status, of_type(seen, "Reconciling").reason) == ("True", "RollingOut")
    assert of_type(seen, "Ready").status == "True"


def test_initial_zero_is_success_once_the_service_exists() -> None:
    assert status(pool(0, 4), [node()], []).state is State.SUCCESS
    missing = Blocked("ServiceNotFound", "not published", retire=True)
    assert status(pool(0, 4), [node()], [], missing).state is State.NOT_FOUND


def test_a_pool_without_its_service_is_not_found_and_says_so() -> None:
    seen = status(pool(2, 4), [node()], [], Blocked("ServiceNotFound", "this namespace has no WebService", retire=True))
    assert (seen.state, seen.node_counts.not_found) == (State.NOT_FOUND, 1)
    assert (of_type(seen, "Stalled").status, of_type(seen, "Stalled").reason) == ("True", "ServiceNotFound")
    assert seen.nodes[0].message == "this namespace has no WebService"


def test_a_pool_that_no_node_matches_is_not_found_and_stalled() -> None:
    p = pool(2, 4, placement={"nodeSelector": {"gpu": "yes"}})
    seen = status(p, [node()], [])
    assert (seen.state, seen.node_counts.total) == (State.NOT_FOUND, 0)
    assert of_type(seen, "Stalled").reason == "NoEligibleNodes"


def test_why_a_session_does_not_start_is_in_the_row_and_in_the_conditions() -> None:
    p = pool(1, 4)
    t = target_of(p)
    seen = status(p, [node()], [pod(t, p, 0, ready=False, failure=IMPORT_ERROR)])
    assert seen.nodes[0].message == IMPORT_ERROR.message
    assert (of_type(seen, "Stalled").status, of_type(seen, "Stalled").reason) == ("True", "SessionFailed")
    assert of_type(seen, "Ready").message == f"node worker-1: {IMPORT_ERROR.message}"
    assert of_type(seen, "Reconciling").status == "False"


def test_a_refused_pod_is_reported_where_it_was_wanted() -> None:
    refused = Failure("QuotaExceeded", "QuotaExceeded: exceeded quota: sessions")
    seen = status(pool(1, 4), [node()], [], held={"worker-1": refused})
    assert seen.nodes[0].message == refused.message
    assert of_type(seen, "Stalled").reason == "QuotaExceeded"


def test_the_new_revisions_failure_speaks_even_while_old_sessions_are_not_ready() -> None:
    p = pool(2, 4)
    t = target_of(p)
    old = pod(t, p, 0, revision="old", ready=False, failure=Failure("OOMKilled", "OOMKilled: old"))
    seen = status(p, [node()], [old, pod(t, p, 0, ready=False, failure=IMPORT_ERROR)])
    assert seen.nodes[0].message == IMPORT_ERROR.message


def test_a_failure_that_may_pass_is_the_reason_of_ready_and_does_not_stall() -> None:
    p = pool(1, 4)
    t = target_of(p)
    once = replace(IMPORT_ERROR, lasts=False)
    seen = status(p, [node()], [pod(t, p, 0, ready=False, failure=once)])
    assert (of_type(seen, "Ready").status, of_type(seen, "Ready").reason) == ("False", "SessionFailed")
    assert (of_type(seen, "Stalled").status, of_type(seen, "Reconciling").status) == ("False", "True")


def test_an_evicted_session_is_reported_while_its_slot_is_held() -> None:
    p = pool(1, 4)
    t = target_of(p)
    evicted = pod(t, p, 0, ready=False, ended=True, failure=Failure("Evicted", "Evicted: low on memory"))
    seen = status(p, [node()], [evicted])
    assert (seen.nodes[0].state, seen.nodes[0].message) == (State.PENDING, "Evicted: low on memory")
    assert of_type(seen, "Stalled").reason == "Evicted"


def test_a_rollout_that_waits_for_a_closed_node_does_not_keep_the_pool_reconciling() -> None:
    p = pool(1, 4)
    t = target_of(p)
    pods = [pod(t, p, 0, on="a"), pod(t, p, 0, on="b", revision="old")]
    seen = status(p, [node("a"), node("b", schedulable=False)], pods)
    assert of_type(seen, "Reconciling").status == "False"


def test_a_session_that_was_made_before_its_node_was_closed_is_not_said_to_lack_room() -> None:
    p = pool(2, 4)
    t = target_of(p)
    pressed = node("a", taints=(Taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"),))
    no_room = Failure("Unschedulable", "Unschedulable: 0/1 nodes are available: 1 node(s) had untolerated taint(s)")
    seen = status(p, [pressed], [pod(t, p, 0, on="a"), pod(t, p, 1, on="a", ready=False, failure=no_room)])
    assert of_type(seen, "Stalled").reason == "NodePressure"
    evicted = Failure("Evicted", "Evicted: The node was low on resource: ephemeral-storage")
    seen = status(p, [pressed], [pod(t, p, 0, on="a"), pod(t, p, 1, on="a", ready=False, failure=evicted)])
    assert of_type(seen, "Stalled").reason == "Evicted"


def test_sessions_that_may_stay_on_a_tainted_node_are_no_reason_to_wait() -> None:
    p = pool(1, 4)
    t = target_of(p)
    tainted = node("b", taints=(Taint("team", "x", "NoSchedule"),))
    seen = status(p, [node("a"), tainted], [pod(t, p, 0, on="a"), pod(t, p, 0, on="b")])
    assert seen.state is State.SUCCESS
    assert (seen.nodes[1].desired, seen.nodes[1].ready) == (0, 1)


def test_a_container_that_is_not_created_for_long_is_said() -> None:
    p = pool(1, 4)
    t = target_of(p)
    creating = replace(pod(t, p, 0, ready=False), started=False, created_at=NOW.timestamp() - 50)
    message = status(p, [node()], [creating]).nodes[0].message
    assert message == f"pod {creating.name} waits for its volumes or image for more than 40 s: see kubectl describe pod"


@pytest.mark.parametrize(("age", "seconds"), [(0.0, 40.0), (39.0, 1.0), (40.0, 40.0), (100.0, 60.0), (170.0, 150.0)])
def test_a_container_that_is_not_created_is_looked_at_when_there_is_more_to_say(age: float, seconds: float) -> None:
    p = pool(1, 4)
    t = target_of(p)
    creating = replace(pod(t, p, 0, ready=False), started=False, created_at=NOW.timestamp() - age)
    seen = Observation(p, t, {}, [creating], now=NOW.timestamp())
    assert says_more_in_seconds(seen) == pytest.approx(seconds)
    assert says_more_in_seconds(replace(seen, pods=[replace(creating, started=True)])) is None


def test_a_long_phase_is_shown_in_steps_so_that_status_is_not_a_clock() -> None:
    p = pool(1, 4)
    t = target_of(p)
    starting = pod(t, p, 0, ready=False)

    def message(seconds: float) -> str:
        reports = {starting.uid: report(0, phase="import pandas", phase_seconds=seconds)}
        return status(p, [node()], [starting], reports=reports).nodes[0].message

    assert message(3.0) == "sessions are starting"
    assert message(7.0) == message(9.0) == "import pandas for more than 5 s"
    assert message(11.0) == message(19.0) == "import pandas for more than 10 s"
    assert message(100.0) == "import pandas for more than 80 s"


def test_a_lost_node_is_pending_with_its_reason_and_does_not_make_the_pool_unready() -> None:
    p = pool(1, 4)
    t = target_of(p)
    pods = [pod(t, p, 0, on="a"), pod(t, p, 0, on="b", ready=True)]
    seen = status(p, [node("a"), node("b", ready=False)], pods)
    assert [(n.name, n.state, n.ready) for n in seen.nodes] == [("b", State.PENDING, 0), ("a", State.SUCCESS, 1)]
    assert seen.nodes[0].message.startswith("NodeNotReady")
    assert seen.state is State.PENDING
    assert of_type(seen, "Ready").status == "True"


def test_a_cordoned_node_without_sessions_awaits_none() -> None:
    seen = status(pool(1, 4), [node("a"), node("b", schedulable=False)], [])
    assert {n.name: n.state for n in seen.nodes} == {"a": State.PENDING, "b": State.NOT_FOUND}


def test_a_process_pods_sessions_are_those_it_reports() -> None:
    p = process_pool(3, 6)
    t = target_of(p)
    there = pod(t, p, 0)
    assert status(p, [node()], [there], reports={there.uid: report(2, 3, 6)}).state is State.PENDING
    seen = status(p, [node()], [there], reports={there.uid: report(3, 3, 6)})
    assert (seen.state, seen.sessions.ready) == (State.SUCCESS, 3)


def test_sessions_are_counted_by_the_isolation_of_their_pods() -> None:
    p = process_pool(3, 6)
    t = target_of(p)
    single = [pod(t, p, slot, revision="old", isolation=Isolation.POD) for slot in range(3)]
    assert status(p, [node()], single).sessions.ready == 3
    assert status(p, [node()], [*single, pod(t, p, 0)]).sessions.ready == 6
    back = pool(2, 6)
    whole = pod(target_of(back), back, 0, revision="old", isolation=Isolation.PROCESS)
    assert status(back, [node()], [whole]).sessions.ready == 2


def test_growth_above_initial_does_not_show() -> None:
    p = process_pool(2, 6)
    t = target_of(p)
    there = pod(t, p, 0)
    seen = status(p, [node()], [there], reports={there.uid: report(5, 2, 6)})
    assert (seen.state, seen.nodes[0].desired, seen.nodes[0].ready) == (State.SUCCESS, 2, 2)


def test_a_session_beyond_initial_that_can_not_start_is_said_and_is_no_condition() -> None:
    p = pool(1, 4)
    t = target_of(p)
    seen = status(p, [node()], [pod(t, p, 0), pod(t, p, 1, ready=False, failure=IMPORT_ERROR)])
    assert (seen.state, seen.nodes[0].message) == (State.SUCCESS, IMPORT_ERROR.message)
    assert (of_type(seen, "Ready").status, of_type(seen, "Stalled").status) == ("True", "False")


def test_the_only_session_of_a_pool_without_initial_ones_that_can_not_start_stalls_it() -> None:
    p = pool(0, 4)
    t = target_of(p)
    seen = status(p, [node()], [pod(t, p, 0, ready=False, failure=IMPORT_ERROR)])
    assert (seen.state, of_type(seen, "Stalled").status) == (State.SUCCESS, "True")


def test_the_sessions_of_a_pool_that_is_deleted_count_down() -> None:
    p = pool(2, 4, meta={"deletionTimestamp": "2026-11-22T12:00:00Z"})
    t = target_of(p)
    leaving = pod(t, p, 0, deleting=True)
    assert status(p, [node()], [leaving]).nodes[0].state is State.PENDING
    assert status(p, [node()], []).state is State.NOT_FOUND


def test_at_most_500_rows_are_listed_and_all_are_counted() -> None:
    p = pool(1, 1)
    t = target_of(p)
    nodes = [node(f"worker-{n:04}") for n in range(600)]
    seen = status(p, nodes, [pod(t, p, 0, on=n.name) for n in nodes[:-1]])
    assert len(seen.nodes) == 500
    assert seen.nodes[0].name == "worker-0599"
    assert (seen.node_counts.total, seen.node_counts.success, seen.node_counts.pending) == (600, 599, 1)


def test_a_transition_time_stays_while_the_status_of_the_condition_does() -> None:
    p = pool(1, 4)
    first = status(p, [node()], [])
    later = p.model_copy(update={"status": first})
    t = target_of(p)
    minute = NOW.timestamp() + 60
    seen = pool_status(Observation(later, t, places(p, node()), [], now=minute))
    assert of_type(seen, "Ready").last_transition_time == NOW
    ready = pool_status(Observation(later, t, places(p, node()), [pod(t, p, 0)], now=minute))
    assert of_type(ready, "Ready").last_transition_time == NOW + timedelta(minutes=1)


class TestWhatTheRuntimeFound:
    def test_it_is_unknown_until_a_session_was_asked(self) -> None:
        assert of_type(status(pool(1, 4), [node()], []), "Warmed").status == "Unknown"

    def test_no_warmup_input_is_said(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        there = pod(t, p, 0)
        seen = status(p, [node()], [there], reports={there.uid: report(1, warmed=False)})
        assert (of_type(seen, "Warmed").status, of_type(seen, "Warmed").reason) == ("False", "NoInput")

    def test_threads_in_the_template_are_named(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        there = pod(t, p, 0)
        seen = status(p, [node()], [there], reports={there.uid: report(1, threads=("grpc-poller",))})
        assert of_type(seen, "NotForkSafe").status == "True"
        assert "grpc-poller" in of_type(seen, "NotForkSafe").message
