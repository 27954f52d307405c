"""HAProxy's frontend: what becomes of a request before it has a backend. Pure text; used by config.py.

In order: its id, where it belongs by its path, the caller's token (auth.py), the web service that it names, that
service's pool. A request for the web API goes there as soon as its path says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sessionpools.gateway.answers import POOL, SERVICE, answer
from sessionpools.gateway.auth import authentication
from sessionpools.gateway.logline import MOVED, log_format, outcome_rules
from sessionpools.gateway.options import MAX_BODY_BYTES, MIB, STANDBY, SUCCESSOR, Settings
from sessionpools.gateway.paths import BAD, CALL, TOO_LONG, USAGE, WEB_API
from sessionpools.gateway.webapi import BACKEND, IS_WEB

__all__ = ["frontend"]

# Of the connections that the gateway may have: idle ones get no further, the rest is for who comes.
KEPT_PERCENT: Final = 80

# Quotes as JSON has them; the text stands in quotes of three parsers: the line's, the converter's, the replacement's.
_ESCAPED: Final = r'regsub("\"","\\\\\"",g)'


def frontend(settings: Settings, key_files: Iterable[tuple[str, Path]]) -> str:
    """`key_files`: by kid, of the keys by which tokens are verified."""
    directory = settings.directory
    tls = f" ssl crt {settings.tls_certificate} ssl-min-ver TLSv1.2 alpn http/1.1" if settings.tls_certificate else ""
    rules = [
        "http-request set-var(txn.id) req.fhdr(x-request-id)",
        "http-request set-var(txn.id) uuid() unless { var(txn.id) -m reg ^[A-Za-z0-9._-]{1,128}$ }",
        "http-request set-header X-Request-Id %[var(txn.id)]",
        f"http-request set-var(txn.call) bool(true) if {CALL}",
        *(_for_the_web_api() if settings.web else ()),
        # An answer of the gateway's own finds nothing unread, which would break the connection.
        f"http-request wait-for-body time {settings.client_seconds}s",
        *_path_rules(),
        *(authentication(settings.tokens, key_files) if settings.tokens else ()),
        *_routing(settings),
        *_holding(),
    ]
    standby = f"str({STANDBY}),map_str({directory}/pools.map)"
    after = [
        "http-after-response set-var(txn.id) uuid() unless { var(txn.id) -m found }",
        "http-after-response set-header X-Request-Id %[var(txn.id)]",
        # A process that ends (a reload, a pod's deletion) leaves idle connections open, and asks who calls on one to
        # make another. Closed by us, some would have a call on its way: 10 of 4,671 calls in six reloads, now none.
        # A gateway that lost its part to another while callers were connected sends them there in the same way.
        # Where connections become few, one that would now be idle is closed, as those who keep theirs for the next call
        # (a minute at most, config.py) must not keep others out.
        "http-after-response set-header Connection close "
        f"if {{ stopping }} || {{ {standby} -m found }} || {{ fe_conn gt {_kept_at_most(settings)} }}",
    ]
    backends = [
        *([f"use_backend {BACKEND} if {IS_WEB}"] if settings.web else ()),
        f"use_backend {SUCCESSOR} if {MOVED}",
        "use_backend %[var(txn.backend)]",
    ]
    return f"""\
frontend gateway from common
    bind {settings.bind}:{settings.port} proto h1{tls}
    bind unix@{directory}/successor.sock mode 600
    log global
    log-format '{log_format()}'
    {_lines(rules)}
    {_lines(backends)}
    {_lines([*after, *outcome_rules()])}
