"""HAProxy's complete configuration: started from these files alone it serves every pool.

Pure text; agent.py writes it (with hold.lua beside it) and applies differences through the runtime socket. The callers'
side is in frontend.py, the way to the web API in webapi.py; here is the rest.

Every answer that is made here is JSON with X-Request-Id, but for one kind: HAProxy 2.8 answers what it cannot parse as
HTTP/1.1, and a head that does not come in time, with 400 and 408 pages that are compiled in (`http-error` does not
count there; an empty `errorfile` would close without any answer). No call for a pool ever gets one of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sessionpools.gateway import webapi
from sessionpools.gateway.answers import POOL, answer, error_page, reply
from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.frontend import frontend
from sessionpools.gateway.keys import digest, file_of
from sessionpools.gateway.model import OpenSlot, Route
from sessionpools.gateway.options import (
    BUFFER_BYTES,
    MAX_BODY_BYTES,
    MIB,
    STANDBY,
    SUCCESSOR,
    Settings,
    Tokens,
    WebApi,
)

__all__ = [
    "KEYS_VARIABLE",
    "SERVER_OPTIONS",
    "STANDBY",
    "SUCCESSOR",
    "Files",
    "Settings",
    "Tokens",
    "WebApi",
    "endpoint",
    "map_entries",
    "map_value",
    "read_allocation",
    "render",
    "server_options",
]

# Also of servers that are added at run time. One request at a time is the pool's promise. An idle connection is let go
# within three purges (2 s), so that the session of a high slot, which has no connection then, can retire.
SERVER_OPTIONS: Final = "maxconn 1 pool-purge-delay 600ms"
_STOP_SECONDS: Final = 30  # what an old process gets after a reload beyond the longest wait and call
# Says which keys a running HAProxy has loaded: to read with `get var`.
KEYS_VARIABLE: Final = "proc.keys"


@dataclass(frozen=True, slots=True)
class Files:
    haproxy_cfg: str
    pools_map: str
    keys: Mapping[str, str] = field(default_factory=dict)  # by kid, PEM


def render(
    settings: Settings,
    allocation: Allocation,
    routes: Iterable[Route],
    *,
    standby: bool = False,
    keys: Mapping[str, str] | None = None,
    web: OpenSlot | None = None,
) -> Files:
    """The files that HAProxy starts from. Every route with a pool has a backend in `allocation` (backends.allocate).
    `keys`: by kid, those that verify tokens. `web`: where the web API is, as far as that is known."""
    routes = sorted(routes, key=lambda route: route.key)
    keys = (keys or {}) if settings.tokens else {}
    by_backend = {allocation.backend_of(route): route for route in routes}
    sections = [
        _global(settings, routes, keys),
        _defaults(settings),
        frontend(settings, [(kid, settings.directory / file_of(kid)) for kid in sorted(keys)]),
        _successor(settings),
        *_web(settings, web),
        *(_backend(name, uid, by_backend.get(name)) for name, uid in allocation.backends.items()),
    ]
    entries = map_entries(routes, allocation.backend_of, standby=standby)
    return Files("\n".join(sections), "".join(f"{key} {value}\n" for key, value in entries.items()), keys)


def read_allocation(haproxy_cfg: str) -> Allocation:
    """What `render` was given, from the file that it made. Raises ValueError for a backend that is not one of ours."""
    found = re.findall(r"^backend (\S+) from pool # ?(\S*)$", haproxy_cfg, re.MULTILINE)
    others = f"{SUCCESSOR}|{webapi.BACKEND}"
    if len(found) != len(re.findall(rf"^backend (?!(?:{others}) )", haproxy_cfg, re.MULTILINE)):
        raise ValueError("the configuration has backends that were not written by this program")
    return Allocation(dict(found))


def map_entries(
    routes: Iterable[Route], backend_of: Callable[[Route], str], *, standby: bool = False
) -> dict[str, str]:
    """What pools.map has, by key. `backend_of` a route: "" for none."""
    entries = {STANDBY: "yes"} if standby else {}
    return entries | {route.key: map_value(route, backend_of(route)) for route in routes}


def map_value(route: Route, backend: str) -> str:
    """The value of a route in pools.map; "-" as backend: published, no pool. Without blanks and backslashes, so that
    the runtime socket takes it as it is."""
    pool = f"{route.namespace}/{route.pool}" if route.pool else ""
    fields = (
        backend or "-",
        route.queue_length,
        route.queue_seconds,
        route.request_seconds * 1000,
        route.pool_uid,
        pool,
    )
    return "|".join(str(field) for field in fields)


def endpoint(slot: OpenSlot) -> str:
    """The form "<address>:<port>" as HAProxy wants it."""
    return f"[{slot.address}]:{slot.port}" if ":" in slot.address else f"{slot.address}:{slot.port}"


def server_options(slot: OpenSlot) -> str:
    """SERVER_OPTIONS, and what happens to a slot that a connection to has failed: no further call goes there, until its
    pod's control port (the port before slot 0's) takes connections. Only calls find that a slot is gone: the port is
    looked at once a minute while all is well, and that it fails then means nothing (`fall`)."""
    control_port = slot.port - int(slot.server.rpartition(":")[2]) - 1
    return (
        f"{SERVER_OPTIONS} check port {control_port} inter 60s downinter 300ms rise 1 fall 1000 "
        "observe layer4 error-limit 1 on-error mark-down"
    )


def _global(settings: Settings, routes: Iterable[Route], keys: Mapping[str, str]) -> str:
    directory = settings.directory
    longest = max((route.queue_seconds * 2 + route.request_seconds for route in routes), default=0)
    if settings.web:
        longest = max(longest, webapi.WEB_SECONDS)
    stdout = "    log stdout len 8192 format raw local0\n" if settings.access_log else ""
    loaded = f"    set-var {KEYS_VARIABLE} str({digest(keys)})\n" if keys else ""
    # One thread: HAProxy 2.8 with more sends a slot two requests at a time now and then.
    return f"""\
