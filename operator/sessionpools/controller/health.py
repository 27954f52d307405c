"""/livez, /readyz and /metrics.

Live: the event loop turns, no reconciliation hangs, and the API server was heard of lately by every reflector (a watch
sends bookmarks about each minute). While the API server is away a restart would not help, so only a long silence
counts, and reconciliations end by themselves. Ready: the caches are complete, whether it leads or stands by.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sessionpools.controller.metrics import Metrics

__all__ = ["Health", "serve"]

STUCK_LOOP_SECONDS = 60.0
STUCK_WORK_SECONDS = 180.0  # a reconciliation is ended after 150 s (controller.queue)
# Far longer than an API server's upgrade: a restart in the middle of one only costs the cache.
SILENT_API_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Health:
    heartbeat: Callable[[], float]  # time.monotonic when the event loop last turned
    api_last_seen: Callable[[], float]  # time.monotonic
    synced: Callable[[], bool]
    stuck_seconds: Callable[[], float]  # of reconciliations

    def dead_because(self) -> str:
        """ "" while the controller is live."""
        stuck = time.monotonic() - self.heartbeat()
        if self.synced() and stuck > STUCK_LOOP_SECONDS:
            return f"the event loop has not turned for {stuck:.0f} s"
        hangs = self.stuck_seconds()
        if hangs > STUCK_WORK_SECONDS:
            return f"reconciliations have hung for {hangs:.0f} s"
        silent = time.monotonic() - self.api_last_seen()
        if self.synced() and silent > SILENT_API_SECONDS:
            return f"the API server was not heard of for {silent:.0f} s"
        return ""


async def serve(health: Health, metrics: Metrics, port: int) -> web.AppRunner:
    """Starts the server; the caller cleans the runner up."""

    async def livez(_: web.Request) -> web.Response:
        dead = health.dead_because()
        return web.Response(status=500 if dead else 200, text=dead or "ok")

    async def readyz(_: web.Request) -> web.Response:
        return (
            web.Response(status=200, text="ok")
            if health.synced()
            else web.Response(status=503, text="caches are filling")
        )

    async def scrape(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
