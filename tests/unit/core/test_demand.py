"""How many sessions each node should have, by what is asked of the pool."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.demand import SETTLE_SECONDS, Demand, Wish, look_again, retirable, wishes
from sessionpools.core.model import Failure, NodeView, PodView
from sessionpools.core.plan import Plan, plan
from support.builders import node, places, pod, pool, process_pool, target_of

NOW = 1_000_000.0
IDLE = 300.0
FAILED = Failure("SessionFailed", "ImportError")


def big(name: str = "worker-1", cpus: int = 64) -> NodeView:
    """A node on which pacing is not in the way."""
    return replace(node(name), cpus=cpus)


def wished(
    pool_: SessionPool,
    demand: Demand | None,
    nodes: list[NodeView],
    pods: list[PodView],
    *,
    before: Mapping[str, int] | None = None,
    idle: Mapping[str, float] | None = None,
    held: Collection[str] = (),
) -> dict[str, Wish]:
    revision = target_of(pool_).revision.name
    return wishes(pool_, revision, demand, places(pool_, *nodes), pods, before or {}, idle or {}, NOW, held)


def sessions(of: Mapping[str, Wish]) -> dict[str, int]:
    return {name: wish.sessions for name, wish in of.items()}


def slots(pool_: SessionPool, count: int, **fields: object) -> list[PodView]:
    t = target_of(pool_)
    return [pod(t, pool_, slot, **fields) for slot in range(count)]  # type: ignore[arg-type]


def planned(pool_: SessionPool, nodes: list[NodeView], pods: list[PodView], by_demand: Mapping[str, Wish]) -> Plan:
    return plan(pool_, target_of(pool_), places(pool_, *nodes), pods, {}, NOW, by_demand)


class TestGrowth:
    def test_a_node_that_gets_no_session_pod_now_does_not_grow_and_its_calls_go_to_the_others(self) -> None:
        p = pool(2, 8)
        nodes = [big("worker-1"), big("worker-2")]
        there = [pod(target_of(p), p, slot, on="worker-2") for slot in range(2)]
        found = wished(p, Demand(2, 3), nodes, there, held=["worker-1"])
        assert sessions(found) == {"worker-1": 2, "worker-2": 5}

    def test_without_calls_a_node_has_its_initial_sessions(self) -> None:
        assert sessions(wished(pool(2, 8), Demand(0, 0), [big()], [])) == {"worker-1": 2}

    def test_there_are_as_many_sessions_as_calls_waiting_ones_included(self) -> None:
        p = pool(2, 8)
        assert sessions(wished(p, Demand(2, 3), [big()], slots(p, 2))) == {"worker-1": 5}

    def test_calls_that_have_sessions_ask_for_no_more(self) -> None:
        p = pool(2, 8)
        assert sessions(wished(p, Demand(2, 0), [big()], slots(p, 2))) == {"worker-1": 2}

    def test_the_first_call_of_a_pool_without_initial_sessions_makes_one(self) -> None:
        p = pool(0, 8)
        by_demand = wished(p, Demand(0, 1), [big(), big("worker-2")], [])
        assert sessions(by_demand) == {"worker-1": 1, "worker-2": 0}
        creates = planned(p, [big(), big("worker-2")], [], by_demand).creates
        assert [(create.node.name, create.slot, create.why) for create in creates] == [("worker-1", 0, "Demand")]

    def test_new_sessions_go_where_there_are_fewest(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        there = [*slots(p, 4), pod(t, p, 0, on="worker-2"), pod(t, p, 0, on="worker-3")]
        by_demand = wished(p, Demand(6, 5), [big(), big("worker-2"), big("worker-3")], there)
        assert sessions(by_demand) == {"worker-1": 4, "worker-2": 4, "worker-3": 3}

    def test_no_node_gets_more_than_its_maximum_however_many_calls_wait(self) -> None:
        p = pool(1, 4)
        by_demand = wished(p, Demand(2, 100), [big(), big("worker-2")], [])
        assert sessions(by_demand) == {"worker-1": 4, "worker-2": 4}

    def test_sessions_that_leave_count_against_the_maximum(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        there = [*slots(p, 2), pod(t, p, 2, deleting=True)]
        assert sessions(wished(p, Demand(2, 50), [big()], there)) == {"worker-1": 3}

    def test_sessions_that_start_count_as_there(self) -> None:
        p = pool(1, 8)
        there = [*slots(p, 1), *slots(p, 4, ready=False)[1:]]
        assert sessions(wished(p, Demand(1, 3), [big()], there)) == {"worker-1": 4}

    @pytest.mark.parametrize("cpus", [1, 3])
    def test_two_start_at_a_time_for_each_cpu_of_a_node(self, cpus: int) -> None:
        p = pool(1, 32)
        there = slots(p, 1)
        for _ in range(3):
            ready = len(there)
            by_demand = wished(p, Demand(1, 30), [big(cpus=cpus)], there)
            assert by_demand["worker-1"].sessions == ready + 2 * cpus
            starting = slots(p, ready + 2 * cpus, ready=False)[ready:]
            assert sessions(wished(p, Demand(1, 30), [big(cpus=cpus)], there + starting)) == sessions(by_demand)
            there = slots(p, ready + 2 * cpus)

    def test_initial_sessions_do_not_wait_for_cpus_and_growth_waits_for_them(self) -> None:
        by_demand = wished(pool(5, 32), Demand(0, 30), [big(cpus=2)], [])
        assert sessions(by_demand) == {"worker-1": 5}

    def test_deciding_again_with_half_of_it_visible_comes_to_the_same(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        nodes = [big(), big("worker-2"), big("worker-3")]
        there = [pod(t, p, 0, on=n.name) for n in nodes]
        first = wished(p, Demand(3, 5), nodes, there)
        creates = planned(p, nodes, there, first).creates
        assert len(creates) == 5
        made = [pod(t, p, c.slot, on=c.node.name, ready=False) for c in creates]
        for visible in range(len(made) + 1):
            assert wished(p, Demand(3, 5), nodes, there + made[:visible]) == first
            assert wished(p, Demand(3, 5), nodes, there + made[visible:]) == first

    def test_a_node_where_a_session_can_not_start_gets_no_more_and_the_others_do(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        failing = pod(t, p, 1, ready=False, failure=FAILED)
        there = [*slots(p, 1), replace(failing, created_at=NOW), pod(t, p, 0, on="worker-2")]
        by_demand = wished(p, Demand(2, 3), [big(), big("worker-2")], there)
        assert sessions(by_demand) == {"worker-1": 2, "worker-2": 4}

    def test_a_node_whose_session_was_evicted_gets_no_more(self) -> None:
        p = pool(1, 8)
        there = [*slots(p, 1), pod(target_of(p), p, 1, ended=True, ready=False)]
        assert sessions(wished(p, Demand(1, 5), [big()], there)) == {"worker-1": 1}

    @pytest.mark.parametrize("closed", [{"ready": False}, {"schedulable": False}])
    def test_a_node_that_takes_no_new_sessions_does_not_grow(self, closed: dict[str, bool]) -> None:
        p = pool(1, 8)
        there = slots(p, 1)
        nodes = [replace(big(), **closed), big("worker-2")]  # type: ignore[arg-type]
        by_demand = wished(p, Demand(1, 2), nodes, there)
        assert by_demand["worker-1"].sessions == 1
        # the sessions of a cordoned node serve, those of a lost one do not
        assert by_demand["worker-2"].sessions == (3 if "ready" in closed else 2)

    def test_growth_during_a_rollout_does_not_take_surge_sessions_for_wanted_ones(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        there = [*[pod(t, p, s, revision="old") for s in range(4)], pod(t, p, 0)]
        before = {"worker-1": 4}
        for _ in range(5):
            before = sessions(wished(p, Demand(4, 0), [big()], there, before=before))
        assert before == {"worker-1": 4}
        assert sessions(wished(p, Demand(4, 2), [big()], there, before=before)) == {"worker-1": 6}

    def test_a_controller_that_starts_in_a_rollout_keeps_the_larger_revision_s_number(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        there = [*[pod(t, p, s, revision="old") for s in range(4)], pod(t, p, 0)]
        assert sessions(wished(p, Demand(4, 0), [big()], there)) == {"worker-1": 4}


class TestShrinking:
    def idle(self, pods: list[PodView], seconds: float = IDLE) -> dict[str, float]:
        return dict.fromkeys((p.uid for p in pods), seconds)

    def test_sessions_above_initial_go_when_they_were_idle_for_long(self) -> None:
        p = pool(2, 8)
        there = slots(p, 5)
        (wish,) = wished(p, Demand(0, 0), [big()], there, idle=self.idle(there)).values()
        assert (wish.sessions, [pod.owner.slot for pod in wish.retire]) == (2, [4, 3, 2])
        result = planned(p, [big()], there, {"worker-1": wish})
        assert [(d.pod.owner.slot, d.why) for d in result.deletes] == [(4, "Idle"), (3, "Idle"), (2, "Idle")]
        assert result.creates == ()

    def test_one_that_was_used_lately_or_did_not_say_stays(self) -> None:
        p = pool(1, 8)
        there = slots(p, 3)
        by_demand = wished(p, Demand(0, 0), [big()], there, idle={there[2].uid: IDLE - 1})
        assert by_demand == {"worker-1": Wish(3)}

    def test_as_many_stay_as_there_are_calls_and_the_highest_slots_go_first(self) -> None:
        p = pool(1, 8)
        t = target_of(p)
        there = [*slots(p, 3), *[pod(t, p, s, on="worker-2") for s in range(5)]]
        by_demand = wished(p, Demand(5, 0), [big(), big("worker-2")], there, idle=self.idle(there))
        assert sessions(by_demand) == {"worker-1": 2, "worker-2": 3}

    def test_a_pool_without_initial_sessions_may_go_down_to_none(self) -> None:
        p = pool(0, 8)
        there = slots(p, 1)
        assert sessions(wished(p, Demand(0, 0), [big()], there, idle=self.idle(there))) == {"worker-1": 0}

    def test_ready_sessions_stay_initial_in_number_though_others_do_not_start(self) -> None:
        p = pool(2, 8)
        there = [pod(target_of(p), p, 0, ready=False), *slots(p, 3)[1:]]
        assert wished(p, Demand(0, 0), [big()], there, idle=self.idle(there)) == {"worker-1": Wish(3)}

    def test_one_that_fails_to_start_goes_after_the_idle_time_when_it_is_not_needed(self) -> None:
        p = pool(1, 8)
        failing = pod(target_of(p), p, 1, ready=False, failure=FAILED)
        for age, demand, gone in ((IDLE, Demand(1, 0), True), (IDLE, Demand(1, 1), False), (1.0, Demand(0, 0), False)):
            there = [*slots(p, 1), replace(failing, created_at=NOW - age)]
            (wish,) = wished(p, demand, [big()], there).values()
            assert wish == (Wish(1, (there[1],)) if gone else Wish(2))

    def test_nothing_goes_in_a_rollout_nor_from_a_lost_node(self) -> None:
        p = pool(1, 8)
        rolling = [*slots(p, 3), pod(target_of(p), p, 3, revision="old")]
        by_demand = wished(p, Demand(0, 0), [big()], rolling, before={"worker-1": 4}, idle=self.idle(rolling))
        assert by_demand == {"worker-1": Wish(4)}
        there = slots(p, 3)
        lost = replace(big(), ready=False)
        assert wished(p, Demand(0, 0), [lost], there, idle=self.idle(there)) == {"worker-1": Wish(3)}

    def test_a_smaller_maximum_takes_sessions_away_at_once(self) -> None:
        p = pool(1, 2)
        there = slots(p, 4)
        by_demand = wished(p, Demand(4, 4), [big()], there)
        assert by_demand == {"worker-1": Wish(2)}
        assert [(d.pod.owner.slot, d.why) for d in planned(p, [big()], there, by_demand).deletes] == [
            (3, "PoolResized"),
            (2, "PoolResized"),
        ]

    def test_only_what_may_go_is_worth_asking_for_how_long_it_is_idle(self) -> None:
        p = pool(2, 8)
        there = slots(p, 4)
        revision, where = target_of(p).revision.name, places(p, big())

        def asked(demand: Demand | None, pods: list[PodView]) -> list[int]:
            return [found.owner.slot for found in retirable(p, revision, demand, where, pods, {})]

        assert asked(Demand(3, 0), there) == [3, 2]
        assert asked(Demand(4, 0), there) == asked(None, there) == asked(Demand(0, 0), there[:2]) == []


class TestUnknownDemand:
    def test_what_is_there_stays_and_nothing_grows(self) -> None:
        p = pool(1, 8)
        there = slots(p, 4)
        idle = dict.fromkeys((pod.uid for pod in there), 1e6)
        by_demand = wished(p, None, [big(), big("worker-2")], there, idle=idle)
        assert by_demand == {"worker-1": Wish(4), "worker-2": Wish(1)}
        assert planned(p, [big()], there, by_demand) == Plan()


class TestLookAgain:
    def test_more_calls_than_sessions_are_looked_at_when_the_queue_has_had_time_to_drain(self) -> None:
        p = pool(1, 8)
        assert look_again(p, Demand(1, 1), slots(p, 1)) == SETTLE_SECONDS

    def test_a_call_that_no_session_can_take_is_looked_at_at_once(self) -> None:
        p = pool(0, 8)
        assert look_again(p, Demand(0, 1), []) == look_again(p, Demand(0, 2), slots(p, 1, ready=False)) == 0.0

    def test_sessions_that_could_fall_idle_are_looked_at_when_they_have(self) -> None:
        p = pool(1, 8)
        assert look_again(p, Demand(1, 0), slots(p, 2)) == IDLE

    def test_a_change_that_decides_nothing_is_not_looked_at(self) -> None:
        assert look_again(pool(2, 8), Demand(1, 0), slots(pool(2, 8), 2)) is None
        assert look_again(process_pool(0, 8), Demand(5, 5), []) is None


def test_a_new_revision_replaces_grown_sessions_as_a_rollout_and_not_as_growth() -> None:
    p = pool(1, 8)
    there = [pod(target_of(p), p, s, revision="old") for s in range(3)]
    creates = planned(p, [big()], there, {"worker-1": Wish(3)}).creates
    assert [create.why for create in creates] == ["Rollout"]


def test_initial_sessions_and_grown_ones_are_told_apart() -> None:
    creates = planned(pool(2, 8), [big()], [], {"worker-1": Wish(4)}).creates
    assert [create.why for create in creates] == ["Initial", "Initial", "Demand", "Demand"]
