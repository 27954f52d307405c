"""How long something that failed is left alone: twice as long each time, within a bound, and up to half as much more.

What is added is made of a seed (a node's name, a pod's uid) and not drawn: whoever decides twice decides the same, and
what failed at one moment does not all come back at one moment.
"""

from dataclasses import dataclass
from typing import Final

from sessionpools.core import naming

__all__ = ["Backoff", "doubled"]

# Beyond it every bound in this project is reached; 2.0 ** 1024 is an OverflowError.
_DOUBLINGS_AT_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    first_seconds: float
    at_most_seconds: float

    def seconds(self, failures: int, seed: str) -> float:
        """How long to wait after so many failures in a row; 0 after none."""
        if failures < 1:
            return 0.0
        jitter = int(naming.digest(seed, str(failures)), 16) % 1000 / 2000
        return doubled(self.first_seconds, self.at_most_seconds, failures - 1) * (1 + jitter)


def doubled(first: float, at_most: float, times: int) -> float:
    """`first`, doubled so many times, however many those are, but no more than `at_most`."""
    return min(first * 2.0 ** min(times, _DOUBLINGS_AT_MOST), at_most)
