"""The life of a pool in stages: each comes to something, and to the same whatever is done to the controller meanwhile.
Used by tests/sim/test_crash_points.py and tests/sim/test_missed_events.py.

    life = Life("Pod", SIZES)
    found = await undisturbed(life)
    await disturbed(life, found, lambda sim: sim.server.at_write(3, "before", sim.crash_controller), "a crash")
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import CONFIG_MAPS, NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_faults import Kind
from support.apiserver_history import Change
from support.apiserver_objects import Json
from support.invariants import Invariants
from support.kstatus import CURRENT, FAILED, kstatus
from support.kubelet import Crash, Fate, Ready
from support.outcome import differences, outcome
from support.simulation import NAMESPACE, Simulation

SECONDS: Final = 30.0  # a stage takes one, where the machine does not do much else
NODE: Final = "worker-1"
_WATCHED: Final = (NODES, PODS, SESSION_POOLS, WEB_SERVICES)
_BAD: Final = "import absent"


@dataclass(frozen=True)
class Stage:
    begin: Callable[[Simulation, str], None]
    done: Callable[[Simulation], bool]


@dataclass(frozen=True)
class Life:
    isolation: str
    stages: Mapping[str, Stage]


@dataclass(frozen=True)
class Undisturbed:
    outcomes: Mapping[str, Json]  # of each stage
    writes: Mapping[Kind, int]
    changes: Mapping[tuple[str, str], int]  # that watches would tell of


def writes_by_kind(sim: Simulation) -> Counter[Kind]:
    return Counter(write.kind for write in sim.server.writes())


async def undisturbed(life: Life) -> Undisturbed:
    found = {}
    async with Simulation() as sim:
        seen = Changes(sim)
        _prepare(sim)
        for name, stage in life.stages.items():
            stage.begin(sim, life.isolation)
            await sim.until(lambda stage=stage: stage.done(sim), f"{name} is done", SECONDS)  # type: ignore[misc]
            await sim.comes_to_rest()
            found[name] = outcome(sim.server.store)
        assert found["deletion"] == {"pool": [], "service": [], "pods": [], "code": []}
        return Undisturbed(found, writes_by_kind(sim), seen.counts)


async def disturbed(
    life: Life, expected: Undisturbed, disturb: Callable[[Simulation], object], what: str
) -> Simulation:
    """Fails unless every stage comes to what it came to undisturbed, and every moment is as support.invariants says."""
    async with Simulation() as sim:
        invariants = Invariants(sim, lag_seconds=0.05)
        disturb(sim)
        _prepare(sim)
        for name, stage in life.stages.items():
            stage.begin(sim, life.isolation)
            try:
                await sim.until(_has_come_to(sim, expected.outcomes[name]), name, SECONDS)
            except AssertionError:
                lines = differences(outcome(sim.server.store), expected.outcomes[name])
                told = "\n".join(lines) or "it took too long"
                pytest.fail(f"{what}, {life.isolation}: the {name} came to something else:\n{told}")
        assert not invariants.broken, f"{what}, {life.isolation}: {invariants.broken}"
        return sim


def _has_come_to(sim: Simulation, expected: Json) -> Callable[[], bool]:
    """Looks again once something has changed: most of what there is to do in a life would be these looks."""
    seen = -1

    def look() -> bool:
        nonlocal seen
        if sim.server.store.version == seen:
            return False
        seen = sim.server.store.version
        return outcome(sim.server.store) == expected

    return look


class Changes:
    """Counts the changes of objects that the controller watches, by their plural and by what was done to them, and does
    something before the `number`-th of a kind is told."""

    def __init__(
        self,
        sim: Simulation,
        kind: tuple[str, str] | None = None,
        number: int = 0,
        then: Callable[[], object] | None = None,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        history = sim.server.store.history
        publish = history.publish

        def counted(change: Change) -> None:
            if change.resource in _WATCHED:
                of = (change.resource.plural, change.type)
                self.counts[of] += 1
                if then and of == kind and self.counts[of] == number:
                    then()
            publish(change)

        history.publish = counted  # type: ignore[method-assign]


def _prepare(sim: Simulation) -> None:
    sim.kubelet.fate = lambda pod: _by_its_code(sim, pod)
    sim.add_node(NODE)


def _by_its_code(sim: Simulation, pod: Json) -> Fate:
    held = {each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each}
    codes = [each["data"] for each in sim.server.store.all(CONFIG_MAPS) if each["metadata"]["name"] in held]
    bad = any(_BAD in text for code in codes for text in code.values())
    return Crash("ModuleNotFoundError: No module named 'absent'") if bad else Ready()


# --- the stages -------------------------------------------------------------------------------------------------------


def _is_current(sim: Simulation) -> bool:
    things = [*sim.server.store.all(SESSION_POOLS), *sim.server.store.all(WEB_SERVICES)]
    return all(kstatus(thing) == CURRENT for thing in things)


def _has_failed(sim: Simulation) -> bool:
    return {kstatus(pool) for pool in sim.server.store.all(SESSION_POOLS)} == {FAILED}


def _is_on_the_node(sim: Simulation) -> bool:
    """The one that is there now."""
    uid = sim.server.store.get(NODES, NODE)["metadata"]["uid"]
    ready = {pod["metadata"]["annotations"][names.ANNOTATION_NODE_UID] for pod in sim.ready_pods()}
    return _is_current(sim) and ready == {uid}


def _fill(sim: Simulation, isolation: str) -> None:
    sim.apply(sim.service(), sim.pool(initial=2, maximum=3, isolation=isolation))


def _change_code(text: str) -> Callable[[Simulation, str], None]:
    return lambda sim, _: sim.edit_service(code={"inline": {"service.py": text}})


def _resize(initial: int, maximum: int) -> Callable[[Simulation, str], None]:
    return lambda sim, _: sim.edit_pool(initialPoolSize=initial, maxPoolSize=maximum)


def _change_isolation(sim: Simulation, isolation: str) -> None:
    sim.edit_pool(isolation="Process" if isolation == "Pod" else "Pod")


def _replace_the_node(sim: Simulation, _: str) -> None:
    sim.server.store.delete(NODES, NODE)
    sim.add_node(NODE)


def _delete(propagation: str) -> Callable[[Simulation, str], None]:
    def delete(sim: Simulation, _: str) -> None:
        sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE, propagation=propagation)
        sim.server.store.delete(WEB_SERVICES, "score", NAMESPACE)

    return delete


def _is_deleted(sim: Simulation) -> bool:
    return not sim.server.store.all(SESSION_POOLS) and not sim.pods(alive=False)


SIZES: Final = {
    "filling": Stage(_fill, _is_current),
    "rollout": Stage(_change_code("x = 2"), _is_current),
    "growth": Stage(_resize(3, 3), _is_current),
    "shrinking": Stage(_resize(1, 2), _is_current),
    "deletion": Stage(_delete("Background"), _is_deleted),
}
UPHEAVALS: Final = {
    "filling": Stage(_fill, _is_current),
    "change of isolation": Stage(_change_isolation, _is_current),
    "bad revision": Stage(_change_code(_BAD), _has_failed),
    "way back": Stage(_change_code("x = 1"), _is_current),
    "replacement of the node": Stage(_replace_the_node, _is_on_the_node),
    "deletion": Stage(_delete("Foreground"), _is_deleted),
}
LIVES: Final = {
    f"{isolation}, {name}": Life(isolation, stages)
    for isolation in ("Pod", "Process")
    for name, stages in (("sizes", SIZES), ("upheavals", UPHEAVALS))
}
