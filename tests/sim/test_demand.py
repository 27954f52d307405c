"""Pools with isolation Pod grow and shrink with what gateways say is asked of them: the whole controller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS
from support.demand_world import HOME, WORKERS, DemandWorld, demand_world
from support.kubelet import Crash, NeverReady, Ready, Unschedulable
from support.simulation import NAMESPACE


@pytest.fixture
async def world() -> AsyncIterator[DemandWorld]:
    async with demand_world() as world:
        yield world


async def test_a_pool_grows_by_the_calls_that_wait_spread_over_its_nodes(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    await world.comes_to_rest()
    assert len(world.sessions()) == 6


async def test_it_never_has_more_than_the_maximum_of_a_node(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 3)
    await world.asks(2, 100)
    most = 0

    def full() -> bool:
        nonlocal most
        held = Counter(pod["metadata"]["annotations"][names.ANNOTATION_NODE] for pod in world.sessions())
        most = max(most, *held.values())
        return world.counts() == [3, 3]

    await world.until(full)
    for calls in range(100, 130):
        await world.asks(6, calls)
        assert full()
    await world.comes_to_rest()
    assert (most, len(world.sessions())) == (3, 6)


async def test_the_first_call_of_a_pool_without_initial_sessions_makes_one(world: DemandWorld) -> None:
    world.activate()
    await world.begin(0, 4)
    assert world.sessions() == []
    await world.asks(0, 1)
    await world.until(lambda: sum(world.counts()) == 1)
    await world.comes_to_rest()
    assert len(world.sessions()) == 1


async def test_idle_sessions_above_initial_retire_the_highest_slot_first(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6, idleTimeoutSeconds=1)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    await world.asks(2, 0)
    await world.comes_to_rest()
    assert world.counts() == [3, 3]  # they have not been idle for long
    world.idle_pods.idle_seconds = 1.0
    await world.until(lambda: world.counts() == [1, 1])
    assert {pod["metadata"]["labels"][names.LABEL_SLOT] for pod in world.sessions()} == {"0"}
    await world.until(lambda: f'why="Idle"}} {4.0}'.encode() in world.metrics(), "each is counted")


async def test_pods_are_not_asked_again_before_they_can_have_been_idle_for_long_enough(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6, idleTimeoutSeconds=30)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    await world.asks(1, 0)
    for _ in range(5):
        await asyncio.sleep(0.1)
        for key in list(world.app.store.all_keys()) if world.app else []:
            world.app.enqueue(key)  # type: ignore[union-attr]
    grown = [pod["metadata"]["name"] for pod in world.sessions() if pod["metadata"]["labels"][names.LABEL_SLOT] != "0"]
    assert max(world.idle_pods.asked[name] for name in grown) <= 3  # while it started, and once since


async def test_a_busy_session_is_not_retired(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6, idleTimeoutSeconds=1)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    highest = next(p for p in world.sessions() if p["metadata"]["labels"][names.LABEL_SLOT] == "2")
    world.idle_pods.busy.add(highest["metadata"]["name"])
    world.idle_pods.idle_seconds = 1e6
    await world.asks(1, 0)
    await world.until(lambda: sum(world.counts()) == 3)
    await world.comes_to_rest()
    assert highest["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in world.sessions()}


async def test_without_a_gateway_that_answers_nothing_grows_and_nothing_goes(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6, idleTimeoutSeconds=1)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    uids = {pod["metadata"]["uid"] for pod in world.sessions()}
    world.idle_pods.idle_seconds = 1e6
    world.gateway.away = True
    await world.gateway.source.poll()
    await world.until(lambda: b"sessionpools_controller_gateways 0.0" in world.metrics())
    await world.comes_to_rest()
    assert {pod["metadata"]["uid"] for pod in world.sessions()} == uids
    world.gateway.away = False
    await world.asks(6, 2)
    await world.until(lambda: world.counts() == [4, 4])


async def test_a_controller_that_starts_keeps_what_has_grown(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    uids = {pod["metadata"]["uid"] for pod in world.sessions()}
    await world.stop_controller()
    world.gateway.away = True
    await world.gateway.source.poll()
    await world.start_controller()
    await world.comes_to_rest()
    assert {pod["metadata"]["uid"] for pod in world.sessions()} == uids


async def test_a_gateway_that_becomes_active_later_is_found(world: DemandWorld) -> None:
    await world.begin(1, 4)
    await world.asks(2, 2)
    await world.comes_to_rest()
    assert len(world.sessions()) == 2
    world.activate()
    await world.until(lambda: world.counts() == [2, 2])


async def test_a_gateway_that_is_active_no_more_is_not_listened_to(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 4)
    await world.knows_demand()
    world.server.store.edit(PODS, "gateway-0", {"metadata": {"labels": {names.LABEL_GATEWAY: None}}}, HOME)
    await world.until(lambda: b"sessionpools_controller_gateways 0.0" in world.metrics())
    await world.asks(2, 4)
    await world.comes_to_rest()
    assert len(world.sessions()) == 2


async def test_growth_is_no_change_of_state_nor_of_what_is_desired(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6)
    before = world.status()
    await world.asks(2, 4)
    await world.until(lambda: world.status()["sessions"]["ready"] == 6)
    after = world.status()
    assert after["sessions"]["desired"] == before["sessions"]["desired"] == 2
    assert (after["state"], after["nodeCounts"]) == (before["state"], before["nodeCounts"])
    for was, now in zip(before["conditions"], after["conditions"], strict=True):
        assert {**was, "message": ""} == {**now, "message": ""}


@pytest.mark.parametrize("fate", [Crash("MemoryError: no room"), Unschedulable()])
async def test_sessions_that_can_not_grow_are_said_and_held_and_the_pool_stays_ready(
    world: DemandWorld, fate: Crash | Unschedulable
) -> None:
    world.activate()
    await world.begin(1, 20)
    first = {pod["metadata"]["uid"] for pod in world.sessions()}
    world.kubelet.fate = lambda pod: Ready() if pod["metadata"]["uid"] in first else fate
    await world.asks(2, 30)
    await world.until(lambda: world.status()["nodes"][0]["message"])
    await world.comes_to_rest()
    created = [r for r in world.server.writes(PODS) if r.verb == "create" and r.status == 201]
    assert len(created) <= 2 + 2 * 16  # the nodes have 8 CPUs each
    assert world.status()["state"] == "Success"
    assert (world.condition("Ready")["status"], world.condition("Stalled")["status"]) == ("True", "False")


async def test_two_sessions_start_at_a_time_for_each_cpu_of_a_node(world: DemandWorld) -> None:
    world.activate()
    for worker in WORKERS:  # before the pool: what its calls ask for must not be answered by nodes as they were
        world.server.store.edit(NODES, worker, {"status": {"allocatable": {"cpu": "2500m"}}})
    await world.begin(1, 20)
    first = {pod["metadata"]["uid"] for pod in world.sessions()}
    world.kubelet.fate = lambda pod: Ready() if pod["metadata"]["uid"] in first else NeverReady()
    await world.asks(2, 30)
    await world.until(lambda: len(world.sessions()) == 10)
    await world.comes_to_rest()
    assert len(world.sessions()) == 10
    world.kubelet.fate = lambda pod: Ready()
    await world.until(lambda: sum(world.counts()) == 32)


async def test_a_grown_pool_is_rolled_out_at_its_size(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6)
    await world.asks(2, 4)
    await world.until(lambda: world.counts() == [3, 3])
    await world.asks(6, 0)
    most = 0
    world.edit_service(code={"inline": {"service.py": "x = 2"}})
    polls = asyncio.create_task(world.gateway.source.run())

    def rolled() -> bool:
        nonlocal most
        held = Counter(pod["metadata"]["annotations"][names.ANNOTATION_NODE] for pod in world.sessions())
        most = max(most, *held.values())
        return world.status()["sessions"]["updated"] == 6 and len(world.sessions()) == 6

    await world.until(rolled)
    await world.comes_to_rest()
    polls.cancel()
    assert world.counts() == [3, 3]
    assert most <= 4  # three and one of surge


async def test_calls_cause_no_write_while_there_are_sessions_enough(world: DemandWorld) -> None:
    world.activate()
    await world.begin(4, 8)
    await world.comes_to_rest()
    before = len(world.server.writes())
    for busy in range(9):
        await world.asks(busy % 8, 0)
        await asyncio.sleep(0.06)
    await world.comes_to_rest()
    assert len(world.server.writes()) == before


async def test_a_process_pool_is_left_to_grow_by_itself(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6, isolation="Process")
    await world.asks(2, 40)
    await world.comes_to_rest()
    assert len(world.sessions()) == 2


async def test_the_figures_of_a_deleted_pool_go_with_it(world: DemandWorld) -> None:
    world.activate()
    await world.begin(1, 6)
    await world.asks(2, 1)
    await world.until(lambda: b'created_total{namespace="demo",pool="score",why="Demand"} 1.0' in world.metrics())
    assert b'created_total{namespace="demo",pool="score",why="Initial"} 2.0' in world.metrics()
    world.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    await world.until(lambda: b'pool="score"' not in world.metrics())


async def growth_is_refused(world: DemandWorld) -> None:
    """By a quota, and the status says so."""
    world.activate()
    await world.begin(1, 6)
    message = 'pods "a" is forbidden: exceeded quota: few'
    world.server.fail("create", PODS, 403, times=10**9, reason="Forbidden", message=message)
    await world.asks(2, 4)
    await world.until(lambda: any("exceeded quota" in row["message"] for row in world.status()["nodes"]))


async def test_growth_that_a_quota_refuses_is_tried_again_as_long_as_calls_wait(world: DemandWorld) -> None:
    await growth_is_refused(world)
    assert world.condition("Ready")["status"] == "True"
    world.server.heal()
    await world.until(lambda: sum(world.counts()) == 6)  # on the node that is due first


async def test_growth_that_was_refused_and_is_wanted_no_more_is_forgotten(world: DemandWorld) -> None:
    await growth_is_refused(world)
    await world.asks(0, 0)
    await world.until(lambda: not any(row["message"] for row in world.status()["nodes"]))
    await world.comes_to_rest()