global
    nbthread 1
    maxconn {settings.max_connections}
    stats socket {directory}/admin.sock mode 600 level admin expose-fd listeners
    stats timeout 1h
    lua-load {directory}/hold.lua
    tune.bufsize {BUFFER_BYTES}
    hard-stop-after {longest + _STOP_SECONDS}s
    close-spread-time infinite
{loaded}{stdout}    log ring@requests len 8192 format raw local0

ring requests
    format raw
    maxlen 8192
    size 4194304
    timeout connect 1s
    timeout server 10s
    server agent unix@{directory}/requests.sock log-proto octet-count
"""


def _defaults(settings: Settings) -> str:
    seconds = settings.client_seconds
    body_mib = MAX_BODY_BYTES // MIB
    pages = [
        error_page(400, "BadRequest", "not an HTTP request that this gateway takes"),
        error_page(408, "BadRequest", f"the request did not arrive within {seconds} s: send it faster"),
        error_page(413, "TooLarge", f"the request is larger than {body_mib} MiB"),
        error_page(500, "InternalError", "the gateway could not process this request, the reason is in its log"),
        error_page(501, "Unsupported", "the gateway does not support what this request asks for"),
        error_page(
            502,
            "SessionDied",
            f"a session of pool {POOL} died while it answered, or before: the call was not repeated, as it may "
            "have had effects; the pool has a new session already, and the log of the session pod says why",
        ),
        error_page(
            503,
            "NoSession",
            f"pool {POOL}: no session%[srv_id,bool,iif( that could be reached,)] became free within "
            "%[var(txn.queue_seconds)] s (queue.timeoutSeconds): try again later, or raise maxPoolSize",
            "Retry-After 1",
        ),
        error_page(
            504,
            "CallTimedOut",
            f"pool {POOL}: the call was not answered within %[var(txn.request_ms),div(1000)] s and its session was "
            "ended: raise requestTimeoutSeconds of the pool if calls may take longer",
        ),
    ]
    full = answer(
        429,
        "QueueFull",
        f"pool {POOL}: all sessions are busy and %[queue] calls wait, the most that queue.maxLength "
        "allows: try again later",
        "if !{ var(txn.held_ms) -m found } { queue,sub(txn.queue_max) ge 0 } !{ be_conn_free gt 0 }",
        "Retry-After 1",
    )
    # 425 is a session's word that it is another pool's. Only a call with a large body was not sent again elsewhere.
    other_pool = "http-response return " + reply(
        503,
        "SessionReplaced",
        f"pool {POOL}: the session that this call was sent to was replaced: send it again",
        "Retry-After 1",
    )
    # A session has stopped to read: as an answer of the gateway's own this ends the upload too. HAProxy would keep the
    # slot for as long as the caller goes on sending.
    late = "http-response return " + reply(
        408,
        "BadRequest",
        f"pool {POOL}: the request did not arrive in time: a session gives a body that is larger than "
        f"{BUFFER_BYTES >> 10} kB 5 s, and 1 s more for each MiB",
    )
    too_large = "http-response return " + reply(
        413, "TooLarge", f"pool {POOL}: the request is larger than {body_mib} MiB"
    )
    return f"""\
defaults common
    mode http
    timeout connect 500ms
    timeout client {seconds}s
    timeout server 60s
    timeout queue 10s
    timeout http-request {seconds}s
    timeout http-keep-alive 60s
    retries 50
    option redispatch 1
    retry-on conn-failure empty-response 425
    option abortonclose
    option http-no-delay
    option dontlognull
    http-reuse always
    {_lines(pages)}

defaults pool from common
    balance first
    http-request set-timeout server var(txn.request_ms)
    {full}
    {other_pool} if {{ status 425 }}
    http-response set-var(txn.outcome) str(refused) if {{ status 408 413 }}
    {late} if {{ status 408 }}
    {too_large} if {{ status 413 }}
"""


def _successor(settings: Settings) -> str:
    """For calls that a process holds while a reload replaces it: the process that listens here by then."""
    return f"""\
backend {SUCCESSOR} from common
    timeout server 24h
    server gateway unix@{settings.directory}/successor.sock
"""


def _web(settings: Settings, server: OpenSlot | None) -> Iterable[str]:
    if settings.web:
        yield webapi.backend(settings.web, endpoint(server or webapi.server(settings.web)), settings.client_seconds)


def _lines(parts: Iterable[str]) -> str:
    return "\n    ".join(parts)


def _backend(name: str, pool_uid: str, route: Route | None) -> str:
    seconds = re.match(r"q(\d+)-", name)
    assert seconds is not None, name  # noqa: S101  Allocation has no other names
    lines = [f"backend {name} from pool # {pool_uid}".rstrip(), f"    timeout queue {seconds[1]}s"]
    slots = route.slots if route else ()
    lines += [f"    server {slot.server} {endpoint(slot)} id {slot.rank} {server_options(slot)}" for slot in slots]
    return "\n".join(lines) + "\n"
