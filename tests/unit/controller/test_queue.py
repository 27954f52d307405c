"""The work queue: each key once at a time, bursts merged, failures later."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sessionpools.controller.queue import WorkQueue


class Worker:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.running: set[str] = set()
        self.overlaps = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.seconds = 0.0  # that each run takes
        self.again: dict[str, float] = {}
        self.fail: dict[str, int] = {}
        self.errors: list[str] = []

    async def work(self, key: str) -> float | None:
        self.overlaps += key in self.running
        self.running.add(key)
        await self.gate.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        self.running.discard(key)
        self.seen.append(key)
        if self.fail.get(key, 0):
            self.fail[key] -= 1
            raise RuntimeError(key)
        return self.again.pop(key, None)

    def failed(self, key: str, error: Exception) -> None:
        self.errors.append(str(error))


@asynccontextmanager
async def queue(
    min_interval: float = 0.0, *, at_most: float = 60.0, workers: int = 4
) -> AsyncIterator[tuple[WorkQueue[str], Worker]]:
    worker = Worker()
    made: WorkQueue[str] = WorkQueue(
        worker.work, worker.failed, min_interval=min_interval, at_most=at_most, rng=random.Random(1)
    )
    running = asyncio.create_task(made.run(workers))
    try:
        yield made, worker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(worker: Worker, count: int) -> None:
    async with asyncio.timeout(5):
        while len(worker.seen) < count:
            await asyncio.sleep(0.001)


async def test_a_key_that_waits_is_there_once() -> None:
    async with queue() as (q, worker):
        for _ in range(10):
            q.add("a")
        q.add("b")
        await until(worker, 2)
        assert sorted(worker.seen) == ["a", "b"]
        assert q.idle


async def test_a_key_added_while_it_is_worked_on_runs_once_more_and_never_twice_at_a_time() -> None:
    async with queue() as (q, worker):
        worker.gate.clear()
        q.add("a")
        while "a" not in worker.running:
            await asyncio.sleep(0)
        q.add("a")
        q.add("a")
        await asyncio.sleep(0.02)
        worker.gate.set()
        await until(worker, 2)
        assert (worker.seen, worker.overlaps) == (["a", "a"], 0)


async def test_other_keys_go_on_while_one_is_slow() -> None:
    async with queue() as (q, worker):
        worker.gate.clear()
        q.add("slow")
        while "slow" not in worker.running:
            await asyncio.sleep(0)
        q.add("b")
        while "b" not in worker.running:
            await asyncio.sleep(0)
        worker.gate.set()
        await until(worker, 2)


async def test_a_failure_comes_back_later_and_is_told() -> None:
    async with queue() as (q, worker):
        worker.fail["a"] = 1
        q.add("a")
        await until(worker, 2)
        assert (worker.seen, worker.errors) == (["a", "a"], ["a"])


async def test_a_key_that_has_failed_for_days_does_not_end_the_queue() -> None:
    async with queue() as (q, worker):
        q._failures["a"] = 5000  # 2.0 ** 1024 is an OverflowError
        worker.fail["a"] = 1
        q.add("a")
        await until(worker, 1)
        q.add("b")
        await until(worker, 2)
        assert worker.errors == ["a"]


async def test_a_key_can_ask_to_come_back_and_an_earlier_date_wins() -> None:
    async with queue() as (q, worker):
        worker.again["a"] = 60.0
        q.add("a")
        await until(worker, 1)
        assert len(q) == 1
        q.add("a")
        await until(worker, 2)


async def test_runs_of_one_key_keep_their_distance() -> None:
    async with queue(min_interval=0.1) as (q, worker):
        loop = asyncio.get_running_loop()
        q.add("a")
        await until(worker, 1)
        began = loop.time()
        q.add("a")
        await until(worker, 2)
        assert loop.time() - began >= 0.08


async def test_a_run_that_hangs_is_ended_and_its_key_comes_back() -> None:
    async with queue(at_most=0.05) as (q, worker):
        worker.gate.clear()
        q.add("a")
        while not worker.errors:
            await asyncio.sleep(0.001)
        worker.running.clear()
        worker.gate.set()
        await until(worker, 1)
        assert worker.seen == ["a"]


async def test_a_worker_that_is_lost_and_one_that_never_ends_are_seen() -> None:
    async with queue() as (q, worker):
        worker.gate.clear()
        q.add("a")
        while q.stuck_seconds() < 0.05:
            await asyncio.sleep(0.001)
        worker.gate.set()
        await until(worker, 1)
        assert q.stuck_seconds() == 0.0


async def test_keys_that_nobody_takes_are_seen() -> None:
    async with queue(workers=0) as (q, _):
        q.add("a")
        while q.stuck_seconds() < 0.05:
            await asyncio.sleep(0.001)


async def test_keys_that_wait_for_busy_workers_or_for_later_are_not_stuck() -> None:
    async with queue(workers=1) as (q, worker):
        loop, worker.seconds = asyncio.get_running_loop(), 0.01
        for number in range(30):
            worker.fail[str(number)] = 1  # as while the API server is away
            q.add(str(number))
        q.add("later", 60.0)
        began, longest = loop.time(), 0.0
        while len(worker.seen) < 30:
            longest = max(longest, q.stuck_seconds())
            await asyncio.sleep(0.001)
        assert longest < (loop.time() - began) / 2
