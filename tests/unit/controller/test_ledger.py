"""What is remembered of each node while nodes have a limit of sessions, and who is called when places are free."""

from dataclasses import replace
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.controller.ledger import Ledger
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.plan import CreatePod, Plan
from support import builders

LIMIT = 4
NODE = "worker-1"


def pool(name: str, initial: int = 2, maximum: int = 8, age: int = 1, generation: int = 1, **spec: Any) -> SessionPool:
    created = f"2026-01-{age:02}T00:00:00Z"
    meta = {"name": name, "uid": name, "generation": generation, "creationTimestamp": created}
    return builders.pool(initial, maximum, meta=meta, **spec)


def pod(of: SessionPool, slot: int = 0, **fields: Any) -> PodView:
    found = builders.pod(builders.target_of(of), of, slot, **fields)
    name = f"{of.metadata.name}-{slot}"
    return replace(found, uid=name, name=name, owner=replace(found.owner, pool_uid=of.metadata.uid))


def create(*slots: int) -> Plan:
    return Plan(creates=tuple(CreatePod(builders.node(NODE), slot, 0) for slot in slots))


class World:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self.ledger = Ledger(LIMIT, lambda woken: self.woken.append(woken.metadata.name))
        self.node(builders.node(NODE))

    def node(self, view: NodeView) -> None:
        self.ledger.node_changed(None, view)

    def pools(self, *pools: SessionPool) -> None:
        for each in pools:
            self.ledger.pool_changed(None, each)

    def stands(self, *pods: PodView) -> None:
        for each in pods:
            self.ledger.pod_changed(None, each)

    def most(self, of: SessionPool) -> int:
        return self.ledger.most(of.metadata.uid, [NODE])[NODE]


@pytest.fixture
def world() -> World:
    return World()


def test_a_younger_pool_gets_what_the_older_ones_leave_whoever_is_seen_first(world: World) -> None:
    old, young = pool("old", 3, age=1), pool("young", 3, age=2)
    world.pools(young, old)
    assert (world.most(old), world.most(young)) == (3, 1)


def test_a_node_that_comes_later_belongs_to_the_pools_that_match_it(world: World) -> None:
    mine, other = pool("mine", 3), pool("other", 3, placement={"nodeSelector": {"gpu": "yes"}})
    world.pools(other, mine)
    world.node(builders.node("worker-2"))
    assert world.ledger.most("mine", ["worker-2"]) == {"worker-2": 4}


def test_a_pool_that_nothing_can_be_started_for_keeps_nothing_but_what_stands(world: World) -> None:
    broken, young = pool("broken", 3, age=1), pool("young", 4, age=2)
    world.pools(broken, young)
    world.stands(pod(broken))
    world.ledger.decided(young, [], create(0), waits=[NODE])
    world.ledger.blocked("broken", True)
    assert world.woken == ["young"]
    assert world.most(young) == 3


def test_what_is_on_its_way_counts_at_once_and_once(world: World) -> None:
    one, two = pool("one", 0, age=1), pool("two", 0, age=2)
    world.pools(one, two)
    world.ledger.decided(one, [], create(0, 1, 2), waits=[])
    assert (world.most(one), world.most(two)) == (4, 1)
    world.stands(pod(one, 0), pod(one, 1))
    assert world.most(two) == 1
    world.stands(pod(one, 2))
    assert world.most(two) == 1


def test_what_was_refused_is_free_again_and_who_waits_is_called(world: World) -> None:
    one, two = pool("one", 0, age=1), pool("two", 0, age=2)
    world.pools(one, two)
    world.ledger.decided(one, [], create(0, 1, 2), waits=[])
    world.ledger.decided(two, [], create(0), waits=[NODE])
    world.ledger.refused(one, [NODE], {})
    assert (world.woken, world.most(two)) == (["two"], 4)


def test_of_what_was_refused_in_part_the_rest_counts_before_it_is_shown(world: World) -> None:
    one, two = pool("one", 0, age=1), pool("two", 0, age=2)
    world.pools(one, two)
    world.stands(pod(one, 0))
    world.ledger.decided(one, [pod(one, 0)], create(1, 2), waits=[])
    world.ledger.refused(one, [NODE], {NODE: 1})
    assert world.most(two) == 2
    world.stands(pod(one, 1))
    assert world.most(two) == 2


