"""What is done next for a pool, node by node."""

import math
from dataclasses import replace

import pytest

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.demand import Wish
from sessionpools.core.model import NodeView, PodView, SessionReport, Taint
from sessionpools.core.plan import REPLACE_AGAIN_SECONDS, REPLACE_FIRST_SECONDS, Plan, plan
from sessionpools.core.target import Blocked, Target
from support.builders import node, places, pod, pool, process_pool, service, target_of

NOW = 1_000_000.0
TAINTS = (Taint("team", "other", "NoSchedule"),)


def planned(
    pool_: SessionPool,
    target: Target | Blocked,
    nodes: list[NodeView],
    pods: list[PodView],
    reports: dict[str, SessionReport] | None = None,
) -> Plan:
    return plan(pool_, target, places(pool_, *nodes), pods, reports or {}, NOW)


def slots(plan_: Plan) -> list[tuple[str, int, int]]:
    return [(create.node.name, create.slot, create.incarnation) for create in plan_.creates]


def deleted(plan_: Plan) -> list[tuple[int, str]]:
    return [(delete.pod.owner.slot, delete.why) for delete in plan_.deletes]


def report(busy: int = 0) -> SessionReport:
    return SessionReport(1, busy, "ready", 0.0, 1, 1)


def test_an_empty_pool_is_filled_with_initial_sessions_on_each_compute_node() -> None:
    p = pool(2, 4)
    result = planned(p, target_of(p), [node("worker-1"), node("worker-2")], [])
    assert slots(result) == [("worker-1", 0, 0), ("worker-1", 1, 0), ("worker-2", 0, 0), ("worker-2", 1, 0)]


def test_a_full_pool_needs_nothing() -> None:
    p = pool(2, 4)
    t = target_of(p)
    assert planned(p, t, [node()], [pod(t, p, 0), pod(t, p, 1)]) == Plan()


def test_a_missing_slot_is_filled_under_its_own_number() -> None:
    p = pool(3, 4)
    t = target_of(p)
    assert slots(planned(p, t, [node()], [pod(t, p, 0), pod(t, p, 2)])) == [("worker-1", 1, 0)]


def test_a_slot_whose_pod_is_terminating_gets_the_next_incarnation() -> None:
    p = pool(1, 1)
    t = target_of(p)
    leaving = pod(t, p, 0, deleting=True)
    result = planned(p, t, [node()], [leaving])
    assert slots(result) == [("worker-1", 0, 1)]
    assert deleted(result) == []


@pytest.mark.parametrize("surge", [0, 1, 2])
def test_pods_that_are_leaving_count_against_maximum_and_surge(surge: int) -> None:
    p = pool(3, 3, update={"maxSurge": surge, "maxUnavailable": 1})
    t = target_of(p)
    leaving = [pod(t, p, slot, deleting=True) for slot in range(3)]
    assert len(planned(p, t, [node()], leaving).creates) == surge
    assert len(planned(p, t, [node()], leaving[1:]).creates) == min(surge + 1, 3)


def test_a_pod_that_has_ended_holds_no_place_while_it_is_removed() -> None:
    p = pool(2, 2, update={"maxSurge": 0, "maxUnavailable": 1})
    t = target_of(p)
    ended = [pod(t, p, slot, ready=False, deleting=True, ended=True) for slot in range(2)]
    assert len(planned(p, t, [node()], ended).creates) == 2


def test_a_process_pool_has_one_pod_per_node_whatever_its_sizes() -> None:
    p = process_pool(5, 10)
    assert slots(planned(p, target_of(p), [node()], [])) == [("worker-1", 0, 0)]


def test_a_process_pool_with_no_initial_session_still_has_its_pod() -> None:
    p = process_pool(0, 3)
    assert len(planned(p, target_of(p), [node()], []).creates) == 1


def test_a_pool_with_maximum_zero_has_no_pod() -> None:
    for p in (pool(0, 0), process_pool(0, 0)):
        assert planned(p, target_of(p), [node()], []) == Plan()


def test_growing_initial_adds_sessions_and_leaves_the_others() -> None:
    p = pool(1, 4)
    t = target_of(p)
    grown = pool(3, 4)
    result = planned(grown, target_of(grown), [node()], [pod(t, p, 0, settings=None)])
    assert slots(result) == [("worker-1", 1, 0), ("worker-1", 2, 0)]
    assert result.deletes == ()


