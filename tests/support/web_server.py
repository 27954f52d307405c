"""The web API as it is served: real HTTP on loopback, from a thread with an event loop of its own.

For callers that block: schemathesis, `requests`, Microsoft's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from sessionpools.web.__main__ import Server
from support.web import WebWorld


@dataclass(frozen=True)
class Served:
    url: str
    token: str  # an Owner's
    world: WebWorld  # of another thread: look, do not touch


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    listening = socket.create_server(("127.0.0.1", 0))
    ready, end = threading.Event(), asyncio.Event()
    made: list[tuple[WebWorld, asyncio.AbstractEventLoop, str]] = []

    async def run() -> None:
        async with WebWorld(folder) as world:
            config = uvicorn.Config(world.app, lifespan="off", log_config=None, access_log=False, ws="none")
            server = Server(config)
            serving = asyncio.create_task(server.serve([listening]))
            token = world.client().headers["Authorization"].removeprefix("Bearer ")
            made.append((world, asyncio.get_running_loop(), token))
            ready.set()
            await end.wait()
            server.should_exit = True
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(30), "the web API does not start"
    world, loop, token = made[0]
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", token, world)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        assert not thread.is_alive(), "the web API does not end"
