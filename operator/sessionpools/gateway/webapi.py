"""The way to the web API: HAProxy's backend for it. Pure text; used by config.py, frontend.py and logline.py.

Requests are passed on as they come, Authorization included: the web API itself says who may do what, and what its paths
mean. It is one server, the address of its Service. The agent looks the name up (lookup.py) and tells HAProxy when it
has changed: HAProxy's own resolvers know no search domains, hold a start up while a name server is away, and have
nothing to go by for some milliseconds after each reload. Until the name was found there is an address at which nobody
answers, so that calls, which need no web API, are served from the first moment.

An idle connection to it is not kept: one that it closes as the next request comes would cost that request its answer.
"""

from __future__ import annotations

import re
from typing import Final

from sessionpools.gateway.answers import rest_answer, rest_page
from sessionpools.gateway.model import OpenSlot
from sessionpools.gateway.options import BUFFER_BYTES, MIB, WebApi
from sessionpools.gateway.paths import BAD

__all__ = ["BACKEND", "IS_WEB", "SERVER", "WEB_SECONDS", "backend", "read_address", "server"]

BACKEND: Final = "web"
SERVER: Final = "web"
IS_WEB: Final = "{ var(txn.web) -m found }"
WEB_SECONDS: Final = 300  # for an answer once all was sent: a large upload goes on to an object store meanwhile
_NOWHERE: Final = ("127.0.0.1", 1)  # no address is known yet
_RETRIES: Final = 2  # of connections, half a second apart: its pod may be replaced just now


def server(web: WebApi, address: str = "") -> OpenSlot:
    """Where requests go, given what its name means now ("": not known)."""
    found, port = (address, web.port) if address else _NOWHERE
    return OpenSlot(SERVER, found, port, 1)


def backend(web: WebApi, endpoint: str, client_seconds: int) -> str:
    """`endpoint`: of `server`, as HAProxy wants it. `client_seconds`: for a request of one buffer, and between two
    pieces of a larger one."""
    rules = [
        *(rest_answer(400, "BadRequest", message, f"if {condition}") for message, condition in BAD),
        rest_answer(
            413,
            "TooLarge",
            f"the request is larger than {web.max_body_mib} MiB (SESSIONPOOLS_WEB_MAX_BODY_MIB of the gateway)",
            f"if {{ req.hdr_val(content-length) gt {web.max_body_mib * MIB} }}",
        ),
        # So that an answer of the gateway's own finds nothing unread, which would break the connection.
        f"http-request wait-for-body time {client_seconds}s if {{ req.hdr_val(content-length) le {BUFFER_BYTES} }}",
        *(f"http-request del-header {name}" for name in ("Upgrade", "Forwarded", "X-Real-Ip")),
        "http-request del-header X-Forwarded- -m beg",
        "http-request set-header X-Forwarded-For %[src]",
        "http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]",
    ]
    away = "cannot be reached: try again later; calls of web services are answered all the same"
    unsure = "look whether the request was carried out"
    stopped = f"the request came to a stop for {client_seconds} s"
    pages = [
        rest_page(400, "BadRequest", f"{stopped}, or is not as HTTP wants it: send it again"),
        rest_page(408, "BadRequest", f"{stopped}: send it again"),
        rest_page(500, "InternalError", "the gateway could not process this request, the reason is in its log"),
        rest_page(502, "Unavailable", f"the web API ({web}) broke off its answer: {unsure}"),
        rest_page(503, "Unavailable", f"the web API ({web}) {away}", "Retry-After 5"),
        rest_page(504, "Unavailable", f"the web API ({web}) did not answer within {WEB_SECONDS} s: {unsure}"),
    ]
    lines = "\n    ".join([*rules, *pages])
    return f"""\
backend {BACKEND} from common
    timeout server {WEB_SECONDS}s
    retries {_RETRIES}
    retry-on conn-failure
    option http-server-close
    {lines}
    server {SERVER} {endpoint}
"""


def read_address(haproxy_cfg: str, web: WebApi) -> str:
    """The address that `backend` was given; "" if none was known, or it was for another port."""
    found = re.search(rf"^    server {SERVER} \[?([0-9A-Fa-f.:]+?)\]?:{web.port}$", haproxy_cfg, re.MULTILINE)
    return found[1] if found else ""
