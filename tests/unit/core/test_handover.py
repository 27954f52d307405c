"""Old sessions go when gateways have the new ones."""

import math

import pytest

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.demand import Demand
from sessionpools.core.handover import LOOK_AGAIN_SECONDS, unseen_sessions
from sessionpools.core.model import PodView
from sessionpools.core.plan import Plan, plan
from support.builders import node, places, pod, pool, process_pool, target_of

NODES = [node(f"worker-{n}") for n in range(4)]


def having(**pods: int) -> Demand:
    return Demand(0, 0, pods)


def unseen(p: SessionPool, pods: list[PodView], demand: Demand | None) -> float:
    return unseen_sessions(p, target_of(p).revision.name, demand, pods)


def planned(p: SessionPool, pods: list[PodView], unseen: float) -> Plan:
    return plan(p, target_of(p), places(p, *NODES), pods, {}, 1e6, unseen=unseen)


def rolling(p: SessionPool) -> list[PodView]:
    """An old and a new session pod, both ready, on each node."""
    t = target_of(p)
    return [pod(t, p, 0, on=n.name, revision=r) for n in NODES for r in ("old", t.revision.name)]


class TestUnseen:
    def test_without_a_rollout_nothing_is_waited_for(self) -> None:
        p = pool(1, 1)
        assert unseen(p, [pod(target_of(p), p)], None) == 0.0

    @pytest.mark.parametrize("demand", [None, Demand(3, 0)], ids=["none", "of an earlier version"])
    def test_it_is_not_known_while_no_gateway_says_it(self, demand: Demand | None) -> None:
        assert math.isinf(unseen(pool(1, 1), rolling(pool(1, 1)), demand))

    @pytest.mark.parametrize(("p", "sessions"), [(pool(1, 1), 1), (process_pool(5, 9), 5), (process_pool(0, 9), 1)])
    def test_it_is_counted_in_sessions_of_the_new_revision(self, p: SessionPool, sessions: int) -> None:
        name = target_of(p).revision.name
        assert unseen(p, rolling(p), having(old=4)) == 4 * sessions
        assert unseen(p, rolling(p), having(**{"old": 4, name: 3})) == sessions
        assert unseen(p, rolling(p), having(**{name: 4})) == 0

    def test_a_pod_that_a_gateway_has_and_that_is_gone_makes_nothing_negative(self) -> None:
        p = pool(1, 1)
        assert unseen(p, rolling(p), having(**{target_of(p).revision.name: 9})) == 0


@pytest.mark.parametrize("p", [pool(1, 1), process_pool(5, 5)], ids=["Pod", "Process"])
@pytest.mark.parametrize("pods_unseen", range(5))
def test_so_many_old_sessions_stay_as_new_ones_are_unseen(p: SessionPool, pods_unseen: int) -> None:
    result = planned(p, rolling(p), unseen=pods_unseen * p.spec.initial_pool_size)
    assert len(result.deletes) == 4 - pods_unseen
    assert result.look_again_seconds == (LOOK_AGAIN_SECONDS if pods_unseen else None)


def test_all_stay_while_nothing_is_known() -> None:
    p = pool(1, 1)
    assert planned(p, rolling(p), unseen=math.inf).deletes == ()


def test_what_serves_nobody_and_what_is_too_much_goes_all_the_same() -> None:
    p = pool(1, 4)
    t = target_of(p)
    on = NODES[0].name
    pods = [*(pod(t, p, s, on=on) for s in (0, 1)), pod(t, p, 0, on=on, revision="old", ready=False)]
    whys = [delete.why for delete in planned(p, pods, unseen=math.inf).deletes]
    assert sorted(whys) == ["OldRevision", "PoolResized"]
