"""The controller crashes before and after each of its writes, one life for each: every life comes to the same.

The third of the classes of faults by which Sieve (OSDI 2022) tests controllers: an intermediate state that a crash
leaves. A life is run once without a crash, stage by stage, to see what each stage comes to and which writes it takes;
then once for each write and for each side of it, by its number among those of its kind. How many there are of a kind
differs from life to life, as status writes merge: a life without a crash has to have had fewer.
"""

import asyncio
from typing import Literal

import pytest

from support.apiserver_faults import Kind
from support.stages import LIVES, Life, disturbed, undisturbed, writes_by_kind
from support.tally import TALLY

When = Literal["before", "after"]

AT_A_TIME = 8  # lives: most of each is waiting


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
async def test_a_crash_before_or_after_any_write_changes_nothing_of_what_a_pool_comes_to(life: Life) -> None:
    expected = await undisturbed(life)
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(kind: Kind, number: int, when: When) -> bool:
        async with gate:
            sim = await disturbed(
                life,
                expected,
                lambda sim: sim.server.at_write(number, when, sim.crash_controller, kind),
                f"crash {when} {kind} {number}",
            )
            count = writes_by_kind(sim)[kind]
            assert sim.crashes == (count >= number), f"{sim.crashes} crashes {when} {kind} {number} of {count}"
            return sim.crashes > 0

    whens: tuple[When, ...] = ("before", "after")
    asked = [
        (kind, number, when)
        for kind, count in expected.writes.items()
        for number in range(1, count + 1)
        for when in whens
    ]
    crashed = await asyncio.gather(*(one(*each) for each in asked))
    for (kind, number, when), was_crashed in zip(asked, crashed, strict=True):
        assert number > 1 or was_crashed, f"no crash {when} {kind}"
    TALLY.add("crash points", sum(crashed))
