"""The stream of demand that the controller follows, against gateways that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from sessionpools.controller import demand as module
from sessionpools.controller.demand import DemandFeed
from sessionpools.core.demand import Demand
from sessionpools.kube.protocol import PODS
from support.apiserver import ApiServer
from support.waiting import until

SELECTOR = "sessionpools.dev/gateway=active"


class Gateway:
    """Serves what it is told to: the lines of each stream, one after the other; then it is silent, or ends."""

    def __init__(self, *lines: bytes, status: int = 200, ends: bool = False) -> None:
        self.lines, self.status, self.ends = list(lines), status, ends
        self.streams = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for line in self.lines:
            await response.write(line)
        if not self.ends:
            await asyncio.sleep(3600)
        return response


@asynccontextmanager
async def followed(*gateways: Gateway) -> AsyncIterator[tuple[DemandFeed, list[Collection[str] | None], ApiServer]]:
    """A feed that follows them; each has an address of its own, and all the same port."""
    changes: list[Collection[str] | None] = []
    runners: list[web.AppRunner] = []
    port = 0
    async with ApiServer() as server:
        for number, gateway in enumerate(gateways, 1):
            app = web.Application()
            app.add_routes([web.get("/demand", gateway.serve)])
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, f"127.0.0.{number}", port).start()
            port = runner.addresses[0][1]
            runners.append(runner)
            metadata = {"name": f"gateway-{number}", "labels": {"sessionpools.dev/gateway": "active"}}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "c"}]}}
            server.store.create(PODS, body, "home")
            server.store.edit(PODS, f"gateway-{number}", {"status": {"podIP": f"127.0.0.{number}"}}, "home")
        feed = DemandFeed(await server.connect(), "home", SELECTOR, changes.append, port)
        task = asyncio.create_task(feed.run())
        try:
            yield feed, changes, server
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for runner in runners:
                await runner.cleanup()


FIRST = b'{"pools":{"a":{"busy":1,"queued":2,"open":3},"b":{"busy":0,"queued":0,"open":1}}}\n'


async def test_the_first_line_makes_all_known_and_the_next_ones_change_it() -> None:
    gateway = Gateway(
        FIRST, b'{"pools":{}}\n{"pools":{"b":null}}\n{"pools":{"a":{"bu', b'sy":5,"queued":0,"open":3}}}\n'
    )
    async with followed(gateway) as (feed, changes, _):
        await until(lambda: feed.of("a") == Demand(5, 0), "the last line")
        assert feed.of("b") is None
        assert [change if change is None else set(change) for change in changes] == [None, {"b"}, {"a"}]


async def test_of_two_gateways_that_have_calls_the_sum_counts() -> None:
    async with followed(Gateway(FIRST), Gateway(FIRST)) as (feed, _, _):
        await until(lambda: feed.gateways == 2, "both")
        assert feed.of("a") == Demand(2, 4)


def with_pods(**pods: int) -> Gateway:
    demand = {"a": {"busy": 0, "queued": 0, "open": 0, "pods": pods}}
    return Gateway(json.dumps({"pools": demand}).encode() + b"\n")


async def test_of_the_session_pods_those_count_that_each_gateway_has() -> None:
    async with followed(with_pods(old=3, new=1), with_pods(old=2)) as (feed, _, _):
        await until(lambda: feed.gateways == 2, "both")
        assert feed.of("a") == Demand(0, 0, {"old": 2, "new": 0})


async def test_which_session_pods_there_are_is_not_known_while_a_gateway_of_an_earlier_version_answers() -> None:
    async with followed(with_pods(new=1), Gateway(FIRST)) as (feed, _, _):
        await until(lambda: feed.gateways == 2, "both")
        assert feed.of("a") == Demand(1, 2, None)


async def test_a_gateway_that_goes_is_forgotten() -> None:
    async with followed(Gateway(FIRST)) as (feed, changes, server):
        await until(lambda: feed.of("a"), "the demand")
        changes.clear()
        server.store.delete(PODS, "gateway-1", "home", grace=0)
        await until(lambda: feed.of("a") is None, "it is not known any more")
        assert changes == [None]


@pytest.mark.parametrize(
    "gateway",
    [
        Gateway(status=503, ends=True),
        Gateway(b"garbage\n"),
        Gateway(b'{"pools":{"a":{"busy":"x","queued":2}}}\n'),
        Gateway(b'{"pools":{"a":{"busy":1,"queued":2,"pods":[]}}}\n'),
        Gateway(b"[]\n"),
        Gateway(ends=True),
    ],
    ids=["503", "garbage", "numbers", "pods", "shape", "ends"],
)
async def test_a_gateway_that_does_not_tell_is_asked_again_and_nothing_is_known(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    async with followed(gateway) as (feed, _, _):
        await until(lambda: gateway.streams >= 3, "several tries")
        assert feed.of("a") is None
        gateway.lines, gateway.status, gateway.ends = [FIRST], 200, False
        await until(lambda: feed.of("a") == Demand(1, 2), "the demand")


async def test_a_gateway_that_falls_silent_is_not_believed_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.05)
    async with followed(Gateway(FIRST)) as (_, changes, _):
        await until(lambda: len(changes) >= 2, "known, and unknown again")
        assert changes[:2] == [None, None]
