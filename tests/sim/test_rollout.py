"""A pool that changes, whole: what holds at every moment of a rollout, and what its user and their tools are told."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.kstatus import CURRENT, IN_PROGRESS, kstatus
from support.simulation import NAMESPACE, PACE, Simulation
from support.witness import Witness

WORKERS = ("worker-1", "worker-2")


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with Simulation() as simulation:
        for worker in WORKERS:
            simulation.add_node(worker)
        yield simulation


async def filled(sim: Simulation, **spec: Any) -> Witness:
    sim.apply(sim.service(), sim.pool(**spec))
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == CURRENT, "both are Current")
    await sim.comes_to_rest()
    return Witness(sim)


def pool(sim: Simulation) -> Json:
    return sim.server.store.get(SESSION_POOLS, "score", NAMESPACE)


def service(sim: Simulation) -> Json:
    return sim.server.store.get(WEB_SERVICES, "score", NAMESPACE)


def change_code(sim: Simulation, code: str = "x = 2") -> None:
    sim.edit_service(code={"inline": {"service.py": code}})


def uids(sim: Simulation) -> set[str]:
    return {pod["metadata"]["uid"] for pod in sim.pods()}


def rolled_out(sim: Simulation) -> bool:
    """Nothing of an older revision stays, and all that is wanted is ready."""
    revisions = {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in sim.pods()}
    counts = sim.status()["sessions"]
    return revisions == {sim.status()["revision"]} and counts["updated"] == counts["ready"] == counts["desired"]


# --- what tools are told ----------------------------------------------------------------------------------------------


async def test_objects_just_made_are_in_progress_before_the_controller_has_looked(sim: Simulation) -> None:
    await sim.stop_controller()
    sim.apply(sim.service(), sim.pool())
    assert kstatus(pool(sim)) == kstatus(service(sim)) == IN_PROGRESS
    await sim.start_controller()
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == CURRENT)


async def test_a_controller_that_starts_writes_nothing_about_what_is_at_rest(sim: Simulation) -> None:
    await filled(sim)
    before = len(sim.server.writes())
    await sim.stop_controller()
    await sim.start_controller()
    await sim.comes_to_rest()
    assert len(sim.server.writes()) == before


async def test_a_service_waits_for_a_status_of_its_pool_that_was_put_off(sim: Simulation) -> None:
    sim.pace = replace(PACE, status=0.5)
    await sim.stop_controller()
    await sim.start_controller()
    witness = await filled(sim, initial=1)
    sim.edit_pool(initialPoolSize=2)
    await sim.until(lambda: sim.status()["observedGeneration"] == 2, "a status was written just now")
    revision = sim.status()["revision"]
    change_code(sim)
    witness.forget()
    await sim.until(lambda: kstatus(service(sim)) == CURRENT)
    assert sim.status()["revision"] != revision
    assert rolled_out(sim)
    assert witness.said["WebService"] == [IN_PROGRESS, CURRENT]
