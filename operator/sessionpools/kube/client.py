"""`KubeApi` over HTTP: the only module that sends bytes to the API server. Made by `connect`.

Thin on purpose: dicts in, dicts out, no models (docs/decisions/2026-11-22-kubernetes-client.md). What it adds to HTTP:

- a time limit on every call, and on the silence of a watch;
- reads are tried again after connection failures and 5xx; any call after 429, which says that nothing was done, and
  after a connection that could not be made. A write whose answer was lost is never sent twice: its caller reads first.
  No deletion is tried again: what was of no use when it was decided may be by then. (aiohttp itself sends one again,
  at once, if a kept connection turns out to be broken, as RFC 9110, 9.2.2, has it; the UID in it guards the rest);
- 401 reads the credentials again, once;
- at most 16 writes at a time: a pool of thousands must not crowd everyone else out of the API server;
- `may_write` is asked right before each write is sent, which may be long after it was asked for: behind other writes,
  after a 429. Who no longer leads sends none;
- every failure is a `KubeError` whose message names the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import metadata
from types import MappingProxyType
from typing import Final, TypeVar

import aiohttp
import orjson

from sessionpools.kube.answers import error_of, failures_as_kube_errors, lines_of, not_started
from sessionpools.kube.credentials import Credentials
from sessionpools.kube.protocol import (
    PODS,
    Invalid,
    Json,
    KubeApi,
    KubeError,
    NotLeading,
    Resource,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    WatchEvent,
    error_from_status,
)

WRITES_IN_FLIGHT: Final = 16
CALL_TIMEOUT_SECONDS: Final = 30.0  # the API server gives up on a request of its own after 60 s
CONNECT_TIMEOUT_SECONDS: Final = 10.0
# The API server sends a bookmark about every 60 s, but promises none. A watch that is silent for longer may be a
# connection that nobody told us is gone (a NAT table, a failed-over load balancer), so it is ended: to begin it again
# where it was costs one request, and shows.
WATCH_SILENCE_SECONDS: Final = 90.0
KEEP_ALIVE_SECONDS: Final = 60.0  # the API server closes idle connections after 90 s; we must be first
ATTEMPTS: Final = 4
BACKOFF_SECONDS: Final = 0.2  # doubled for each attempt, with jitter
RETRY_AFTER_AT_MOST_SECONDS: Final = 10.0  # asked to wait longer, the caller's queue is the better place to wait

_READS: Final = frozenset({"get", "list"})
_WRITES: Final = frozenset({"create", "delete", "patch", "update"})
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"  # JSON is YAML
# The least that the API server answers with; of a pod about half.
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_TEXT: Final = "application/json, */*"  # of a log; errors are JSON

T = TypeVar("T")
# verb, resource, status (0: no answer), seconds
Observe = Callable[[str, Resource, int, float], None]


async def connect(
    context: str | None = None,
    *,
    kubeconfig: str | None = None,
    component: str = "session-pools-controller",
    observe: Observe = lambda *_: None,
    may_write: Callable[[], bool] = lambda: True,
) -> KubeApi:
    """A client for the cluster that this pod runs in, or that the kubeconfig (its `context`) names."""
    return await HttpKubeApi.open(
        Credentials.discover(context, kubeconfig), component=component, observe=observe, may_write=may_write
    )


class HttpKubeApi:
    """The client. Belongs to the event loop that opened it; `close()` it there."""

    def __init__(
        self,
        credentials: Credentials,
        http: aiohttp.ClientSession,
        *,
        observe: Observe,
        may_write: Callable[[], bool],
        watch_silence_seconds: float,
        call_timeout_seconds: float,
        rng: random.Random,
    ) -> None:
        self._credentials = credentials
        self._http = http
        self._observe = observe
        self._may_write = may_write
        self._silence = watch_silence_seconds
        self._timeout = aiohttp.ClientTimeout(total=call_timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)
        self._rng = rng
        self._writes = asyncio.Semaphore(WRITES_IN_FLIGHT)

    @classmethod
    async def open(
        cls,
        credentials: Credentials,
        *,
        component: str = "session-pools-controller",
        observe: Observe = lambda *_: None,
        may_write: Callable[[], bool] = lambda: True,
        watch_silence_seconds: float = WATCH_SILENCE_SECONDS,
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        rng: random.Random | None = None,
    ) -> HttpKubeApi:
        await credentials.load()
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            # No compression: the API server would spend more on gzip than the network inside a cluster costs.
            headers={"User-Agent": user_agent(component), "Accept": _JSON, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return cls(
            credentials,
            http,
            observe=observe,
            may_write=may_write,
            watch_silence_seconds=watch_silence_seconds,
            call_timeout_seconds=call_timeout_seconds,
            rng=rng or random.Random(),  # noqa: S311  jitter
        )

    async def close(self) -> None:
        await self._http.close()

    # --- KubeApi ----------------------------------------------------------------------------------------------------

    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Json:
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit),
            **{"continue": continue_token},
        )
        return await self._call("list", "GET", resource, resource.path(namespace), query)

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        return await self._call("get", "GET", resource, resource.path(namespace, name))

    async def create(
        self, resource: Resource, body: Json, *, namespace: str | None = None, unseen: bool = False
    ) -> Json:
        return await self._call("create", "POST", resource, resource.path(namespace), body=body, unseen=unseen)

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str = "",
        version: str = "",
        grace_period_seconds: int | None = None,
        propagation: str = "Background",
    ) -> None:
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if conditions := _query(uid=uid, resourceVersion=version):
            options["preconditions"] = conditions
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        await self._call("delete", "DELETE", resource, resource.path(namespace, name), body=options)

    async def merge_patch(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        where = resource.path(namespace, name)
        return await self._call("patch", "PATCH", resource, where, body=body, content_type=_MERGE_PATCH)

    async def update(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        where = resource.path(namespace, body["metadata"]["name"])
        return await self._call("update", "PUT", resource, where, body=body)

    async def apply_status(
        self, resource: Resource, name: str, body: Json, *, namespace: str | None = None, field_manager: str
    ) -> Json:
        identity = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
        return await self._call(
            "patch",
            "PATCH",
            resource,
            resource.path(namespace, name, "status"),
            _query(fieldManager=field_manager, force="true"),
            body=identity | body,
            content_type=_APPLY_PATCH,
        )

    async def log(self, pod: str, container: str, *, namespace: str, lines: int, limit_bytes: int) -> bytes:
        where = PODS.path(namespace, pod, "log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(limit_bytes)}
        try:
            return await self._answered("get", "GET", PODS, where, query, None, {"Accept": _TEXT}, bytes)
        except Invalid as error:
            if not_started(error):
                return b""
            raise

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        query = _query(
            watch="1",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(timeout_seconds),
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        path = resource.path(namespace)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=self._silence)
        with failures_as_kube_errors("WATCH", path):
            async with asyncio.timeout(self._timeout.total):
                response = await self._admitted("watch", "GET", resource, path, query, timeout=timeout)
            async with response:
                async for line in lines_of(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise error_from_status(event["object"])
                    yield WatchEvent(event["type"], event["object"])

    # --- one call ---------------------------------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Json | None = None,
        content_type: str = _JSON,
        unseen: bool = False,
    ) -> Json:
        payload = None if body is None else orjson.dumps(body)
        headers = ({} if body is None else {"Content-Type": content_type}) | ({"Accept": _METADATA} if unseen else {})
        read = _nothing if unseen else _json
        return await self._answered(verb, method, resource, path, query or {}, payload, headers, read)

    async def _answered(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        payload: bytes | None,
        headers: Mapping[str, str],
        read: Callable[[bytes], T],
    ) -> T:
        """Do it, within the limits and with the retries that the module's docstring promises; what `read` makes of the
        answer."""
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._writes if verb in _WRITES else contextlib.nullcontext():
                    return await self._once(verb, method, resource, path, query, payload, headers, read)
            except KubeError as error:
                delay = self._delay_before_retry(error, verb, attempt)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    def _delay_before_retry(self, error: KubeError, verb: str, attempt: int) -> float | None:
        if attempt >= ATTEMPTS or verb == "delete":
            return None
        backoff = BACKOFF_SECONDS * 2.0 ** (attempt - 1) * self._rng.uniform(0.5, 1.5)
        if isinstance(error, TooManyRequests):
            return max(error.retry_after, backoff) if error.retry_after <= RETRY_AFTER_AT_MOST_SECONDS else None
        not_sent = isinstance(error.__cause__, aiohttp.ClientConnectorError)
        if not_sent or (verb in _READS and isinstance(error, Unreachable | ServerError)):
            return backoff
        return None

    async def _once(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        payload: bytes | None,
        headers: Mapping[str, str],
        read: Callable[[bytes], T],
    ) -> T:
        with failures_as_kube_errors(method, path):
            async with await self._admitted(
                verb, method, resource, path, query, payload, headers, timeout=self._timeout
            ) as response:
                return read(await response.read())

    async def _admitted(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        payload: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's, which tells connecting, reading and all apart
    ) -> aiohttp.ClientResponse:
        """Send it; the answer's head, which is a success, or the error that it is. 401 renews the credentials once."""
        used = self._credentials.authorization()
        while True:
            if verb in _WRITES and not self._may_write():
                raise NotLeading(f"{method} {path}: not sent, as this process does not lead")
            began = time.monotonic()
            status = 0
            try:
                response = await self._http.request(
                    method,
                    self._credentials.url + path,
                    params=query,
                    data=payload,
                    headers={**headers, "Authorization": used} if used else headers,
                    timeout=timeout,
                    ssl=self._credentials.ssl,
                    server_hostname=self._credentials.server_name,
                    proxy=self._credentials.proxy,
                    allow_redirects=False,
                )
                status = response.status
            finally:
                self._observe(verb, resource, status, time.monotonic() - began)
            if status < 300:
                return response
            async with response:
                error = error_of(status, await response.read(), response.headers.get("Retry-After", ""), resource)
            if isinstance(error, Unauthorized) and await self._credentials.renew(used):
                used = self._credentials.authorization()
                continue
            raise error


def user_agent(component: str) -> str:
    try:
        return f"{component}/{metadata.version('session-pools')}"
    except metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return f"{component}/0"


def _json(content: bytes) -> Json:
    answer: Json = orjson.loads(content)
    return answer


def _nothing(_: bytes) -> Json:
    return {}


def _query(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}
