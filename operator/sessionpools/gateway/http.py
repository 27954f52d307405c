"""What a gateway pod says of itself, on port 12801: /livez, /readyz, /metrics and /demand. Not for callers.

Live: the agent's event loop turns; HAProxy's own liveness is its container's probe. Ready: HAProxy was given what the
cluster says, once; that the API server is away later is no reason to take the gateway out of service.
`/demand` is the demand of each pool, `/demand?watch` a stream of lines, one for each change (demand.py has the form);
503 while HAProxy does not answer.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sessionpools.gateway.demand import DemandSource

__all__ = ["PORT", "Health", "serve"]

PORT: Final = 12801
STUCK_LOOP_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    heartbeat: Callable[[], float]  # time.monotonic when the event loop last turned
    not_ready_because: Callable[[], str]  # "" when ready


async def serve(
    health: Health,
    demand: DemandSource,
    requests: Callable[[], bytes],
    registry: CollectorRegistry,
    port: int = PORT,
    host: str | None = None,
) -> web.AppRunner:
    """Starts the server; the caller cleans the runner up. /metrics is what `requests` gives (Prometheus' text format)
    and the registry."""

    async def livez(_: web.Request) -> web.Response:
        stuck = time.monotonic() - health.heartbeat()
        if stuck > STUCK_LOOP_SECONDS:
            return web.Response(status=500, text=f"the event loop has not turned for {stuck:.0f} s")
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        reason = health.not_ready_because()
        return web.Response(status=503 if reason else 200, text=reason or "ok")

    async def metrics(_: web.Request) -> web.Response:
        body = requests() + generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def offer(request: web.Request) -> web.StreamResponse:
        snapshot = demand.snapshot()
        if snapshot is None:
            return web.Response(status=503, text="HAProxy does not answer")
        if "watch" not in request.query:
            return web.Response(body=snapshot, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl", "Cache-Control": "no-store"})
        await response.prepare(request)
        # A watcher that does not read any more is noticed by TCP; till then its lines wait in `write`, not in memory.
        async with contextlib.aclosing(demand.watch()) as lines:
            async for line in lines:
                try:
                    await response.write(line)
                except ConnectionResetError:
                    break
        return response

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/demand", offer),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
