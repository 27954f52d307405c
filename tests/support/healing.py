"""Pools whose trouble goes away by itself: well again within the time that docs/concepts.md names ("Well again after"),
and that a session takes to start.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from support.cluster import kubectl
from support.pools import POOLS, Json, Pool, publish

START_SECONDS: Final = 30.0  # of two sessions, on two cores that run the cluster and the rest of the tests
AT_ONCE_SECONDS: Final = 5.0  # a repaired spec; a node that may be used again
FIRST_BACK_OFF_SECONDS: Final = 23.0  # the controller's, the first time


@contextmanager
def published(namespace: str, service: Json, pool: Json) -> Iterator[Pool]:
    """The pool exists meanwhile."""
    made = publish(namespace, service, pool)
    try:
        yield made
    finally:
        kubectl("delete", POOLS, made.name, "-n", namespace, "--cascade=foreground")


def well_again(pool: Pool, within_seconds: float, began: float | None = None) -> None:
    """From now on, or from when it `began` (monotonic): within the seconds that the documentation names, and a start.
    The seconds that it took are printed."""
    since = time.monotonic() if began is None else began
    pool.until_success(within_seconds + START_SECONDS - (time.monotonic() - since))
    assert pool.condition("Stalled")["status"] == "False"
    took, at_most = time.monotonic() - since, within_seconds + START_SECONDS
    print(f"{pool.name}: well again after {took:.1f} s, at most {at_most:g} s")


def uids(pool: Pool) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pool.pods()}
