"""What batches post to: a real HTTP server on loopback that answers as the gateway does and counts what it was sent.

An item says how it is answered: {"n": 3} as a session would; with "ms" after a while; with "statuses" one after the
other; "drop" reads the call and closes the connection; "hold" keeps it until `release`.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from aiohttp import web


class BatchGateway:
    """`runs` counts, per "n", the calls that ran; `calls` all of them."""

    def __init__(self) -> None:
        self.runs: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()
        self.paths: set[str] = set()
        self.headers: list[Mapping[str, str]] = []  # in any case
        self.now = self.most = 0  # calls at a time
        self.held = 0
        self.refuse: tuple[int, str] | None = None  # a status and Retry-After for everybody
        self._release = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> BatchGateway:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        server: Any = site._server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self._release.set()
        await self._runner.cleanup()

    def release(self) -> None:
        """Let go of the calls that are held."""
        self._release.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        item: dict[str, Any] = await request.json()
        number = item["n"]
        self.paths.add(request.raw_path)
        self.headers.append(request.headers)
        self.calls[number] += 1
        if self.refuse:
            return _refusal(self.refuse[0], self.refuse[1])
        statuses = item.get("statuses", [200])
        status = statuses[min(self.calls[number], len(statuses)) - 1]
        if status in (429, 503):
            return _refusal(status, str(item.get("retry", "0.1")))
        self.runs[number] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if item.get("hold"):
                self.held += 1
                await self._release.wait()
            await asyncio.sleep(item.get("ms", 0) / 1000)
        finally:
            self.now -= 1
        if item.get("drop"):
            assert request.transport is not None
            request.transport.abort()
        if status != 200:
            return _refusal(status, "")
        return web.json_response(
            {
                "success": not item.get("fail"),
                "errorMessage": item.get("fail", ""),
                "outputParameters": {} if item.get("fail") else {"answer": number, "text": "x" * item.get("bytes", 0)},
                "consoleOutput": "",
                "changedFiles": sorted(item.get("files", {})),
                "outputFiles": {
                    name: None if text is None else base64.b64encode(text.encode()).decode()
                    for name, text in item.get("files", {}).items()
                },
            }
        )


def _refusal(status: int, retry_after: str) -> web.Response:
    return web.json_response(
        {"success": False, "errorMessage": f"pool demo/score: refused with {status}", "outputParameters": {}},
        status=status,
        headers={"Retry-After": retry_after} if retry_after else {},
    )
