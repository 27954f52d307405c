"""One work queue for everything: keys, never events.

A key that is added while it waits is in the queue once; one that is added while it is worked on is worked on once more
afterwards; no key is worked on twice at a time. Failures come back after a back-off with jitter. Runs are at least
`min_interval` apart, which merges the bursts that a pool's pods make. One that takes longer than `AT_MOST_SECONDS`
hangs: it is cancelled and counts as failed, so that neither its key nor its worker is lost.
"""

import asyncio
import heapq
import math
import random
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from typing import Generic, TypeVar

from sessionpools.core.backoff import doubled

__all__ = ["WorkQueue"]

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_AT_MOST_SECONDS = 60.0
# Above what the client takes to give up on a read of an API server that does not answer: 4 tries of 30 s.
AT_MOST_SECONDS = 150.0

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """`work(key)` returns the seconds after which it wants the key again, or None."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        on_error: Callable[[K, Exception], None],
        *,
        min_interval: float = 0.1,
        at_most: float = AT_MOST_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._min_interval = min_interval
        self._at_most = at_most
        self._rng = rng or random.Random()  # noqa: S311  jitter, no secret
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = count()
        self._running: dict[K, float] = {}  # since when
        self._taken_at = -math.inf  # when a worker last took a key, or began to look for one
        self._last_start: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()  # one worker waits for the next key; else each news would wake all of them

    def __len__(self) -> int:
        return len(self._due)

    @property
    def idle(self) -> bool:
        """Nothing is running, and nothing is due but what waits for time to pass."""
        now = asyncio.get_running_loop().time()
        return not self._running and all(due > now + self._min_interval for due in self._due.values())

    def stuck_seconds(self) -> float:
        """For how long the oldest run lasts, or no worker takes a key though one is due. Workers that are all busy, and
        fail, are not stuck: as each run has its time limit, nothing but a fault in this program goes beyond that."""
        now = asyncio.get_running_loop().time()
        runs = (now - began for began in self._running.values())
        waits = (now - max(due, self._taken_at) for key, due in self._due.items() if key not in self._running)
        return max([0.0, *runs, *waits])

    def add(self, key: K, after: float = 0.0) -> None:
        """Work on `key` in `after` seconds at the latest."""
        now = asyncio.get_running_loop().time()
        due = max(now + after, self._last_start.get(key, -1e9) + self._min_interval)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._wake.set()

    def forget(self, key: K) -> None:
        """`key` is no more: drop what is remembered of it."""
        self._failures.pop(key, None)
        self._last_start.pop(key, None)

    async def run(self, workers: int) -> None:
        self._taken_at = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._turn:
                key = await self._next()
            self._running[key] = self._taken_at = self._last_start[key] = loop.time()
            try:
                async with asyncio.timeout(self._at_most):
                    again = await self._work(key)
            except Exception as error:
                self._on_error(key, error)
                again = self._backoff(key)
            else:
                self._failures.pop(key, None)
            del self._running[key]
            if again is not None:
                self.add(key, again)
            self._wake.set()  # it may have been added while it ran

    async def _next(self) -> K:
        loop = asyncio.get_running_loop()
        while True:
            wait: float | None = None
            blocked = []
            key = None
            while self._heap:
                due, _, candidate = self._heap[0]
                if self._due.get(candidate) != due:
                    heapq.heappop(self._heap)  # replaced by an earlier date, or done
                elif due > loop.time():
                    wait = due - loop.time()
                    break
                elif candidate in self._running:
                    blocked.append(heapq.heappop(self._heap))
                else:
                    heapq.heappop(self._heap)
                    del self._due[candidate]
                    key = candidate
                    break
            for entry in blocked:
                heapq.heappush(self._heap, entry)
            if key is not None:
                return key
            self._wake.clear()
            await _wait(self._wake, wait)

    def _backoff(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = doubled(BACKOFF_FIRST_SECONDS, BACKOFF_AT_MOST_SECONDS, failures - 1)
        return delay * self._rng.uniform(0.75, 1.25)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
