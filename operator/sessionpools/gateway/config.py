"""HAProxy's complete configuration: started from these files alone it serves every pool.

Pure text; agent.py writes it (with hold.lua beside it) and applies differences through the runtime socket.

Every answer that is made here is JSON with X-Request-Id, but for one kind: HAProxy 2.8 answers what it cannot parse as
HTTP/1.1, and a head that does not come in time, with 400 and 408 pages that are compiled in (`http-error` does not
count there; an empty `errorfile` would close without any answer). No call for a pool ever gets one of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionpools.gateway.answers import POOL, SERVICE, answer, error_page, reply
from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.logline import MOVED, log_format, outcome_rules
from sessionpools.gateway.model import OpenSlot, Route

__all__ = [
    "SERVER_OPTIONS",
    "STANDBY",
    "SUCCESSOR",
    "Files",
    "Settings",
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
# In pools.map while another gateway takes the callers: a route's key has two slashes.
STANDBY: Final = "standby"
SUCCESSOR: Final = "successor"  # the one backend that is no pool's
MAX_BODY_BYTES: Final = 64 << 20  # as a session's
BUFFER_BYTES: Final = 64 << 10  # a request up to this size is complete before it takes a session, and can be retried
_STOP_SECONDS: Final = 30  # what an old process gets after a reload beyond the longest wait and call


@dataclass(frozen=True, slots=True)
class Settings:
    directory: Path  # of the files and sockets; short, as a socket's path has 107 bytes at most
    port: int = 12800
    bind: str = "*"  # address; "*": all, IPv4 and IPv6
    api_namespace: str = "default"  # what ML Server's own /api/ paths mean
    tls_certificate: str = ""  # path of a PEM file with certificate and key; "": no TLS
    access_log: bool = True  # the log lines on stdout; the agent gets them in any case
    max_connections: int = 4000  # of callers; HAProxy does not start unless `ulimit -n` allows twice as many
    client_seconds: int = 10  # for a request's head and its first 64 kB, and between two pieces of what follows

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w./-]+", str(self.directory)) or len(str(self.directory)) > 80:
            raise ValueError(f"{self.directory}: HAProxy wants a path of at most 80 letters, digits, '.', '_', '-'")


@dataclass(frozen=True, slots=True)
class Files:
    haproxy_cfg: str
    pools_map: str


def render(settings: Settings, allocation: Allocation, routes: Iterable[Route], *, standby: bool = False) -> Files:
    """The files that HAProxy starts from. Every route with a pool has a backend in `allocation` (backends.allocate)."""
    routes = sorted(routes, key=lambda route: route.key)
    by_backend = {allocation.backend_of(route): route for route in routes}
    sections = [
        _global(settings, routes),
        _defaults(settings),
        _frontend(settings),
        _successor(settings),
        *(_backend(name, uid, by_backend.get(name)) for name, uid in allocation.backends.items()),
    ]
    entries = map_entries(routes, allocation.backend_of, standby=standby)
    return Files("\n".join(sections), "".join(f"{key} {value}\n" for key, value in entries.items()))


def read_allocation(haproxy_cfg: str) -> Allocation:
    """What `render` was given, from the file that it made. Raises ValueError for a backend that is not one of ours."""
    found = re.findall(r"^backend (\S+) from pool # ?(\S*)$", haproxy_cfg, re.MULTILINE)
    if len(found) != len(re.findall(rf"^backend (?!{SUCCESSOR} )", haproxy_cfg, re.MULTILINE)):
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


def _global(settings: Settings, routes: Iterable[Route]) -> str:
    directory = settings.directory
    longest = max((route.queue_seconds * 2 + route.request_seconds for route in routes), default=0)
    stdout = "    log stdout len 8192 format raw local0\n" if settings.access_log else ""
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
{stdout}    log ring@requests len 8192 format raw local0

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
    body_mib = MAX_BODY_BYTES >> 20
    pages = [
        error_page(400, "not an HTTP request that this gateway takes"),
        error_page(408, f"the request did not arrive within {seconds} s: send it faster"),
        error_page(413, f"the request is larger than {body_mib} MiB"),
        error_page(500, "the gateway could not process this request, the reason is in its log"),
        error_page(501, "the gateway does not support what this request asks for"),
        error_page(
            502,
            f"a session of pool {POOL} died while it answered, or before: the call was not repeated, as it may "
            "have had effects; the pool has a new session already, and the log of the session pod says why",
        ),
        error_page(
            503,
            f"pool {POOL}: no session%[srv_id,bool,iif( that could be reached,)] became free within "
            "%[var(txn.queue_seconds)] s (queue.timeoutSeconds): try again later, or raise maxPoolSize",
            "Retry-After 1",
        ),
        error_page(
            504,
            f"pool {POOL}: the call was not answered within %[var(txn.request_ms),div(1000)] s and its session was "
            "ended: raise requestTimeoutSeconds of the pool if calls may take longer",
        ),
    ]
    full = answer(
        429,
        f"pool {POOL}: all sessions are busy and %[queue] calls wait, the most that queue.maxLength "
        "allows: try again later",
        "if !{ var(txn.held_ms) -m found } { queue,sub(txn.queue_max) ge 0 } !{ be_conn_free gt 0 }",
        "Retry-After 1",
    )
    # 425 is a session's word that it is another pool's. Only a call with a large body was not sent again elsewhere.
    other_pool = "http-response return " + reply(
        503, f"pool {POOL}: the session that this call was sent to was replaced: send it again", "Retry-After 1"
    )
    # A session has stopped to read: as an answer of the gateway's own this ends the upload too. HAProxy would keep the
    # slot for as long as the caller goes on sending.
    late = "http-response return " + reply(
        408,
        f"pool {POOL}: the request did not arrive in time: a session gives a body that is larger than "
        f"{BUFFER_BYTES >> 10} kB 5 s, and 1 s more for each MiB",
    )
    too_large = "http-response return " + reply(413, f"pool {POOL}: the request is larger than {body_mib} MiB")
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


# Bytes that are not UTF-8. What is not allowed is looked for, as a repeated group would need stack for each character.
_NOT_UTF8: Final = (
    r"[\xc0\xc1\xf5-\xff]|[\xc2-\xdf](?![\x80-\xbf])|\xe0(?![\xa0-\xbf][\x80-\xbf])|[\xe1-\xec\xee\xef](?![\x80-\xbf]{2})"
    r"|\xed(?![\x80-\x9f][\x80-\xbf])|\xf0(?![\x90-\xbf][\x80-\xbf]{2})|[\xf1-\xf3](?![\x80-\xbf]{3})"
    r"|\xf4(?![\x80-\x8f][\x80-\xbf]{2})|(?<![\x80-\xff])[\x80-\xbf]|[\xc2-\xdf][\x80-\xbf]{2}|[\xe0-\xef][\x80-\xbf]{3}"
    r"|[\xf0-\xf4][\x80-\xbf]{4}"
)
# Quotes as JSON has them; the text stands in quotes of three parsers: the line's, the converter's, the replacement's.
_ESCAPED: Final = r'regsub("\"","\\\\\"",g)'


def _frontend(settings: Settings) -> str:
    directory = settings.directory
    tls = f" ssl crt {settings.tls_certificate} ssl-min-ver TLSv1.2 alpn http/1.1" if settings.tls_certificate else ""
    usage = "POST /api/NAME/VERSION or POST /namespaces/NAMESPACE/api/NAME/VERSION"
    body_mib = MAX_BODY_BYTES >> 20
    namespaced, plain = "{ path_beg /namespaces/ }", "{ path_beg /api/ }"
    rules = [
        "http-request set-var(txn.id) req.fhdr(x-request-id)",
        "http-request set-var(txn.id) uuid() unless { var(txn.id) -m reg ^[A-Za-z0-9._-]{1,128}$ }",
        "http-request set-header X-Request-Id %[var(txn.id)]",
        answer(
            404,
            f"there is nothing at this path: a web service is called by {usage}",
            "if !{ path_reg ^(/namespaces/[^/]+)?/api/[^/]+/[^/]+$ } || { path,length gt 4096 }",
        ),
        answer(405, f"a web service is called by {usage}", "if !{ method POST }", "Allow POST"),
        answer(
            400,
            "the path has an encoded slash, backslash or control character, or an incomplete percent encoding",
            r"if { path_sub % } { path_reg -i '%(2f|5c|[01][0-9a-f]|7f|(?![0-9a-f]{2}))' } || { path_sub \\ }",
        ),
        answer(
            400,
            "the path is not UTF-8",
            f"if {{ path_sub % }} {{ path,url_dec -m reg '{_NOT_UTF8}' }}",
        ),
        f"http-request set-var(txn.namespace) path,field(3,/),url_dec if {namespaced}",
        f"http-request set-var(txn.service) path,field(5,/),url_dec if {namespaced}",
        f"http-request set-var(txn.version) path,field(6,/),url_dec if {namespaced}",
        f"http-request set-var(txn.namespace) str({settings.api_namespace}) if {plain}",
        f"http-request set-var(txn.service) path,field(3,/),url_dec if {plain}",
        f"http-request set-var(txn.version) path,field(4,/),url_dec if {plain}",
        "http-request set-var(txn.key64) var(txn.service),base64",
        "http-request set-var(txn.version64) var(txn.version),base64",
        'http-request set-var-fmt(txn.key) "%[var(txn.namespace)]/%[var(txn.key64)]/%[var(txn.version64)]"',
        f"http-request set-var(txn.route) var(txn.key),map_str({directory}/pools.map)",
        # from here on as it stands in JSON
        *(
            f"http-request set-var(txn.{name}) 'var(txn.{name}),{_ESCAPED}' if {{ var(txn.{name}) -m sub '\"' }}"
            for name in ("namespace", "service", "version")
        ),
        answer(404, f"there is no {SERVICE}", "unless { var(txn.route) -m found }"),
        "http-request set-var(txn.backend) var(txn.route),field(1,|)",
        "http-request set-var(txn.pool) var(txn.route),field(6,|)",
        answer(
            503,
            f"{SERVICE} has no pool: create a SessionPool with its serviceName and serviceVersion",
            "if { var(txn.backend) -m str -- - }",
        ),
        answer(
            413,
            f"pool {POOL}: the request is larger than {body_mib} MiB",
            f"if {{ req.hdr_val(content-length) gt {MAX_BODY_BYTES} }}",
        ),
        "http-request set-var(txn.queue_max) var(txn.route),field(2,|)",
        "http-request set-var(txn.queue_seconds) var(txn.route),field(3,|)",
        "http-request set-var(txn.request_ms) var(txn.route),field(4,|)",
        "http-request set-header X-Session-Pool %[var(txn.route),field(5,|)]",
        *(f"http-request del-header {name}" for name in ("Authorization", "Cookie", "Expect", "Upgrade")),
        "http-request lua.hold if { var(txn.backend),nbsrv lt 1 } || { var(proc.held) -m int gt 0 }",
        answer(
            429,
            f"pool {POOL} has no session ready and %[var(txn.queue_max)] calls wait for one, the most that "
            "queue.maxLength allows: try again later",
            "if { var(txn.reason) -m str queue-full }",
            "Retry-After 1",
        ),
        answer(
            503,
            f"pool {POOL} has no session ready, and got none within %[var(txn.queue_seconds)] s "
            "(queue.timeoutSeconds): the status of the SessionPool says why",
            "if { var(txn.reason) -m str no-session }",
            "Retry-After 5",
        ),
        "http-request return status 503 if { var(txn.reason) -m str client-gone }",  # nobody reads it
        f"http-request set-log-level silent if {MOVED}",  # the other process writes the line
        f"use_backend {SUCCESSOR} if {MOVED}",
        "use_backend %[var(txn.backend)]",
    ]
    standby = f"str({STANDBY}),map_str({directory}/pools.map)"
    after = [
        "http-after-response set-var(txn.id) uuid() unless { var(txn.id) -m found }",
        "http-after-response set-header X-Request-Id %[var(txn.id)]",
        # A process that ends (a reload, a pod's deletion) leaves idle connections open, and asks who calls on one to
        # make another. Closed by us, some would have a call on its way: 10 of 4,671 calls in six reloads, now none.
        # A gateway that lost its part to another while callers were connected sends them there in the same way.
        f"http-after-response set-header Connection close if {{ stopping }} || {{ {standby} -m found }}",
    ]
    return f"""\
frontend gateway from common
    bind {settings.bind}:{settings.port} proto h1{tls}
    bind unix@{directory}/successor.sock mode 600
    option http-buffer-request
    log global
    log-format '{log_format()}'
    {_lines(rules)}
    {_lines([*after, *outcome_rules()])}
"""


def _successor(settings: Settings) -> str:
    """For calls that a process holds while a reload replaces it: the process that listens here by then."""
    return f"""\
backend {SUCCESSOR} from common
    timeout server 24h
    server gateway unix@{settings.directory}/successor.sock
"""


def _lines(parts: Iterable[str]) -> str:
    return "\n    ".join(parts)


def _backend(name: str, pool_uid: str, route: Route | None) -> str:
    seconds = re.match(r"q(\d+)-", name)
    assert seconds is not None, name  # noqa: S101  Allocation has no other names
    lines = [f"backend {name} from pool # {pool_uid}".rstrip(), f"    timeout queue {seconds[1]}s"]
    slots = route.slots if route else ()
    lines += [f"    server {slot.server} {endpoint(slot)} id {slot.rank} {server_options(slot)}" for slot in slots]
    return "\n".join(lines) + "\n"
