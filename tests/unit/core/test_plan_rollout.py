"""How old sessions of a node are replaced: sessions are counted, whatever pods they are in."""

import pytest

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView, SessionReport
from sessionpools.core.plan import Plan, plan
from sessionpools.core.target import Target
from support.builders import node, places, pod, pool, process_pool, target_of

POD, PROCESS = Isolation.POD, Isolation.PROCESS


def planned(p: SessionPool, pods: list[PodView], reports: dict[str, SessionReport] | None = None) -> Plan:
    return plan(p, target_of(p), places(p, node()), pods, reports or {}, now=1_000_000.0)


def created(plan_: Plan) -> list[int]:
    return [create.slot for create in plan_.creates]


def deleted(plan_: Plan) -> list[int]:
    assert {delete.why for delete in plan_.deletes} <= {"OldRevision"}
    return [delete.pod.owner.slot for delete in plan_.deletes]


def report(ready: int = 1, busy: int = 0) -> SessionReport:
    return SessionReport(ready, busy, "ready", 0.0, ready, ready)


def rolling(initial: int = 2, maximum: int = 4, surge: int = 1, unavailable: int = 0) -> tuple[SessionPool, Target]:
    p = pool(initial, maximum, update={"maxSurge": surge, "maxUnavailable": unavailable})
    return p, target_of(p)


class TestPods:
    def test_it_surges_before_anything_is_deleted(self) -> None:
        p, t = rolling()
        result = planned(p, [pod(t, p, s, revision="old") for s in (0, 1)])
        assert (created(result), deleted(result)) == ([0], [])

    def test_one_old_session_goes_when_a_new_one_is_ready(self) -> None:
        p, t = rolling()
        pods = [pod(t, p, 0, revision="old"), pod(t, p, 1, revision="old"), pod(t, p, 0)]
        assert deleted(planned(p, pods)) == [1]

    def test_busy_old_sessions_go_last(self) -> None:
        p, t = rolling()
        old = [pod(t, p, 0, revision="old"), pod(t, p, 1, revision="old")]
        assert deleted(planned(p, [*old, pod(t, p, 0)], {old[1].uid: report(busy=1)})) == [0]

    def test_a_revision_that_never_gets_ready_leaves_the_old_sessions_serving(self) -> None:
        p, t = rolling()
        pods = [pod(t, p, 0, revision="old"), pod(t, p, 1, revision="old"), pod(t, p, 0, ready=False)]
        assert planned(p, pods) == Plan()

    def test_old_sessions_that_serve_nobody_go_at_once(self) -> None:
        p, t = rolling()
        result = planned(p, [pod(t, p, s, revision="old", ready=False) for s in (0, 1)])
        assert (created(result), deleted(result)) == ([0], [0, 1])

    def test_without_surge_it_uses_what_may_be_unavailable(self) -> None:
        p, t = rolling(surge=0, unavailable=1)
        result = planned(p, [pod(t, p, s, revision="old") for s in (0, 1)])
        assert (created(result), deleted(result)) == ([], [1])

    def test_a_larger_surge_starts_as_many_at_once(self) -> None:
        p, t = rolling(initial=4, maximum=8, surge=3)
        old = [pod(t, p, s, revision="old") for s in range(4)]
        assert created(planned(p, old)) == [0, 1, 2]
        result = planned(p, [*old, pod(t, p, 0), pod(t, p, 1), pod(t, p, 2)])
        assert (created(result), deleted(result)) == ([], [3, 2, 1])

    def test_surge_and_unavailable_are_used_together(self) -> None:
        p, t = rolling(initial=4, maximum=8, surge=1, unavailable=2)
        result = planned(p, [pod(t, p, s, revision="old") for s in range(4)])
        assert (created(result), deleted(result)) == ([0], [3, 2])

    def test_where_the_maximum_is_reached_the_next_one_waits_until_an_old_one_has_gone(self) -> None:
        p, t = rolling(initial=2, maximum=2)
        leaving = pod(t, p, 1, revision="old", deleting=True)
        there = [pod(t, p, 0, revision="old"), pod(t, p, 0)]
        assert planned(p, [*there, leaving]) == Plan()
        assert created(planned(p, there)) == [1]

    def test_a_revision_that_comes_back_keeps_its_sessions_and_the_others_go(self) -> None:
        p, t = rolling()
        pods = [pod(t, p, 0), pod(t, p, 1), pod(t, p, 0, revision="failing", ready=False)]
        result = planned(p, pods)
        assert [delete.pod for delete in result.deletes] == [pods[2]]
        assert result.creates == ()


