"""Of what the watches would tell the controller one change is lost, one life for each: every life comes to the same.

The second of the classes of faults by which Sieve (OSDI 2022) tests controllers: a state that was never observed. What
happens within `BLIND_SECONDS` of the change is lost with it, so that what lists then show may be two changes on. The
first class is in test_stale_lists.py, the third in test_crash_points.py; all three are rules of test_state_machine.py.

A change has its number among those of its kind, as how many there are of a kind differs from life to life.

A usual run loses each third change; which ones, `SIMULATION_SEED` says. With `SIMULATION_LIVES` it is all of them.
"""

import asyncio

import pytest

from support.seed import some_of
from support.simulation import Simulation
from support.stages import LIVES, Changes, Life, disturbed, undisturbed
from support.tally import TALLY

AT_A_TIME = 8  # lives: most of each is waiting
BLIND_SECONDS = 0.03  # three steps of the simulated kubelets
REACHED_AT_LEAST = 0.7  # of the changes that were to be lost: how many there are differs from life to life
EACH = 3


def lose(sim: Simulation, kind: tuple[str, str], number: int) -> Changes:
    """The `number`-th change of `kind` that is told from now on."""

    def begin() -> None:
        sim.server.pause_watches()
        asyncio.get_running_loop().call_later(BLIND_SECONDS, lambda: sim.server.resume_watches(lost=True))

    return Changes(sim, kind, number, begin)


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
async def test_a_change_that_is_not_told_of_changes_nothing_of_what_a_pool_comes_to(life: Life) -> None:
    expected = await undisturbed(life)
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(kind: tuple[str, str], number: int) -> bool:
        async with gate:
            seen: list[Changes] = []
            what = f"{' '.join(kind)} {number} is lost"
            await disturbed(life, expected, lambda sim: seen.append(lose(sim, kind, number)), what)
            return seen[0].counts[kind] >= number

    asked = [(kind, number) for kind, count in expected.changes.items() for number in range(1, count + 1)]
    chosen = some_of(asked, EACH)
    lost = await asyncio.gather(*(one(*each) for each in chosen))
    for (kind, number), was_lost in zip(chosen, lost, strict=True):
        assert number > 1 or was_lost, f"no {' '.join(kind)} was lost"
    assert sum(lost) >= REACHED_AT_LEAST * len(chosen)
    TALLY.add("changes that were not told of", sum(lost))
