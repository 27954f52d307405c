"""On which nodes no session pod is created, and until when."""

import math
from dataclasses import replace

import pytest

from sessionpools.core.backoff import Backoff
from sessionpools.core.holds import NAMESPACE_TERMINATING, QUOTA_EXCEEDED, YOUNG_SECONDS, Holds, refusal
from sessionpools.core.model import Failure, PodView
from support.builders import pod, pool, target_of

NOW = 1_000_000.0
BACKOFF = Backoff(15.0, 300.0)
NODES = ("worker-1", "worker-2", "worker-3")
QUOTA = Failure(QUOTA_EXCEEDED, "QuotaExceeded: pods")
REFUSED = Failure("PodRefused", "PodRefused: an unknown service account")
P = pool(1, 4)
T = target_of(P)


def due(holds: Holds, node: str = "worker-1") -> float:
    """In how many seconds after NOW."""
    return holds.not_before(BACKOFF, "uid")[node] - NOW


def young(on: str = "worker-1", seconds: float = 5.0, now: float = NOW) -> PodView:
    return replace(pod(T, P, 0, on=on), created_at=float(int(now - seconds)))


def refused(times: int, failure: Failure = REFUSED, nodes: tuple[str, ...] = NODES) -> Holds:
    holds = Holds()
    for _ in range(times):
        holds = holds.after_creating(nodes, dict.fromkeys(nodes, failure), (), NOW)
    return holds


class TestRefused:
    @pytest.mark.parametrize(("times", "seconds"), [(1, 15), (2, 30), (3, 60), (9, 300)])
    def test_a_node_waits_twice_as_long_each_time(self, times: int, seconds: float) -> None:
        assert seconds <= due(refused(times)) <= seconds * 1.5

    def test_the_nodes_come_back_one_after_the_other(self) -> None:
        holds = refused(1)
        assert len({due(holds, node) for node in NODES}) == 3

    def test_one_attempt_speaks_for_all_nodes_that_were_refused_for_the_same_reason(self) -> None:
        holds = refused(1).after_creating(["worker-2"], {"worker-2": REFUSED}, NODES, NOW + 20)
        for node in NODES:
            assert 20 + 30 <= due(holds, node) <= 20 + 45

    def test_once_one_is_accepted_the_others_are_due(self) -> None:
        holds = refused(4).after_creating(["worker-2"], {}, NODES, NOW)
        assert (holds.refused, holds.not_before(BACKOFF, "uid")) == ({}, {})

    def test_where_some_are_accepted_and_others_not_the_count_begins_anew(self) -> None:
        holds = refused(4).after_creating(["worker-1", "worker-2"], {"worker-2": REFUSED}, NODES, NOW)
        assert set(holds.refused) == {"worker-2", "worker-3"}
        assert {hold.count for hold in holds.refused.values()} == {1}

    def test_a_node_that_is_refused_for_a_reason_of_its_own_holds_no_other(self) -> None:
        taken = Failure("NameTaken", "a pod of that name exists")
        holds = Holds().after_creating(NODES, {"worker-1": taken}, (), NOW)
        assert set(holds.not_before(BACKOFF, "uid")) == {"worker-1"}
        again = holds.after_creating(["worker-2", "worker-3"], {"worker-2": REFUSED}, ["worker-1"], NOW + 9)
        assert (again.refused["worker-1"], again.refused["worker-2"].count) == (holds.refused["worker-1"], 1)

    def test_a_node_that_joins_and_is_refused_too_waits_with_the_others(self) -> None:
        holds = refused(3).after_creating(["worker-4"], {"worker-4": REFUSED}, NODES, NOW)
        assert {hold.count for hold in holds.refused.values()} == {4}

    def test_a_namespace_that_is_being_deleted_is_not_tried_again(self) -> None:
        holds = refused(1, Failure(NAMESPACE_TERMINATING, "the namespace is being deleted"))
        assert math.isinf(due(holds))

    def test_a_pod_that_goes_makes_room_in_a_quota_and_repairs_nothing_else(self) -> None:
        assert refused(3, QUOTA).with_room().refused == {}
        assert refused(3).with_room() == refused(3)

    def test_one_that_is_due_where_no_pod_is_wanted_any_more_is_forgotten(self) -> None:
        holds = refused(1).after_creating([], {}, ["worker-1"], NOW + 16)
        assert set(holds.refused) == {"worker-1"}

    def test_it_is_said_until_a_pod_is_accepted(self) -> None:
        assert refused(1).failures(BACKOFF, "uid", NOW + 9999) == dict.fromkeys(NODES, REFUSED)


