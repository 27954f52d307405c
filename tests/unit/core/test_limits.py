"""How many sessions each pool may have on a node that all of them share."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.core.demand import Demand, Wish, wishes
from sessionpools.core.limits import NODE_LIMIT_REACHED, Claim, claim_of, entitled, limit_reached, slots_of
from sessionpools.core.model import PodView
from sessionpools.core.plan import Plan, plan
from sessionpools.core.status import Observation, pool_status
from support.builders import node, places, pod, pool, process_pool, target_of

NOW = 1_000_000.0
LIMIT_AT_MOST = 40


def claim(age: int, initial: int, standing: int = 0, at_once: int = 1) -> Claim:
    return Claim((f"2026-01-{age:02}", f"uid-{age}"), initial, at_once, standing)


@st.composite
def claims_of_a_node(draw: st.DrawFn) -> dict[str, Claim]:
    ages = draw(st.lists(st.integers(1, 28), max_size=5, unique=True))
    found = {}
    for age in ages:
        at_once = draw(st.sampled_from([1, 1, 1, 4, 9]))
        initial = at_once if at_once > 1 else draw(st.integers(0, 8))
        found[str(age)] = claim(age, initial, at_once * draw(st.integers(0, 10 // at_once)), at_once)
    return found


class TestAmongPools:
    def test_the_oldest_has_its_initial_sessions_first_and_the_youngest_what_is_left(self) -> None:
        claims = {"young": claim(3, 5), "old": claim(1, 4), "middle": claim(2, 4)}
        assert entitled(claims, 10) == {"old": 4, "middle": 4, "young": 2}

    def test_what_nobody_has_initially_is_for_who_grows_first(self) -> None:
        claims = {"old": claim(1, 2, 2), "young": claim(2, 2, 2)}
        assert entitled(claims, 6) == {"old": 4, "young": 4}
        assert entitled(claims | {"young": claim(2, 2, 4)}, 6) == {"old": 2, "young": 4}

    def test_one_that_is_not_there_yet_is_kept_its_place(self) -> None:
        assert entitled({"old": claim(1, 4), "young": claim(2, 1, 1)}, 6) == {"old": 5, "young": 2}

    def test_an_older_one_that_comes_ends_no_session_and_gets_what_is_given_up(self) -> None:
        assert entitled({"old": claim(1, 4), "young": claim(2, 2, 6)}, 6) == {"old": 0, "young": 6}
        assert entitled({"old": claim(1, 4), "young": claim(2, 2, 5)}, 6) == {"old": 1, "young": 5}

    def test_all_sessions_of_a_process_pod_come_together_or_not_at_all(self) -> None:
        assert entitled({"old": claim(1, 3), "young": claim(2, 4, at_once=4)}, 6) == {"old": 6, "young": 3}
        assert entitled({"old": claim(1, 3), "young": claim(2, 4, at_once=4), "third": claim(3, 3)}, 6)["third"] == 3

    def test_one_that_is_not_known_any_more_keeps_what_stands_and_no_more(self) -> None:
        assert entitled({"gone": Claim(standing=3), "young": claim(2, 4)}, 4) == {"gone": 3, "young": 1}

    @given(claims_of_a_node(), st.integers(1, LIMIT_AT_MOST), st.data())
    def test_however_pools_use_what_they_may_no_more_stand_than_the_limit_or_than_stood_before(
        self, claims: dict[str, Claim], limit: int, data: st.DataObject
    ) -> None:
        before = sum(each.standing for each in claims.values())
        for _ in range(12 if claims else 0):
            uid = data.draw(st.sampled_from(sorted(claims)))
            more = max(entitled(claims, limit)[uid] - claims[uid].standing, 0)
            taken = data.draw(st.integers(0, more // claims[uid].at_once)) * claims[uid].at_once
            claims[uid] = replace(claims[uid], standing=claims[uid].standing + taken)
        assert sum(each.standing for each in claims.values()) <= max(limit, before)

    @given(claims_of_a_node(), st.integers(1, LIMIT_AT_MOST))
    def test_no_session_that_stands_is_beyond_what_its_pool_may_have(
        self, claims: dict[str, Claim], limit: int
    ) -> None:
        assert all(sessions >= claims[uid].standing for uid, sessions in entitled(claims, limit).items())

    @given(claims_of_a_node(), st.integers(1, LIMIT_AT_MOST), st.randoms())
    def test_the_order_in_which_pools_are_seen_decides_nothing(
        self, claims: dict[str, Claim], limit: int, rng: object
    ) -> None:
        shuffled = sorted(claims.items(), key=lambda _: rng.random())  # type: ignore[attr-defined]
        assert entitled(dict(shuffled), limit) == entitled(claims, limit)

    @given(claims_of_a_node(), st.integers(1, LIMIT_AT_MOST))
    def test_on_an_empty_node_the_oldest_has_its_initial_sessions_as_far_as_the_limit_goes(
        self, claims: dict[str, Claim], limit: int
    ) -> None:
        left = limit
        empty = {uid: replace(each, standing=0) for uid, each in claims.items()}
        may = entitled(empty, limit)
        for uid, each in sorted(empty.items(), key=lambda item: item[1].since):
            reserved = min(each.initial, left // each.at_once * each.at_once)
            assert may[uid] >= reserved
            left -= reserved


class TestWhatCounts:
    def test_a_pod_of_one_session_counts_one_and_a_process_pod_all_that_it_may_come_to_have(self) -> None:
        single, process = pool(2, 8), process_pool(2, 8)
        assert slots_of(pod(target_of(single), single)) == 1
        assert slots_of(pod(target_of(process), process)) == 8
        assert (claim_of(single).initial, claim_of(process).initial) == (2, 8)

    def test_a_process_pod_counts_what_its_own_settings_say_while_the_pools_are_others(self) -> None:
        before = process_pool(2, 4)
        assert slots_of(pod(target_of(before), before)) == 4

    @pytest.mark.parametrize("settings", ["", "{}", "[]", '{"maxPoolSize": null}', '{"maxPoolSize": -3}'])
    def test_settings_that_somebody_has_spoilt_count_as_one_session(self, settings: str) -> None:
        p = pool()
        assert slots_of(pod(target_of(p), p, settings=settings)) == 1


def planned(initial: int, maximum: int, slots: int, most: int, *, old: int = 0, **update: int) -> Plan:
    p = pool(initial, maximum, update=update) if update else pool(initial, maximum)
    t = target_of(p)
    there = [pod(t, p, slot, revision="old" if slot < old else "") for slot in range(slots)]
    return plan(p, t, places(p, node()), there, {}, NOW, most={"worker-1": most})


class TestPlanning:
    def test_no_more_are_created_than_the_limit_allows_and_the_node_is_named(self) -> None:
        found = planned(4, 4, slots=1, most=3)
        assert ([create.slot for create in found.creates], found.limited) == ([1, 2], ("worker-1",))

    def test_none_is_deleted_for_it(self) -> None:
        found = planned(4, 4, slots=4, most=1)
        assert (found.creates, found.deletes, found.limited) == ((), (), ())

    def test_a_node_of_which_the_limit_says_nothing_has_none(self) -> None:
        p = pool(2, 4)
        assert plan(p, target_of(p), places(p, node()), [], {}, NOW, most={}).limited == ("worker-1",)

    def test_a_rollout_whose_surge_is_beyond_it_waits_with_the_old_sessions_serving(self) -> None:
        found = planned(2, 4, slots=2, old=2, most=2)
        assert (found.creates, found.deletes, found.limited) == ((), (), ("worker-1",))

    def test_a_rollout_without_surge_goes_on_within_it(self) -> None:
        found = planned(2, 4, slots=2, old=2, most=2, maxSurge=0, maxUnavailable=1)
        assert ([delete.pod.owner.revision for delete in found.deletes], found.limited) == (["old"], ())

    def test_a_session_that_leaves_has_its_place_until_it_is_gone_and_is_not_said_to_be_in_the_way(self) -> None:
        p = pool(2, 2, update={"maxSurge": 1})
        t = target_of(p)
        there = [pod(t, p, 0), pod(t, p, 1, deleting=True)]
        found = plan(p, t, places(p, node()), there, {}, NOW, most={"worker-1": 2})
        assert (found.creates, found.limited) == ((), ())

    def test_a_process_pod_is_not_made_where_its_slots_have_no_room(self) -> None:
        p = process_pool(2, 4)
        for most, pods in ((3, 0), (4, 1)):
            found = plan(p, target_of(p), places(p, node()), [], {}, NOW, most={"worker-1": most})
            assert len(found.creates) == pods

    def test_a_process_pod_gets_no_more_slots_than_there_is_room_for_and_fewer_at_once(self) -> None:
        def resized(before: int, after: int) -> Plan:
            there = [pod(target_of(p), process_pool(1, before)) for p in [process_pool(1, before)]]
            p = process_pool(1, after)
            return plan(p, target_of(p), places(p, node()), there, {}, NOW, most={"worker-1": 6})

        assert (len(resized(4, 6).patches), resized(4, 6).limited) == (1, ())
        assert (len(resized(4, 7).patches), resized(4, 7).limited) == (0, ("worker-1",))
        assert (len(resized(8, 7).patches), resized(8, 7).limited) == (1, ())

    def test_a_process_pod_whose_slots_have_no_room_takes_over_all_but_its_size_once(self) -> None:
        p = process_pool(5, 7, drainTimeoutSeconds=120)
        there = pod(target_of(p), process_pool(1, 4))
        for patches in (1, 0):
            found = plan(p, target_of(p), places(p, node()), [there], {}, NOW, most={"worker-1": 6})
            assert (len(found.patches), found.limited) == (patches, ("worker-1",))
            there = replace(there, settings="".join(patch.settings for patch in found.patches) or there.settings)
        sizes = {"initialPoolSize": 4, "maxPoolSize": 4, "drainTimeoutSeconds": 120}
        assert json.loads(there.settings) | sizes == json.loads(there.settings)


class TestGrowth:
    @staticmethod
    def wished(most: Mapping[str, int] | None, calls: int, nodes: int = 1) -> dict[str, Wish]:
        p = pool(2, 8)
        views = [replace(node(f"worker-{n + 1}"), cpus=64) for n in range(nodes)]
        there: list[PodView] = [pod(target_of(p), p, slot, on=view.name) for view in views for slot in range(2)]
        demand, revision = Demand(0, calls), target_of(p).revision.name
        return wishes(p, revision, demand, places(p, *views), there, {}, {}, NOW, most=most)

    def test_a_node_grows_up_to_its_limit_and_says_that_it_would_go_on(self) -> None:
        assert self.wished({"worker-1": 4}, 6) == {"worker-1": Wish(4, limited=True)}
        assert self.wished({"worker-1": 4}, 4) == {"worker-1": Wish(4)}

    def test_what_one_node_has_no_room_for_goes_to_the_others(self) -> None:
        found = self.wished({"worker-1": 2, "worker-2": 8}, 8, nodes=2)
        assert {name: wish.sessions for name, wish in found.items()} == {"worker-1": 2, "worker-2": 6}

    def test_initial_sessions_that_can_not_come_take_no_calls(self) -> None:
        p = pool(4, 8)
        views = [replace(node(name), cpus=64) for name in ("worker-1", "worker-2")]
        found = wishes(p, "r", Demand(0, 6), places(p, *views), [], {}, {}, NOW, most={"worker-1": 1, "worker-2": 8})
        assert {name: wish.sessions for name, wish in found.items()} == {"worker-1": 4, "worker-2": 5}


class TestWhatIsSaid:
    def test_the_row_and_the_condition_name_the_limit_and_the_remedy(self) -> None:
        p = pool(2, 4)
        failure = limit_reached(p, 10)
        status = pool_status(Observation(p, target_of(p), places(p, node()), [], held={"worker-1": failure}, now=NOW))
        assert status.nodes[0].message.startswith("NodeLimitReached: no more than 10 sessions")
        assert "limits.maxSessionsPerNode" in status.nodes[0].message
        stalled = next(c for c in status.conditions if c.type == "Stalled")
        assert (stalled.status, stalled.reason) == ("True", NODE_LIMIT_REACHED)

    def test_a_rollout_that_has_no_room_is_told_to_let_an_old_one_go_first(self) -> None:
        p = pool(1, 4)
        t = target_of(p)
        old = pod(t, p, revision="old")
        held = {"worker-1": limit_reached(p, 1)}
        status = pool_status(Observation(p, t, places(p, node()), [old], held=held, now=NOW))
        stalled = next(c for c in status.conditions if c.type == "Stalled")
        assert stalled.reason == "SurgeUnschedulable"
        assert stalled.message.endswith("set update.maxSurge 0 and update.maxUnavailable 1")
        assert next(c for c in status.conditions if c.type == "Ready").status == "True"

    def test_a_process_pool_that_is_larger_than_the_limit_is_told_so(self) -> None:
        assert "a session pod of this pool is 12: lower maxPoolSize" in limit_reached(process_pool(2, 12), 10).message
