"""Rollouts beside a gateway: callers keep what they can reach."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from support.demand_world import DemandWorld, demand_world
from support.witness import Witness

BOTH = pytest.mark.parametrize("isolation", ["Pod", "Process"])


@pytest.fixture
async def world() -> AsyncIterator[DemandWorld]:
    """With a gateway that looks for itself."""
    async with demand_world() as world:
        world.activate()
        polls = asyncio.create_task(world.gateway.source.run())
        yield world
        polls.cancel()
        await asyncio.gather(polls, return_exceptions=True)


async def begun(world: DemandWorld, isolation: str) -> Witness:
    """A rollout of a pool that has no room above its initial sessions."""
    await world.begin(2, 2, isolation=isolation)
    await world.knows_demand()
    witness = Witness(world)
    world.edit_service(code={"inline": {"service.py": "x = 2"}})
    return witness


def rolled_out(world: DemandWorld) -> bool:
    counts, revisions = world.status()["sessions"], set(world.ready_by_revision())
    return bool(revisions == {world.status()["revision"]} and counts["updated"] == counts["ready"] == 4)


@BOTH
async def test_old_sessions_stay_while_the_gateway_does_not_have_the_new_ones(
    world: DemandWorld, isolation: str
) -> None:
    had = world.ready_by_revision()
    world.gateway.pods = lambda: had  # its view stands still
    witness = await begun(world, isolation)
    await world.until(lambda: world.status()["sessions"]["updated"] > 0, "a new one is ready on a node")
    old = {pod["metadata"]["uid"] for pod in world.sessions()}
    await world.until(lambda: "until the gateways have the new ones" in world.condition("Reconciling")["message"])
    await asyncio.sleep(0.6)
    assert old <= {pod["metadata"]["uid"] for pod in world.sessions()}
    assert world.condition("Reconciling")["reason"] == "RollingOut"
    world.gateway.pods = world.ready_by_revision
    await world.until(lambda: rolled_out(world))
    assert witness.fewest_ready >= 2


@BOTH
async def test_a_gateway_that_does_not_answer_holds_a_rollout_up_for_a_while_only(
    world: DemandWorld, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world.gateway.away = True
    await world.begin(2, 2, isolation=isolation)
    world.edit_service(code={"inline": {"service.py": "x = 2"}})
    began = asyncio.get_running_loop().time()
    before = world.status()["revision"]
    await world.until(lambda: world.status()["revision"] != before and rolled_out(world))
    assert asyncio.get_running_loop().time() - began >= world.pace.gateway
    assert [r.message for r in caplog.records].count(
        "rollout goes on: no gateway says which session pods it has"
    ) == 1  # fmt: skip


async def test_a_pool_without_a_rollout_waits_for_no_gateway(world: DemandWorld) -> None:
    world.gateway.away = True
    await world.begin(2, 4)
    world.edit_pool(initialPoolSize=1)
    began = asyncio.get_running_loop().time()
    await world.until(lambda: world.status()["observedGeneration"] == 2)
    assert asyncio.get_running_loop().time() - began < world.pace.gateway