def test_what_was_created_counts_until_it_is_shown_though_it_is_wanted_no_more(world: World) -> None:
    one, two = pool("one", 0, age=1), pool("two", 0, age=2)
    world.pools(one, two)
    world.ledger.decided(one, [], create(0, 1), waits=[])
    world.ledger.decided(one, [], create(1), waits=[], awaited={NODE: 1})
    assert world.most(two) == 2
    world.ledger.decided(one, [], Plan(), waits=[], awaited={NODE: 2})
    assert world.most(two) == 2
    world.ledger.decided(one, [], Plan(), waits=[])
    assert world.most(two) == 4


def test_what_is_decided_for_a_pool_or_a_node_that_has_just_gone_is_not_kept(world: World) -> None:
    gone, two = pool("gone", 0, age=1), pool("two", 4, age=2)
    world.pools(gone, two)
    world.ledger.pool_changed(gone, None)
    world.ledger.decided(gone, [], create(0, 1, 2), waits=[NODE])
    assert world.most(two) == 4
    world.ledger.node_changed(builders.node(NODE), None)
    world.ledger.refused(two, [NODE], {})
    assert not world.ledger._nodes


def test_who_waits_is_called_once_when_a_session_of_another_has_gone_and_not_while_it_leaves(world: World) -> None:
    one, two = pool("one", 2, age=1), pool("two", 4, age=2)
    world.pools(one, two)
    first, second = pod(one, 0), pod(one, 1)
    world.stands(first, second)
    world.ledger.decided(two, [], create(0, 1), waits=[NODE])
    world.ledger.pod_changed(first, replace(first, deleting=True))
    assert world.woken == []
    world.ledger.pod_changed(replace(first, deleting=True), None)
    world.ledger.pod_changed(second, None)
    assert world.woken == ["two"]


def test_a_session_pod_that_has_ended_holds_no_place(world: World) -> None:
    one, two = pool("one", 0, age=1), pool("two", 4, age=2)
    world.pools(one, two)
    world.stands(pod(one, 0))
    assert world.most(two) == 3
    world.ledger.pod_changed(pod(one, 0), pod(one, 0, ended=True))
    assert world.most(two) == 4


def test_when_an_older_pool_goes_or_gets_smaller_who_waits_is_called(world: World) -> None:
    old, young = pool("old", 4, age=1), pool("young", 4, age=2)
    world.pools(old, young)
    world.ledger.decided(young, [], Plan(), waits=[NODE])
    smaller = pool("old", 1, age=1, generation=2)
    world.ledger.pool_changed(old, smaller)
    assert (world.woken, world.most(young)) == (["young"], 3)
    world.ledger.decided(young, [], create(0, 1, 2), waits=[NODE])
    world.ledger.pool_changed(smaller, None)
    assert (world.woken, world.most(young)) == (["young", "young"], 4)


def test_a_status_that_was_written_calls_nobody(world: World) -> None:
    old, young = pool("old", 4, age=1), pool("young", 4, age=2)
    world.pools(old, young)
    world.ledger.decided(young, [], Plan(), waits=[NODE])
    world.ledger.pool_changed(old, old.model_copy(deep=True))
    assert world.woken == []


def test_sessions_of_a_pool_that_is_gone_count_until_they_are_gone_too(world: World) -> None:
    old, young = pool("old", 3, age=1), pool("young", 4, age=2)
    world.pools(old, young)
    world.stands(pod(old, 0), pod(old, 1), pod(old, 2))
    world.ledger.pool_changed(old, None)
    assert world.most(young) == 1


def test_a_node_that_is_gone_is_forgotten_with_its_last_session(world: World) -> None:
    one = pool("one")
    world.pools(one)
    world.stands(pod(one))
    world.ledger.node_changed(builders.node(NODE), None)
    world.ledger.pod_changed(pod(one), None)
    assert not world.ledger._nodes
