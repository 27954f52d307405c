"""How much a run of the simulation has covered: counts by what is counted, and the distinct states that were seen.

Tests add to `TALLY`; tests/conftest.py prints it at the end of the run.
"""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any


class Tally:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self._states: set[str] = set()  # digests

    def add(self, what: str, count: int = 1) -> None:
        self.counts[what] += count

    def step(self, rule: str) -> None:
        """A rule of a state machine was carried out."""
        self.rules[rule] += 1

    def saw(self, state: tuple[Any, ...]) -> None:
        """`state` is made of what looks the same in every process."""
        self._states.add(blake2b(repr(state).encode(), digest_size=8).hexdigest())

    def parts(self) -> tuple[dict[str, int], dict[str, int], list[str]]:
        """As plain values, which another process can `merge`."""
        return dict(self.counts), dict(self.rules), list(self._states)

    def merge(self, counts: dict[str, int], rules: dict[str, int], states: list[str]) -> None:
        self.counts.update(counts)
        self.rules.update(rules)
        self._states.update(states)

    def lines(self) -> Iterator[str]:
        for what, count in sorted(self.counts.items()):
            yield f"{count:7,} {what}"
        if self._states:
            yield f"{len(self._states):7,} distinct states of a pool"
        if self.rules:
            yield f"{self.rules.total():7,} steps of {len(self.rules)} rules:"
            yield "        " + ", ".join(f"{rule} {count}" for rule, count in sorted(self.rules.items()))


TALLY = Tally()
