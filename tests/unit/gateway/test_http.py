"""What a gateway pod says of itself, over real HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiohttp
from prometheus_client import CollectorRegistry, Gauge

from sessionpools.gateway.demand import DemandSource, Lent
from sessionpools.gateway.http import STUCK_LOOP_SECONDS, Health, serve

HEAD = "# pxname,svname,qcur,scur,act,"


class Haproxy:
    def __init__(self) -> None:
        self.calls = 0
        self.away = False

    async def ask(self, _: Iterable[str]) -> list[str]:
        if self.away:
            raise OSError("gone")
        return [f"{HEAD}\nq10-1,BACKEND,0,{self.calls},1,\n", ""]


@asynccontextmanager
async def served(*, beat: float = 0.0, not_ready: str = "") -> AsyncIterator[tuple[str, Haproxy, DemandSource]]:
    """A server whose event loop last turned `beat` seconds ago."""
    haproxy, registry = Haproxy(), CollectorRegistry()
    Gauge("of_the_registry", "x", registry=registry).set(7)
    source = DemandSource(haproxy.ask, lambda: {"q10-1": Lent("uid-1", "demo", "score")})
    now = time.monotonic()
    health = Health(lambda: now - beat, lambda: not_ready)
    runner = await serve(health, source, lambda: b"of_requests 3\n", registry, port=0, host="127.0.0.1")
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", haproxy, source
    finally:
        await runner.cleanup()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_it_is_live_and_ready() -> None:
    async with served() as (url, _, _):
        assert (await get(f"{url}/livez"))[0] == (await get(f"{url}/readyz"))[0] == 200


async def test_a_loop_that_hangs_is_not_live() -> None:
    async with served(beat=STUCK_LOOP_SECONDS + 1) as (url, _, _):
        status, text = await get(f"{url}/livez")
        assert status == 500
        assert "event loop" in text


async def test_it_says_why_it_is_not_ready_and_is_live_all_the_same() -> None:
    async with served(not_ready="caches are filling") as (url, _, _):
        assert await get(f"{url}/readyz") == (503, "caches are filling")
        assert (await get(f"{url}/livez"))[0] == 200


async def test_metrics_are_the_requests_and_the_registry_s() -> None:
    async with served() as (url, _, _):
        _, text = await get(f"{url}/metrics")
        assert "of_requests 3\n" in text
        assert "of_the_registry 7.0\n" in text


async def test_demand_is_offered_once_it_is_known() -> None:
    async with served() as (url, haproxy, source):
        assert (await get(f"{url}/demand"))[0] == (await get(f"{url}/demand?watch"))[0] == 503
        haproxy.calls = 1
        await source.poll()
        status, text = await get(f"{url}/demand")
        assert status == 200
        assert json.loads(text) == {"pools": {"uid-1": {"busy": 1, "queued": 0, "open": 1, "pods": {}}}}


async def test_a_watcher_gets_a_line_for_each_change_and_the_end_when_nothing_is_known_any_more() -> None:
    async with served() as (url, haproxy, source), aiohttp.ClientSession() as session, asyncio.timeout(10):
        await source.poll()
        async with session.get(f"{url}/demand?watch") as answer:
            busy = []
            for haproxy.calls in (1, 2):
                line = json.loads(await answer.content.readline())
                busy.append(line["pools"]["uid-1"]["busy"])
                await source.poll()
            assert busy == [0, 1]
            haproxy.away = True
            await source.poll()
            rest = await answer.content.read()
        assert all(json.loads(line)["pools"] for line in rest.splitlines())


async def test_a_watcher_that_goes_is_forgotten_and_another_is_served() -> None:
    async with served() as (url, _, source), aiohttp.ClientSession() as session, asyncio.timeout(10):
        await source.poll()
        for _ in range(3):
            async with session.get(f"{url}/demand?watch") as answer:
                assert await answer.content.readline()


async def test_a_server_with_watchers_can_be_shut_down() -> None:
    async with aiohttp.ClientSession() as session:
        async with served() as (url, _, source):
            await source.poll()
            answer = await session.get(f"{url}/demand?watch")
            await answer.content.readline()
            began = time.monotonic()
        assert time.monotonic() - began < 5
        answer.close()