def test_shrinking_deletes_not_ready_then_idle_then_the_highest_slot() -> None:
    p = pool(1, 4)
    t = target_of(p)
    pods = [pod(t, p, slot, ready=slot != 0) for slot in range(4)]
    reports = {pods[3].uid: report(busy=1)}
    result = planned(p, t, [node()], pods, reports)
    assert deleted(result) == [(0, "PoolResized"), (2, "PoolResized"), (1, "PoolResized")]


def test_changed_sizes_reach_process_pods_as_settings_and_restart_nothing() -> None:
    p = process_pool(2, 4)
    t = target_of(p)
    there = pod(t, p, 0)
    result = planned(process_pool(3, 6), target_of(process_pool(3, 6)), [node()], [there])
    assert (result.creates, result.deletes) == ((), ())
    assert [patch.pod for patch in result.patches] == [there]
    assert '"initialPoolSize":3,"maxPoolSize":6' in result.patches[0].settings


class TestNodes:
    def test_a_cordoned_node_keeps_its_sessions_and_gets_none(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        assert planned(p, t, [node(schedulable=False)], [pod(t, p, 0)]) == Plan()

    def test_a_lost_node_is_not_churned(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        assert planned(p, t, [node(ready=False)], [pod(t, p, 0, ready=False), pod(t, p, 1, ready=False)]) == Plan()

    def test_a_removed_node_loses_its_pods(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        assert deleted(planned(p, t, [node("worker-1")], [pod(t, p, 0), pod(t, p, 0, on="gone")])) == [
            (0, "NodeRemoved")
        ]

    def test_a_node_that_was_replaced_under_its_name_is_filled_anew(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        result = planned(p, t, [node()], [pod(t, p, 0, node_uid="an-earlier-machine")])
        assert deleted(result) == [(0, "NodeReplaced")]
        assert slots(result) == [("worker-1", 0, 0)]

    def test_a_node_relabelled_out_of_the_selector_loses_its_sessions(self) -> None:
        p = pool(1, 4, placement={"nodeSelector": {"pool": "yes"}})
        t = target_of(p)
        assert deleted(planned(p, t, [node(labels={})], [pod(t, p, 0)])) == [(0, "NodeNotEligible")]

    def test_a_lost_node_keeps_its_sessions_through_a_rollout(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        assert planned(p, t, [node(ready=False)], [pod(t, p, 0, revision="old", ready=False)]) == Plan()

    def test_a_cordoned_node_waits_with_a_rollout_and_still_shrinks(self) -> None:
        p = pool(1, 4, update={"maxSurge": 0, "maxUnavailable": 1})
        t = target_of(p)
        closed = node(schedulable=False)
        assert planned(p, t, [closed], [pod(t, p, 0, revision="old")]) == Plan()
        assert deleted(planned(p, t, [closed], [pod(t, p, 0), pod(t, p, 1)])) == [(1, "PoolResized")]

    def test_an_old_revision_leaves_a_node_where_nothing_can_replace_it(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        assert deleted(planned(p, t, [node(taints=TAINTS)], [pod(t, p, 0, revision="old")])) == [(0, "NodeNotEligible")]

    def test_a_no_schedule_taint_keeps_what_runs(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        assert planned(p, t, [node(taints=TAINTS)], [pod(t, p, 0)]) == Plan()

    def test_what_is_above_a_lowered_size_leaves_a_tainted_node_too(self) -> None:
        p = pool(1, 1)
        t = target_of(p)
        pods = [pod(t, p, slot) for slot in range(3)]
        assert deleted(planned(p, t, [node(taints=TAINTS)], pods)) == [(2, "PoolResized"), (1, "PoolResized")]

    def test_an_idle_session_retires_from_a_tainted_node_too(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        pods = [pod(t, p, slot) for slot in range(2)]
        wishes = {"worker-1": Wish(1, (pods[1],))}
        found = plan(p, t, places(p, node(taints=TAINTS)), pods, {}, NOW, wishes)
        assert deleted(found) == [(1, "Idle")]

    def test_an_ended_pod_is_removed_from_a_tainted_node(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        ended = pod(t, p, 0, ready=False, ended=True, ended_at=NOW)
        assert deleted(planned(p, t, [node(taints=TAINTS)], [ended])) == [(0, "NodeNotEligible")]


class TestEndedPods:
    def ended(self, p: SessionPool, t: Target, incarnation: int, seconds_ago: float) -> PodView:
        at = NOW - seconds_ago
        made = pod(t, p, 0, ready=False, ended=True, incarnation=incarnation, ended_at=at)
        return replace(made, created_at=at)

    def test_one_holds_its_slot_during_the_back_off(self) -> None:
        p = pool(1, 1)
        t = target_of(p)
        result = planned(p, t, [node()], [self.ended(p, t, 0, seconds_ago=1)])
        assert (result.creates, result.deletes) == ((), ())
        assert result.look_again_seconds is not None
        assert REPLACE_FIRST_SECONDS - 2 < result.look_again_seconds < REPLACE_FIRST_SECONDS * 1.5

    def test_it_is_replaced_by_the_next_incarnation_afterwards(self) -> None:
        p = pool(1, 1)
        t = target_of(p)
        result = planned(p, t, [node()], [self.ended(p, t, 0, seconds_ago=REPLACE_FIRST_SECONDS * 1.6)])
        assert slots(result) == [("worker-1", 0, 1)]
        assert deleted(result) == [(0, "PodEnded")]

    @pytest.mark.parametrize("incarnation", [1, 2, 3])
    def test_each_further_incarnation_waits_twice_as_long(self, incarnation: int) -> None:
        p = pool(1, 1)
        t = target_of(p)
        ended = self.ended(p, t, incarnation, seconds_ago=REPLACE_AGAIN_SECONDS * 2 ** (incarnation - 1) - 1)
        assert planned(p, t, [node()], [ended]).creates == ()

    def test_a_pod_that_lived_for_long_is_replaced_soon_whatever_its_incarnation(self) -> None:
        p = pool(1, 1)
        t = target_of(p)
        ended = replace(self.ended(p, t, 7, seconds_ago=30), created_at=NOW - 86400)
        assert slots(planned(p, t, [node()], [ended])) == [("worker-1", 0, 8)]

    def test_at_most_two_pods_stand_in_one_slot_within_five_minutes(self) -> None:
        p = pool(1, 1)
        t = target_of(p)
        started, incarnation, uids = 0.0, 0, 1
        for second in range(300):
            there = replace(self.ended(p, t, incarnation, 0), created_at=started, ended_at=started)
            if plan(p, t, places(p, node()), [there], {}, float(second)).creates:
                started, incarnation, uids = float(second), incarnation + 1, uids + 1
        assert uids == 2


class TestHeldNodes:
    def test_a_node_gets_no_session_before_its_time_and_the_others_do(self) -> None:
        p = pool(1, 4)
        result = held(p, [], {"worker-1": NOW + 30})
        assert slots(result) == [("worker-2", 0, 0)]
        assert result.look_again_seconds == 30

    def test_it_gets_one_when_its_time_has_come(self) -> None:
        assert len(held(pool(1, 4), [], {"worker-1": NOW}).creates) == 2

    def test_nothing_is_due_where_there_is_nothing_to_create_or_never_will_be(self) -> None:
        p = pool(1, 4)
        full = [pod(target_of(p), p, 0, on=name) for name in ("worker-1", "worker-2")]
        assert held(p, full, {"worker-1": NOW + 30}) == Plan()
        assert held(p, [], dict.fromkeys(("worker-1", "worker-2"), math.inf)) == Plan()

    def test_what_is_there_is_dealt_with_meanwhile(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        broken = pod(t, p, 0, revision="old", ready=False)
        result = held(p, [broken, pod(t, p, 0, on="worker-2")], {"worker-1": NOW + 30})
        assert (result.creates, deleted(result)) == ((), [(0, "OldRevision")])


def held(p: SessionPool, pods: list[PodView], not_before: dict[str, float]) -> Plan:
    both = places(p, node("worker-1"), node("worker-2"))
    return plan(p, target_of(p), both, pods, {}, NOW, not_before=not_before)


class TestNoTarget:
    def test_sessions_of_a_service_that_is_gone_are_retired(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        gone = Blocked("ServiceNotFound", "...", retire=True)
        assert deleted(planned(p, gone, [node()], [pod(t, p, 0)])) == [(0, "ServiceNotFound")]

    def test_sessions_go_on_while_the_code_cannot_be_read(self) -> None:
        p = pool(2, 4)
        t = target_of(p)
        assert planned(p, Blocked("ConfigMapNotFound", "..."), [node()], [pod(t, p, 0)]) == Plan()

    def test_a_pool_that_is_being_deleted_is_left_to_the_garbage_collector(self) -> None:
        p = pool(2, 4, meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
        t = target_of(p, service())
        assert planned(p, t, [node()], [pod(t, p, 0)]) == Plan()
