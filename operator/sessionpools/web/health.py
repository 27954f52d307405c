"""/livez, /readyz and /metrics on port 12804. Not for callers.

Live: the event loop turns, or there is no answer. Ready: the caches are complete and somebody could log in; that the
API server or the store is away later is no reason to take the replica out of service.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sessionpools.web.metrics import Metrics

__all__ = ["create_health_server"]


def create_health_server(metrics: Metrics, not_ready_because: Callable[[], str]) -> Starlette:
    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        reason = not_ready_because()
        return PlainTextResponse(reason or "ok", 503 if reason else 200)

    async def figures(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", figures)])
