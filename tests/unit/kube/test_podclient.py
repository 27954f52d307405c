"""What session pods are asked, and those that do not answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from sessionpools.core.model import PodView
from sessionpools.kube.podclient import PodClient
from support.builders import pod, pool, target_of

P = pool(1, 4)
T = target_of(P)
ANSWERS, SILENT = "127.0.0.1", "127.0.0.2"
REPORT = {
    "sessions": [{"state": "busy", "idleSeconds": 0.0}],
    "phase": "ready",
    "phaseSeconds": 3.0,
    "settings": {"initialPoolSize": 1, "maxPoolSize": 1},
    "warmed": True,
    "threads": [],
}


@pytest.fixture
async def client() -> AsyncIterator[PodClient]:
    """Of pods at two addresses; those at one of them take connections and say nothing."""
    over = asyncio.Event()

    async def sessions(request: web.Request) -> web.Response:
        if request.host.startswith(SILENT):
            await over.wait()
        return web.json_response(REPORT)

    app = web.Application()
    app.router.add_get("/sessions", sessions)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    made = PodClient(runner.addresses[0][1])
    yield made
    over.set()
    await made.close()
    await runner.cleanup()


def at(address: str, slot: int = 0) -> PodView:
    return replace(pod(T, P, slot), address=address)


async def test_a_pod_says_what_its_sessions_do(client: PodClient) -> None:
    (report,) = (await client.reports([at(ANSWERS)])).values()
    assert (report.ready_sessions, report.busy_sessions, report.phase) == (1, 1, "ready")


async def test_one_that_is_silent_has_no_report_and_the_others_have(client: PodClient) -> None:
    answers = await client.reports([at(SILENT, 0), at(ANSWERS, 1)])
    assert set(answers) == {at(ANSWERS, 1).uid}


async def test_silent_pods_of_other_pools_keep_nobody_waiting(client: PodClient) -> None:
    silent = asyncio.create_task(client.reports([at(SILENT, slot) for slot in range(60)]))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(0.8):
        assert await client.reports([at(ANSWERS)])
    assert not silent.done()
    assert await silent == {}
