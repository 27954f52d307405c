"""/livez, /readyz and /metrics over real HTTP."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from sessionpools.api.v1alpha1 import SessionCounts
from sessionpools.controller.health import (
    SILENT_API_SECONDS,
    STUCK_LOOP_SECONDS,
    STUCK_WORK_SECONDS,
    Health,
    serve,
)
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.queue import AT_MOST_SECONDS
from sessionpools.kube.protocol import PODS
from support.builders import pool


@asynccontextmanager
async def served(
    *, beat: float = 0.0, seen: float = 0.0, synced: bool = True, stuck: float = 0.0, metrics: Metrics | None = None
) -> AsyncIterator[str]:
    """A server whose event loop last turned `beat` seconds ago, that last heard of the API server `seen` ago, and whose
    work hangs for `stuck` seconds."""
    now = time.monotonic()
    health = Health(lambda: now - beat, lambda: now - seen, lambda: synced, lambda: stuck)
    runner = await serve(health, metrics or Metrics(), 0)
    try:
        # it listens on IPv4 and IPv6; with port 0 on different ports
        (port,) = (address[1] for address in runner.addresses if len(address) == 2)
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_it_is_live_and_ready() -> None:
    async with served() as url:
        assert (await get(f"{url}/livez"))[0] == (await get(f"{url}/readyz"))[0] == 200


async def test_it_is_live_and_not_ready_before_its_caches_are_complete() -> None:
    async with served(synced=False, seen=SILENT_API_SECONDS * 2) as url:
        assert (await get(f"{url}/livez"))[0] == 200
        assert await get(f"{url}/readyz") == (503, "caches are filling")


async def test_a_loop_that_hangs_is_not_live() -> None:
    async with served(beat=STUCK_LOOP_SECONDS + 1) as url:
        status, words = await get(f"{url}/livez")
        assert (status, "event loop" in words) == (500, True)


async def test_work_that_hangs_is_not_live_and_work_that_takes_its_time_is() -> None:
    async with served(stuck=AT_MOST_SECONDS) as url:
        assert (await get(f"{url}/livez"))[0] == 200
    async with served(stuck=STUCK_WORK_SECONDS + 1) as url:
        assert await get(f"{url}/livez") == (500, "reconciliations have hung for 181 s")


async def test_an_api_server_that_is_away_for_a_while_is_no_reason_to_restart() -> None:
    async with served(seen=SILENT_API_SECONDS / 2) as url:
        assert (await get(f"{url}/livez"))[0] == 200
    async with served(seen=SILENT_API_SECONDS + 1) as url:
        assert (await get(f"{url}/livez"))[0] == 500


async def test_metrics_show_each_pool_and_the_calls_to_the_api_server() -> None:
    metrics = Metrics()
    status = pool().status.model_copy(update={"sessions": SessionCounts(desired=4, ready=3, updated=2)})
    metrics.watch(lambda: [pool().model_copy(update={"status": status})], lambda: 5)
    metrics.api_call("create", PODS, 201, 0.01)
    async with served(metrics=metrics) as url:
        _, text = await get(f"{url}/metrics")
    assert 'sessionpools_sessions{namespace="demo",pool="score",state="ready"} 3.0' in text
    assert 'sessionpools_controller_api_seconds_count{resource="pods",status="201",verb="create"} 1.0' in text
    assert "sessionpools_controller_queue_length 5.0" in text
