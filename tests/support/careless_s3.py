"""An S3-compatible server that ignores the conditions of writes, as some do: the header is simply not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
URL = "s3://bucket/prefix"


@asynccontextmanager
async def careless_s3() -> AsyncIterator[dict[str, str]]:
    """The environment of who uses it as the store `URL`."""
    objects: dict[str, bytes] = {}

    async def handle(request: web.Request) -> web.Response:
        if request.method == "PUT":
            objects[request.path] = await request.read()
        elif request.method == "DELETE":
            objects.pop(request.path, None)
            return web.Response(status=204)
        elif request.path not in objects:
            return web.Response(status=404)
        data = objects[request.path]
        headers = {"ETag": f'"{hash(data)}"', "Last-Modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
        return web.Response(body=b"" if request.method == "PUT" else data, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0]
        yield ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    finally:
        await runner.cleanup()
