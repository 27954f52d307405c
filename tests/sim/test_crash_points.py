"""The controller crashes before and after each of its writes, one life for each: every life comes to the same.

The third of the classes of faults by which Sieve (OSDI 2022) tests controllers: an intermediate state that a crash
leaves. A life is run once without a crash, stage by stage, to see what each stage comes to and how many writes it
takes; then once for each write and for each side of it. Which write has which number differs a little from life to
life, as status writes merge; the last ones may not be reached.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

import pytest

from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.invariants import Invariants
from support.kstatus import CURRENT, kstatus
from support.outcome import differences, outcome
from support.simulation import NAMESPACE, Simulation
from support.tally import TALLY

When = Literal["before", "after"]

AT_A_TIME = 4  # lives: most of each is waiting
REACHED_AT_LEAST = 0.8  # of the crashes that were asked for


def fill(sim: Simulation, isolation: str) -> None:
    sim.apply(sim.service(), sim.pool(initial=2, maximum=3, isolation=isolation))


def roll_out(sim: Simulation, _: str) -> None:
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})


def grow(sim: Simulation, _: str) -> None:
    sim.edit_pool(initialPoolSize=3)


def shrink(sim: Simulation, _: str) -> None:
    sim.edit_pool(initialPoolSize=1, maxPoolSize=2)


def delete(sim: Simulation, _: str) -> None:
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    sim.server.store.delete(WEB_SERVICES, "score", NAMESPACE)


STAGES: Mapping[str, Callable[[Simulation, str], None]] = {
    "fill": fill, "rollout": roll_out, "growth": grow, "shrinking": shrink, "deletion": delete,
}  # fmt: skip


async def undisturbed(isolation: str) -> tuple[dict[str, Json], int]:
    """What each stage comes to, and how many writes there were."""
    found = {}
    async with Simulation() as sim:
        sim.add_node("worker-1")
        for name, begin in STAGES.items():
            begin(sim, isolation)
            await sim.until(lambda: is_current(sim), f"{name} is done")
            await sim.comes_to_rest()
            found[name] = outcome(sim.server.store)
        return found, len(sim.server.writes())


def is_current(sim: Simulation) -> bool:
    things = [*sim.server.store.all(SESSION_POOLS), *sim.server.store.all(WEB_SERVICES)]
    return all(kstatus(thing) == CURRENT for thing in things)


async def life(isolation: str, expected: dict[str, Json], number: int, when: When) -> int:
    """With a crash just before or after its `number`-th write; how many there were, which is one or none."""
    async with Simulation() as sim:
        invariants = Invariants(sim, lag_seconds=0.05)
        sim.add_node("worker-1")
        sim.server.at_write(number, when, sim.crash_controller)
        for name, begin in STAGES.items():
            begin(sim, isolation)
            try:
                await sim.until(lambda name=name: outcome(sim.server.store) == expected[name], name)  # type: ignore[misc]
            except AssertionError:
                lines = differences(outcome(sim.server.store), expected[name])
                told = "\n".join(lines) or "it took too long"
                pytest.fail(f"crash {when} write {number} of {isolation}: the {name} came to something else:\n{told}")
        assert not invariants.broken, f"crash {when} write {number} of {isolation}: {invariants.broken}"
        return sim.crashes


@pytest.mark.parametrize("isolation", ["Pod", "Process"])
async def test_a_crash_before_or_after_any_write_changes_nothing_of_what_a_pool_comes_to(isolation: str) -> None:
    expected, writes = await undisturbed(isolation)
    assert expected["deletion"] == {"pool": [], "service": [], "pods": [], "code": []}
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int, when: When) -> int:
        async with gate:
            return await life(isolation, expected, number, when)

    whens: tuple[When, ...] = ("before", "after")
    asked = [(number, when) for number in range(1, writes + 1) for when in whens]
    crashes = sum(await asyncio.gather(*(one(number, when) for number, when in asked)))
    assert crashes >= REACHED_AT_LEAST * len(asked)
    TALLY.add("crash points", crashes)