class TestDeletedBySomebodyElse:
    def after(self, *deletions: tuple[PodView, float], holds: Holds | None = None) -> Holds:
        found = holds or Holds()
        for each, now in deletions:
            found = found.after_deletions([each], now, BACKOFF, "uid")
        return found

    def test_the_first_one_is_replaced_at_once_and_nothing_is_said(self) -> None:
        holds = self.after((young(), NOW))
        assert due(holds) == 0
        assert holds.failures(BACKOFF, "uid", NOW) == {}

    def test_the_next_ones_wait_twice_as_long_each_time_and_it_is_said(self) -> None:
        now, holds = NOW, self.after((young(), NOW))
        for seconds in (15, 30, 60, 120, 240, 300, 300):
            now = NOW + due(holds) + 5
            holds = self.after((young(seconds=4, now=now), now), holds=holds)
            assert seconds <= due(holds) - (now - NOW) <= seconds * 1.5
            assert holds.failures(BACKOFF, "uid", now)["worker-1"].reason == "PodsDeleted"
        assert holds.failures(BACKOFF, "uid", NOW + due(holds)) == {}

    def test_a_sweep_over_several_pods_counts_once(self) -> None:
        first = young(seconds=30)
        holds = self.after((first, NOW), (first, NOW + 1), (first, NOW + 2))
        assert holds.deleted["worker-1"].count == 1
        assert Holds().after_deletions([first, first], NOW, BACKOFF, "uid").deleted["worker-1"].count == 1

    def test_one_that_has_lived_is_no_part_of_a_series(self) -> None:
        assert self.after((young(seconds=YOUNG_SECONDS + 1), NOW)).deleted == {}

    def test_a_series_ends_when_nothing_is_deleted_for_a_while(self) -> None:
        holds = self.after((young(), NOW), (young(seconds=1, now=NOW + 3), NOW + 3))
        assert holds.deleted["worker-1"].count == 2
        later = NOW + due(holds) + YOUNG_SECONDS + 1
        assert holds.after_deletions([], later, BACKOFF, "uid").deleted == {}
        assert self.after((young(now=later), later), holds=holds).deleted["worker-1"].count == 1

    def test_other_nodes_are_not_held(self) -> None:
        holds = self.after((young(), NOW), (young(seconds=1, now=NOW + 3), NOW + 3))
        assert set(holds.failures(BACKOFF, "uid", NOW + 3)) == {"worker-1"}

    def test_a_refusal_does_not_shorten_the_wait_nor_hide_in_it(self) -> None:
        holds = self.after((young(), NOW), (young(seconds=1, now=NOW + 3), NOW + 3))
        both = holds.after_creating(["worker-1"], {"worker-1": REFUSED}, (), NOW)
        assert due(both) == max(due(holds), due(refused(1)))
        assert both.failures(BACKOFF, "uid", NOW + 3) == {"worker-1": REFUSED}


def test_a_node_that_is_gone_is_forgotten() -> None:
    assert set(refused(1).of({"worker-2": None}).refused) == {"worker-2"}


@pytest.mark.parametrize(
    ("reason", "message", "read_as"),
    [
        ("PodRefused", 'pods "a" is forbidden: exceeded quota: few, requested: pods=1, used: pods=0', "QuotaExceeded"),
        ("PodRefused", 'pods "a" is forbidden: error looking up service account demo/nobody', "PodRefused"),
        # surge is no remedy for these, so they have no room to lack
        ("ConfigMapRefused", 'configmaps "a" is forbidden: exceeded quota: few', "ConfigMapRefused"),
        (
            "PodRefused",
            'pods "a" is forbidden: unable to create new content in namespace demo because it is being terminated',
            "NamespaceTerminating",
        ),
    ],
)
def test_a_refusal_is_read_from_the_api_servers_words(reason: str, message: str, read_as: str) -> None:
    found = refusal(reason, message)
    assert found.reason == read_as
    assert found.message.startswith(f"{read_as}: ")