"""


def _kept_at_most(settings: Settings) -> int:
    """Connections, up to which an answered one stays open."""
    return settings.max_connections * KEPT_PERCENT // 100


def _for_the_web_api() -> list[str]:
    return [
        f"http-request set-var(txn.web) bool(true) if !{{ var(txn.call) -m found }} {WEB_API} !{TOO_LONG}",
        f"http-request allow if {IS_WEB}",  # the rest is for calls; the backend has rules of its own
    ]


def _path_rules() -> list[str]:
    return [
        answer(
            404,
            "PathNotFound",
            f"there is nothing at this path: a web service is called by {USAGE}",
            f"if !{{ var(txn.call) -m found }} || {TOO_LONG}",
        ),
        answer(405, "NotAllowed", f"a web service is called by {USAGE}", "if !{ method POST }", "Allow POST"),
        *(answer(400, "BadRequest", message, f"if {condition}") for message, condition in BAD),
    ]


def _routing(settings: Settings) -> list[str]:
    """From the path to the web service, its pool, and the pool's limits."""
    namespaced, plain = "{ path_beg /namespaces/ }", "{ path_beg /api/ }"
    return [
        f"http-request set-var(txn.namespace) path,field(3,/),url_dec if {namespaced}",
        f"http-request set-var(txn.service) path,field(5,/),url_dec if {namespaced}",
        f"http-request set-var(txn.version) path,field(6,/),url_dec if {namespaced}",
        f"http-request set-var(txn.namespace) str({settings.api_namespace}) if {plain}",
        f"http-request set-var(txn.service) path,field(3,/),url_dec if {plain}",
        f"http-request set-var(txn.version) path,field(4,/),url_dec if {plain}",
        "http-request set-var(txn.key64) var(txn.service),base64",
        "http-request set-var(txn.version64) var(txn.version),base64",
        'http-request set-var-fmt(txn.key) "%[var(txn.namespace)]/%[var(txn.key64)]/%[var(txn.version64)]"',
        f"http-request set-var(txn.route) var(txn.key),map_str({settings.directory}/pools.map)",
        # from here on as it stands in JSON
        *(
            f"http-request set-var(txn.{name}) 'var(txn.{name}),{_ESCAPED}' if {{ var(txn.{name}) -m sub '\"' }}"
            for name in ("namespace", "service", "version")
        ),
        answer(404, "ServiceNotFound", f"there is no {SERVICE}", "unless { var(txn.route) -m found }"),
        "http-request set-var(txn.backend) var(txn.route),field(1,|)",
        "http-request set-var(txn.pool) var(txn.route),field(6,|)",
        answer(
            503,
            "PoolNotFound",
            f"{SERVICE} has no pool: create a SessionPool with its serviceName and serviceVersion",
            "if { var(txn.backend) -m str -- - }",
        ),
        answer(
            413,
            "TooLarge",
            f"pool {POOL}: the request is larger than {MAX_BODY_BYTES // MIB} MiB",
            f"if {{ req.hdr_val(content-length) gt {MAX_BODY_BYTES} }}",
        ),
        "http-request set-var(txn.queue_max) var(txn.route),field(2,|)",
        "http-request set-var(txn.queue_seconds) var(txn.route),field(3,|)",
        "http-request set-var(txn.request_ms) var(txn.route),field(4,|)",
        "http-request set-header X-Session-Pool %[var(txn.route),field(5,|)]",
        *(f"http-request del-header {name}" for name in ("Cookie", "Expect", "Upgrade")),
    ]


def _holding() -> list[str]:
    """For a pool without an open slot (hold.lua)."""
    return [
        "http-request lua.hold if { var(txn.backend),nbsrv lt 1 } || { var(proc.held) -m int gt 0 }",
        answer(
            429,
            "QueueFull",
            f"pool {POOL} has no session ready and %[var(txn.queue_max)] calls wait for one, the most that "
            "queue.maxLength allows: try again later",
            "if { var(txn.reason) -m str queue-full }",
            "Retry-After 1",
        ),
        answer(
            503,
            "NoSession",
            f"pool {POOL} has no session ready, and got none within %[var(txn.queue_seconds)] s "
            "(queue.timeoutSeconds): the status of the SessionPool says why",
            "if { var(txn.reason) -m str no-session }",
            "Retry-After 5",
        ),
        "http-request return status 503 if { var(txn.reason) -m str client-gone }",  # nobody reads it
        # The other process verifies the token as well, and writes the line.
        f"http-request del-header Authorization unless {MOVED}",
        f"http-request set-log-level silent if {MOVED}",
    ]


def _lines(parts: Iterable[str]) -> str:
    return "\n    ".join(parts)