class TestProcessPods:
    def test_one_is_replaced_surge_first(self) -> None:
        p = process_pool(4, 4)
        t = target_of(p)
        old = pod(t, p, 0, revision="old")
        assert (created(planned(p, [old])), deleted(planned(p, [old]))) == ([0], [])
        assert deleted(planned(p, [old, pod(t, p, 0, ready=False)])) == []
        assert deleted(planned(p, [old, pod(t, p, 0)])) == [0]

    def test_one_unavailable_session_is_not_a_whole_pod(self) -> None:
        p = process_pool(5, 10, update={"maxSurge": 1, "maxUnavailable": 1})
        result = planned(p, [pod(target_of(p), p, 0, revision="old")])
        assert (created(result), deleted(result)) == ([0], [])

    def test_it_goes_when_those_that_stay_are_enough(self) -> None:
        p = process_pool(5, 10, update={"maxSurge": 1, "maxUnavailable": 1})
        t = target_of(p)
        old, new = pod(t, p, 0, revision="old"), pod(t, p, 0)
        for ready, gone in ((3, []), (4, [0]), (5, [0])):
            assert deleted(planned(p, [old, new], {new.uid: report(ready)})) == gone

    def test_without_surge_it_goes_first_and_the_new_one_waits_for_it(self) -> None:
        p = process_pool(2, 10, update={"maxSurge": 0, "maxUnavailable": 2})
        t = target_of(p)
        assert deleted(planned(p, [pod(t, p, 0, revision="old")])) == [0]
        assert created(planned(p, [pod(t, p, 0, revision="old", deleting=True)])) == []
        assert created(planned(p, [])) == [0]

    def test_a_third_one_waits_until_one_of_two_has_gone(self) -> None:
        p = process_pool(2, 10, update={"maxSurge": 5})
        t = target_of(p)
        old, leaving = pod(t, p, 0, revision="old"), pod(t, p, 0, revision="older", deleting=True)
        assert created(planned(p, [old, leaving])) == []
        assert created(planned(p, [old])) == [0]

    def test_a_pool_without_initial_sessions_is_replaced_surge_first_too(self) -> None:
        p = process_pool(0, 4)
        t = target_of(p)
        old = pod(t, p, 0, revision="old")
        assert (created(planned(p, [old])), deleted(planned(p, [old]))) == ([0], [])
        assert deleted(planned(p, [old, pod(t, p, 0)])) == [0]

    def test_a_pool_that_is_closed_loses_its_old_pod(self) -> None:
        p = process_pool(0, 0)
        result = planned(p, [pod(target_of(p), p, 0, revision="old")])
        assert (created(result), deleted(result)) == ([], [0])


class TestIsolation:
    """A pool whose isolation changes has pods of both kinds for a while."""

    def test_one_pod_for_all_replaces_single_ones_when_it_is_ready(self) -> None:
        p = process_pool(5, 5)
        t = target_of(p)
        old = [pod(t, p, s, revision="old", isolation=POD) for s in range(5)]
        starting = planned(p, old)
        assert (created(starting), deleted(starting)) == ([0], [])
        assert deleted(planned(p, [*old, pod(t, p, 0, ready=False)])) == []
        assert deleted(planned(p, [*old, pod(t, p, 0)])) == [4, 3, 2, 1, 0]

    def test_single_pods_replace_one_for_all_when_they_are_all_ready(self) -> None:
        p = pool(3, 3)
        t = target_of(p)
        old = pod(t, p, 0, revision="old", isolation=PROCESS)
        starting = planned(p, [old])
        assert (created(starting), deleted(starting)) == ([0, 1, 2], [])
        new = [pod(t, p, s) for s in range(3)]
        assert deleted(planned(p, [old, *new[:2], pod(t, p, 2, ready=False)])) == []
        assert deleted(planned(p, [old, *new])) == [0]

    @pytest.mark.parametrize(("before", "after"), [(POD, PROCESS), (PROCESS, POD)])
    @pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (0, 3), (2, 1), (0, 1)])
    @pytest.mark.parametrize(("initial", "maximum"), [(3, 3), (3, 6), (0, 2), (1, 1)])
    def test_it_ends_and_never_has_too_few_sessions_or_too_many_pods(
        self, before: Isolation, after: Isolation, surge: int, unavailable: int, initial: int, maximum: int
    ) -> None:
        if after is PROCESS and not surge and unavailable < initial:
            return  # refused by the API server: it could never end
        p = pool(initial, maximum, isolation=after, update={"maxSurge": surge, "maxUnavailable": unavailable})
        t = target_of(p)
        slots = range(initial if before is POD else 1)
        pods = {f"old-{s}": pod(t, p, s, revision="old", isolation=before) for s in slots}

        def sessions(one: PodView) -> int:
            return initial if (one.owner.isolation or after) is PROCESS else 1

        for _ in range(30):
            step = planned(p, list(pods.values()))
            for delete in step.deletes:
                pods = {name: one for name, one in pods.items() if one.uid != delete.pod.uid}
            assert sum(sessions(one) for one in pods.values()) >= initial - unavailable
            pods |= {f"new-{create.slot}": pod(t, p, create.slot) for create in step.creates}
            assert len(pods) <= maximum + surge
            if step == Plan():
                break
        assert {one.owner.revision for one in pods.values()} <= {t.revision.name}
        assert sum(sessions(one) for one in pods.values()) == initial

    def test_a_cordoned_node_keeps_its_single_pods_until_one_for_all_may_start_there(self) -> None:
        p = process_pool(5, 5)
        old = [pod(target_of(p), p, s, revision="old", isolation=POD) for s in range(5)]
        cordoned = places(p, node(schedulable=False))
        assert plan(p, target_of(p), cordoned, old, {}, now=1e6) == Plan()
        closed = process_pool(0, 0)
        gone = plan(closed, target_of(closed), cordoned, old, {}, now=1e6).deletes
        assert [delete.why for delete in gone] == ["PoolResized"] * 5

    def test_each_pod_is_told_the_sizes_of_its_own_isolation(self) -> None:
        p = process_pool(5, 10)
        t = target_of(p)
        single = pod(t, p, 0, revision="old", isolation=POD, settings="stale")
        whole = pod(t, p, 0, settings="stale")
        told = {patch.pod.uid: patch.settings for patch in planned(p, [single, whole]).patches}
        assert '"initialPoolSize":1,"maxPoolSize":1' in told[single.uid]
        assert '"initialPoolSize":5,"maxPoolSize":10' in told[whole.uid]
