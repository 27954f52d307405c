"""Which of all that the simulation could go through a run does: the same each time, unless `SIMULATION_SEED` is given.

CI gives another one each time, and every run prints it (tests/conftest.py). `SIMULATION_LIVES` asks for a long run.
"""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ["LIVES", "SEED", "STEPS", "is_long", "some_of"]

T = TypeVar("T")

SEED: Final = int(os.environ["SIMULATION_SEED"]) if os.environ.get("SIMULATION_SEED") else None
LIVES: Final = int(os.environ.get("SIMULATION_LIVES", "16"))
STEPS: Final = int(os.environ.get("SIMULATION_STEPS", "30"))
is_long: Final = "SIMULATION_LIVES" in os.environ


def some_of(things: Sequence[T], each: int) -> Sequence[T]:
    """Each so-many-th of them, from where the seed says; all in a long run."""
    return things if is_long else things[(SEED or 0) % each :: each]
