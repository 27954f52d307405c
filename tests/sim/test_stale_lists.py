"""A controller that starts is shown an older cluster than there is, and learns of the rest later: stale state, the
first of the classes of faults by which Sieve (OSDI 2022) tests controllers.

A real API server reads a controller's lists from etcd, so that they are not stale; a proxy's, or those of a server that
was restored from a backup, may be. The other two classes: missed events are in test_controller.py (`pause_watches`,
then lost), and crashes at each write in test_crash_points.py. All three are rules of test_state_machine.py.
"""

from collections.abc import AsyncIterator

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS
from support.apiserver_objects import Json
from support.invariants import Invariants
from support.kstatus import CURRENT, kstatus
from support.outcome import differences, outcome
from support.simulation import NAMESPACE, Simulation


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with Simulation() as simulation:
        simulation.add_node("worker-1")
        simulation.apply(simulation.service(), simulation.pool(initial=2, maximum=4))
        await settled(simulation)
        invariants = Invariants(simulation)
        yield simulation
        assert not invariants.broken


async def settled(sim: Simulation) -> None:
    await sim.until(lambda: kstatus(pool(sim)) == CURRENT and not leaving(sim), "the pool is Current")
    await sim.comes_to_rest(for_seconds=0.2)


def pool(sim: Simulation) -> Json:
    return sim.server.store.get(SESSION_POOLS, "score", NAMESPACE)


def leaving(sim: Simulation) -> int:
    return len(sim.pods(alive=False)) - len(sim.pods())


async def start_with_lists_of_before(sim: Simulation) -> None:
    """The controller has ended when the lists were frozen; one that starts now believes them."""
    await sim.start_controller()
    await sim.until(lambda: sim.app and sim.app.term and sim.app.term.queue.idle, "it has looked at what it was shown")


async def stop_and_freeze(sim: Simulation) -> None:
    await sim.stop_controller()
    sim.server.freeze()


async def test_a_pool_that_was_deleted_is_not_filled_again(sim: Simulation) -> None:
    await stop_and_freeze(sim)
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    await sim.until(lambda: not sim.pods(alive=False))
    await start_with_lists_of_before(sim)
    assert not sim.pods(alive=False)
    sim.server.resume_watches()
    await sim.comes_to_rest()
    assert not sim.pods(alive=False)


async def test_of_a_pool_that_was_made_anew_under_its_name_nothing_is_touched(sim: Simulation) -> None:
    await stop_and_freeze(sim)
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    await sim.until(lambda: not sim.pods(alive=False))
    sim.apply(sim.pool(initial=1, maximum=1))
    await start_with_lists_of_before(sim)
    assert not sim.pods(alive=False)  # what is shown is the pool before, which is no more
    sim.server.resume_watches()
    await settled(sim)
    assert len(sim.pods()) == 1


@pytest.mark.parametrize("size", [1, 4])
async def test_a_size_that_it_does_not_see_is_kept(sim: Simulation, size: int) -> None:
    sim.server.store.freeze_lists()
    sim.edit_pool(initialPoolSize=size)
    await settled(sim)
    kept = sim.uids(alive=False)
    await sim.stop_controller()
    sim.server.pause_watches()
    await start_with_lists_of_before(sim)
    assert sim.uids(alive=False) == kept
    sim.server.resume_watches()
    await settled(sim)
    assert sim.uids(alive=False) == kept


async def test_sessions_that_it_does_not_see_are_not_made_twice(sim: Simulation) -> None:
    """The lists are those of the moment at which the pool had been enlarged, and not filled yet."""
    await sim.stop_controller()
    sim.edit_pool(initialPoolSize=4)
    sim.server.store.freeze_lists()
    await sim.start_controller()
    await sim.until(lambda: len(sim.ready_pods()) == 4)
    made = sim.uids(alive=False)
    await sim.stop_controller()
    sim.server.pause_watches()
    await start_with_lists_of_before(sim)
    assert sim.uids(alive=False) == made
    sim.server.resume_watches()
    await settled(sim)
    assert sim.uids(alive=False) == made


async def test_a_rollout_that_it_does_not_see_is_not_undone(sim: Simulation) -> None:
    sim.server.store.freeze_lists()
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})
    await sim.until(lambda: sim.status()["sessions"]["updated"] == 2 and not leaving(sim) and len(sim.pods()) == 2)
    await sim.comes_to_rest()
    new, before = sim.uids(alive=False), outcome(sim.server.store)
    await sim.stop_controller()
    sim.server.pause_watches()
    await start_with_lists_of_before(sim)
    assert new <= sim.uids(alive=False)
    sim.server.resume_watches()
    await settled(sim)
    assert sim.uids(alive=False) == new
    assert not differences(outcome(sim.server.store), before)


async def test_a_node_that_was_replaced_under_its_name_gets_sessions_once_it_is_seen(sim: Simulation) -> None:
    await stop_and_freeze(sim)
    sim.server.store.delete(NODES, "worker-1")
    sim.add_node("worker-1")
    uid = sim.server.store.get(NODES, "worker-1")["metadata"]["uid"]
    await start_with_lists_of_before(sim)
    sim.server.resume_watches()
    await settled(sim)
    assert {pod["metadata"]["annotations"][names.ANNOTATION_NODE_UID] for pod in sim.pods()} == {uid}


async def test_a_pod_that_it_takes_for_alive_is_replaced_once_its_end_is_seen(sim: Simulation) -> None:
    await stop_and_freeze(sim)
    victim = sim.pods()[0]["metadata"]["name"]
    sim.server.store.delete(PODS, victim, NAMESPACE, grace=0)
    await start_with_lists_of_before(sim)
    assert len(sim.pods()) == 1
    sim.server.resume_watches()
    await settled(sim)
    assert len(sim.pods()) == 2
