"""Interleaved blocks: how two servers compare on a machine that is not quiet.

What others do on the machine comes and goes in seconds, so each round runs one short block per server, in an order that
turns from round to round, and only ratios within a round are used. The first server runs twice in each round; its ratio
to itself says whether the round could tell a difference at all.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.bars import CONTROL

_AGAIN = "again"


@dataclass(frozen=True)
class Comparison:
    """p50 per round and server; the first server is the one that is compared to the others."""

    rounds: list[dict[str, float]]
    subject: str

    def p50s(self, name: str) -> list[float]:
        return [found[name] for found in self.rounds]

    def ratios(self, other: str) -> list[float]:
        """Per round, with the mean of the subject's two blocks."""
        return [(found[self.subject] + found[_AGAIN]) / 2 / found[other] for found in self.rounds]

    @property
    def control(self) -> list[float]:
        return [found[self.subject] / found[_AGAIN] for found in self.rounds]

    @property
    def valid(self) -> bool:
        return CONTROL.holds(statistics.median(self.control))


def interleaved(
    blocks: Mapping[str, Callable[[], float]], rounds: int, on_round: Callable[[int], None] = lambda _: None
) -> Comparison:
    """Run the blocks (each gives its p50) so many rounds; the first of them is the subject."""
    subject = next(iter(blocks))
    all_blocks = {**blocks, _AGAIN: blocks[subject]}
    found = []
    for number in range(rounds):
        names = list(all_blocks)
        turn = number % len(names)
        times = {name: all_blocks[name]() for name in names[turn:] + names[:turn]}
        found.append({name: times[name] for name in names})
        on_round(number + 1)
    return Comparison(found, subject)
