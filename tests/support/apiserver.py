"""An API server in the test's own process: good enough to prove the controller, and proved itself by tests/contract.

    async with ApiServer() as server:
        api = await server.connect()            # the real client, over real HTTP
        server.store.create(NODES, make_node("worker-1"))
        server.fail("create", PODS, 500, times=3)
        server.pause_watches()

`server.store` is the cluster's other hands: what it does is neither logged nor subject to faults. It knows the kinds of
`apiserver_objects.RESOURCES`, any namespace, no schemas and no RBAC. `python -m support.apiserver` serves one alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from aiohttp import web

from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.credentials import Credentials
from support.apiserver_faults import WRITES as WRITES
from support.apiserver_faults import Break, Fault, Kind, Request
from support.apiserver_objects import Json, Refused, Resource, log_of
from support.apiserver_routes import discovery, locate
from support.apiserver_store import Store

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class ApiServer:
    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seed: int | None = None,
        bookmark_seconds: float = 0.2,  # the real one takes 60 s; tests would rather not
        port: int = 0,
    ) -> None:
        self.store = Store(clock=clock, seed=seed)
        self.requests: list[Request] = []
        self.logs: dict[tuple[str, str], str] = {}  # what a pod's container has written; by namespace and name
        self.url = ""
        self._bookmark_seconds = bookmark_seconds
        self._port = port
        self.on_write: list[Callable[[Request], object]] = []  # called with each write just before it is done
        self._faults: list[Fault] = []
        self._breaks: list[Break] = []
        self._clients: list[HttpKubeApi] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop(), on the same port with the same objects."""
        app = web.Application(client_max_size=8 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """The API server dies: connections break, further ones are refused."""
        self.store.history.cut()
        if self._runner:
            await self._runner.cleanup()

    async def connect(self, **options: Any) -> HttpKubeApi:
        """A client of it, closed with it."""
        client = await HttpKubeApi.open(Credentials.anonymous(self.url), **options)
        self._clients.append(client)
        return client

    # --- faults; verb and resource may be "*" and None; `by` is what the client's User-Agent begins with --------------

    def delay(
        self,
        verb: str,
        resource: Resource | None,
        seconds: float,
        times: float = float("inf"),
        *,
        by: str = "",
        before: bool = False,
    ) -> None:
        """Answer later: the call is done first and then waits, as a slow network does it. `before`: it is on its way
        for so long, and done then, whatever has become of who sent it."""
        self._faults.append(Fault(verb, resource, times, after=not before, seconds=seconds, by=by))

    def fail(
        self,
        verb: str,
        resource: Resource | None,
        status: int,
        times: float = 1,
        *,
        reason: str = "",
        message: str = "injected",
        after: bool = False,
        retry_after: float | None = None,
        by: str = "",
        outside: Iterable[str] = (),
    ) -> None:
        """Refuse; with status 0 break the connection. `after`: do what was asked, and lose only the answer."""
        refusal = Refused(status, reason or "Injected", message, retry_after=retry_after)
        fault = Fault(verb, resource, times, refusal=refusal, after=after, by=by, outside=frozenset(outside))
        self._faults.append(fault)

    def at_write(
        self, number: int, when: Literal["before", "after"], then: Callable[[], object], kind: Kind | None = None
    ) -> None:
        """Call `then` just before or after the `number`-th write, of `kind` if one is named, from now on is done; its
        sender gets no answer."""
        self._breaks.append(Break(kind, number, when, then))

    def freeze(self) -> None:
        """As a cache that stands still: lists are answered as of now, and watches say nothing, until they resume."""
        self.store.freeze_lists()
        self.pause_watches()

    def heal(self) -> None:
        """No more faults, watches included."""
        self._faults.clear()
        self._breaks.clear()
        self.resume_watches()

    def drop_watches(self) -> None:
        """Break the connection of every open watch."""
        self.store.history.cut()

    def fail_watches(self, status: int) -> None:
        """Every open watch is told of an ERROR, and ends."""
        self.store.history.fail(Refused(status, "Injected", "injected"))

    def pause_watches(self) -> None:
        """Nothing more is said to any watch, open or yet to come: no events, no bookmarks."""
        self.store.history.paused = True

    def mute_watches(self, *, bookmarks: bool = False) -> None:
        """The open watches tell of no change any more, nor of anything at all but for `bookmarks`, as connections of
        which nobody knows that they are dead. Those that begin later are well."""
        self.store.history.mute(bookmarks=bookmarks)

    def resume_watches(self, *, lost: bool = False) -> None:
        """Go on with what was held back; if it was `lost`, every watch ends with 410 Gone instead."""
        self.store.thaw_lists()
        self.store.history.resume(lost=lost)

    @property
    def is_heard(self) -> bool:
        """Whether nothing is held back, no request will fail or be slow, and every client can know what there is."""
        pending = any(fault.times > 0 for fault in self._faults) or any(each.left > 0 for each in self._breaks)
        return not (pending or self.store.history.paused or self.store.frozen)

    def replay(self, resource: Resource, count: int = 1) -> None:
        """Send the latest events of `resource` to its watches once more."""
        self.store.history.replay(resource, count)

    # --- the log ------------------------------------------------------------------------------------------------------

    def writes(self, resource: Resource | None = None) -> list[Request]:
        """Those to `resource`; without it, to all but Events and Leases, which are counted apart."""
        if resource is None:
            return [each for each in self.requests if each.writes]
        return [each for each in self.requests if each.verb in WRITES and each.resource == resource]

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self.store.history.subscriptions)

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        parts = [part for part in http.path.split("/") if part]
        if (discovered := discovery(parts)) is not None:
            return web.json_response(discovered)
        try:
            request = await self._read(http, parts)
        except Refused as refusal:
            return _refusal(refusal)
        self.requests.append(request)
        if request.writes:
            for told in self.on_write:
                told(request)
        for broken in [each for each in self._breaks if each.strikes(request)]:
            if broken.when == "after":
                self._do(http, request)
            broken.then()
            _cut(http)
        faults = [fault for fault in self._faults if fault.strikes(request)]
        for fault in faults:
            fault.times -= 1
        refusals = [fault.refusal for fault in faults if fault.refusal]
        answer: web.StreamResponse | None = None
        if request.verb != "watch" and all(fault.after for fault in faults):
            answer = self._do(http, request)
        if seconds := sum(fault.seconds for fault in faults):
            await asyncio.sleep(seconds)
        for injected in refusals:
            if injected.code == 0:
                _cut(http)
            answer = _refusal(injected)
        if answer is None:
            if request.verb == "watch":
                return await self._watch(http, request)
            answer = self._do(http, request)
        request.status = answer.status
        return answer

    async def _read(self, http: web.Request, parts: list[str]) -> Request:
        resource, namespace, name, subresource = locate(parts)
        verb = _VERBS.get(http.method, "get" if name else "list")
        if verb == "list" and http.query.get("watch") in ("1", "true"):
            verb = "watch"
        raw = await http.read()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            raise Refused(400, "BadRequest", "the body of the request is not JSON") from None
        agent = http.headers.get("User-Agent", "")
        return Request(time.monotonic(), verb, resource, namespace, name, subresource, agent, body)

    def _do(self, http: web.Request, request: Request) -> web.Response:
        try:
            if (request.verb, request.subresource) == ("get", "log"):
                pod = self.store.get(request.resource, request.name, request.namespace)
                text = log_of(pod, self.logs.get((request.namespace, request.name), ""), http.query)
                return web.Response(status=204) if text is None else web.Response(body=text, content_type="text/plain")
            return _json_response(self._result(http, request), 201 if request.verb == "create" else 200)
        except Refused as refusal:
            return _refusal(refusal)

    def _result(self, http: web.Request, request: Request) -> Json:
        store, resource, name, namespace = self.store, request.resource, request.name, request.namespace
        query, body, subresource = http.query, request.body, request.subresource
        match request.verb:
            case "get":
                return store.get(resource, name, namespace)
            case "list":
                return self._list(http, request)
            case "create":
                return store.create(resource, body, namespace)
            case "update":
                return store.update(resource, name, body, namespace, subresource=subresource)
            case "patch" if http.content_type == "application/merge-patch+json":
                return store.patch(resource, name, body, namespace, subresource=subresource)
            case "patch" if http.content_type == "application/apply-patch+yaml" and subresource == "status":
                return store.apply_status(resource, name, body, namespace, query.get("fieldManager", ""))
            case "delete":
                grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
                stays = store.delete(
                    resource,
                    name,
                    namespace,
                    uid=(body.get("preconditions") or {}).get("uid", ""),
                    version=(body.get("preconditions") or {}).get("resourceVersion", ""),
                    grace=None if grace is None else int(grace),
                    propagation=body.get("propagationPolicy") or query.get("propagationPolicy") or "Background",
                )
                return stays or {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            case _:
                raise Refused(415, "UnsupportedMediaType", f"the server does not do {http.method} {http.content_type}")

    def _list(self, http: web.Request, request: Request) -> Json:
        query, resource = http.query, request.resource
        items, version, token, remaining = self.store.page(
            resource,
            request.namespace or None,
            query.get("labelSelector", ""),
            query.get("fieldSelector", ""),
            int(query.get("limit") or 0),
            query.get("continue", ""),
        )
        metadata: Json = {"resourceVersion": version}
        if token:
            metadata |= {"continue": token, "remainingItemCount": remaining}
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }

    async def _watch(self, http: web.Request, request: Request) -> web.StreamResponse:
        query = http.query
        wake = asyncio.Event()
        history = self.store.history
        try:
            subscription = self.store.subscribe(
                request.resource,
                request.namespace or None,
                query.get("labelSelector", ""),
                query.get("fieldSelector", ""),
                query.get("resourceVersion", ""),
                wake.set,
            )
        except Refused as refusal:
            return _refusal(refusal)
        request.status = 200
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        try:
            await response.prepare(http)
            while True:
                wake.clear()
                lines = []
                while subscription.waiting and not subscription.cut:
                    lines.append(json.dumps(subscription.waiting.popleft(), separators=(",", ":")).encode() + b"\n")
                if lines:
                    await response.write(b"".join(lines))
                if subscription.cut:
                    _cut(http)
                if subscription.waiting:
                    continue
                left = deadline - time.monotonic()
                if subscription.closed or left <= 0:
                    return response
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), min(self._bookmark_seconds, left))
                if history.paused or subscription.silent:
                    continue
                if bookmarks and not subscription.waiting and not subscription.closed:
                    await response.write(self._bookmark(request.resource))
        except ConnectionResetError:  # the client went away
            return response
        finally:
            history.close(subscription)

    def _bookmark(self, resource: Resource) -> bytes:
        body = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(self.store.version), "creationTimestamp": None},
        }
        return json.dumps({"type": "BOOKMARK", "object": body}).encode() + b"\n"


def _json_response(body: Json, status: int) -> web.Response:
    raw = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(body=raw, status=status, content_type="application/json")


def _refusal(refusal: Refused) -> web.Response:
    response = _json_response(refusal.status(), refusal.code or 500)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = f"{refusal.retry_after:g}"
    return response


def _cut(http: web.Request) -> None:
    """Break the connection without another word."""
    if http.transport is not None:
        http.transport.abort()
    raise ConnectionResetError


async def _alone(port: int) -> None:
    async with ApiServer(port=port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_alone(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
