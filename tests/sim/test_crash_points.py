"""The controller crashes before and after each of its writes, one life for each: every life comes to the same.

The third of the classes of faults by which Sieve (OSDI 2022) tests controllers: an intermediate state that a crash
leaves. A life is run once without a crash, stage by stage, to see what each stage comes to and how many writes it
takes; then once for each write and for each side of it. Which write has which number differs a little from life to
life, as status writes merge; the last ones may not be reached.
"""

import asyncio
from typing import Literal

import pytest

from support.stages import LIVES, Life, disturbed, undisturbed
from support.tally import TALLY

When = Literal["before", "after"]

AT_A_TIME = 8  # lives: most of each is waiting
REACHED_AT_LEAST = 0.8  # of the crashes that were asked for


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
async def test_a_crash_before_or_after_any_write_changes_nothing_of_what_a_pool_comes_to(life: Life) -> None:
    expected = await undisturbed(life)
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int, when: When) -> int:
        async with gate:
            sim = await disturbed(
                life,
                expected,
                lambda sim: sim.server.at_write(number, when, sim.crash_controller),
                f"crash {when} write {number}",
            )
            return sim.crashes

    whens: tuple[When, ...] = ("before", "after")
    asked = [(number, when) for number in range(1, expected.writes + 1) for when in whens]
    crashes = sum(await asyncio.gather(*(one(number, when) for number, when in asked)))
    assert crashes >= REACHED_AT_LEAST * len(asked)
    TALLY.add("crash points", crashes)
