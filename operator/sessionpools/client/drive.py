"""Carries flows out: with an httpx.Client, blocking; with an httpx.AsyncClient, awaiting.

The only place of the client that waits or sends.
"""

import asyncio
import functools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import httpx

from sessionpools.client.errors import AnswerTimeout, ConnectionFailed, SessionPoolsError, TransportError
from sessionpools.client.exchange import Clock, Effect, Exclusively, Flow, Send, Sleep
from sessionpools.client.wire import Request, Response, Timeout

__all__ = ["CLOCK", "AsyncDriver", "Driver", "Runs", "RunsAwaited", "awaiting", "blocking"]

P = ParamSpec("P")
T = TypeVar("T")

CLOCK: Final = Clock(time.time, time.monotonic, random.random)
_UNCONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Driver:
    """Blocking; its threads share connections and token."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._http = httpx.Client(base_url=url, headers=_HEADERS, **settings)
        self._lock = threading.Lock()

    def run(self, flow: Flow[T]) -> T:
        value: Any = None
        error: SessionPoolsError | None = None
        try:
            while True:
                try:
                    effect = flow.send(value) if error is None else flow.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                value = error = None
                try:
                    value = self._do(effect)
                except SessionPoolsError as raised:
                    error = raised
        finally:
            flow.close()

    def close(self) -> None:
        self._http.close()

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request, token):
                return self._send(request, token)
            case Sleep(seconds):
                return time.sleep(seconds)
            case Exclusively(flow):
                with self._lock:
                    return self.run(flow)

    def _send(self, request: Request, token: str | None) -> Response:
        try:
            return _response(self._http.send(_built(self._http, request, token)), request)
        except httpx.TransportError as error:
            raise _transport_error(request, self._http.base_url, error) from error


class AsyncDriver:
    """Awaiting; its tasks share connections and token. Belongs to one event loop."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=_HEADERS, **settings)
        self._lock = asyncio.Lock()

    async def run(self, flow: Flow[T]) -> T:
        value: Any = None
        error: SessionPoolsError | None = None
        try:
            while True:
                try:
                    effect = flow.send(value) if error is None else flow.throw(error)
                except StopIteration as end:
                    result: T = end.value
                    return result
                value = error = None
                try:
                    value = await self._do(effect)
                except SessionPoolsError as raised:
                    error = raised
        finally:
            flow.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request, token):
                return await self._send(request, token)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Exclusively(flow):
                async with self._lock:
                    return await self.run(flow)

    async def _send(self, request: Request, token: str | None) -> Response:
        try:
            return _response(await self._http.send(_built(self._http, request, token)), request)
        except httpx.TransportError as error:
            raise _transport_error(request, self._http.base_url, error) from error


# --- a method of a client out of a method that is a flow ------------------------------------------------------------


class Runs(Protocol):
    """A part of the blocking client: flows and who carries them out."""

    _flows: Any
    _driver: Driver


class RunsAwaited(Protocol):
    _flows: Any
    _driver: AsyncDriver


def blocking(flow: Callable[Concatenate[Any, P], Flow[T]]) -> Callable[Concatenate[Runs, P], T]:
    """The method that carries this flow out: same parameters, same documentation, and its result."""

    @functools.wraps(flow)
    def method(self: Runs, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.run(flow(self._flows, *args, **kwargs))

    return method


def awaiting(flow: Callable[Concatenate[Any, P], Flow[T]]) -> Callable[Concatenate[RunsAwaited, P], Awaitable[T]]:
    """As blocking, to be awaited."""

    @functools.wraps(flow)
    async def method(self: RunsAwaited, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.run(flow(self._flows, *args, **kwargs))

    return method


# --- httpx ----------------------------------------------------------------------------------------------------------

_HEADERS: Final = {"user-agent": "session-pools-client", "accept": "application/json"}


def _built(http: httpx.Client | httpx.AsyncClient, request: Request, token: str | None) -> httpx.Request:
    headers = {}
    if request.content_type:
        headers["content-type"] = request.content_type
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return http.build_request(
        request.method,
        request.path,
        params=dict(request.params) or None,
        content=request.body or None,
        headers=headers,
        timeout=_timeout(request.timeout),
    )


def _timeout(timeout: Timeout) -> httpx.Timeout:
    return httpx.Timeout(timeout.answer, connect=timeout.connect)


def _response(answer: httpx.Response, request: Request) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status_code, answer.reason_phrase, headers, answer.content, request)


def _transport_error(request: Request, url: httpx.URL, error: httpx.TransportError) -> TransportError:
    why = str(error) or type(error).__name__
    if isinstance(error, _UNCONNECTED):
        return ConnectionFailed(f"{request}: no connection to {url}: {why}: is the address right, and is it running?")
    if isinstance(error, httpx.TimeoutException):
        seconds = request.timeout.answer
        return AnswerTimeout(f"{request}: {url} has not answered for {seconds:g} s: it may have done it nevertheless")
    return AnswerTimeout(f"{request}: the connection to {url} broke: {why}: it may have been done nevertheless")
