"""What happens to every request before a route sees it, and after: its id, who makes it, how large it may be.

Authentication is here and not with the routes, so that a path without a token is refused whatever the path is; what is
open is listed here. What no handler foresaw is answered with 500 and logged under the request's id.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionpools.web.auth.audit import Caller, source_address
from sessionpools.web.auth.errors import AuthError
from sessionpools.web.errors import RETRY_SECONDS, Problem, TooLarge, Unavailable, answer, problem_of
from sessionpools.web.metrics import Metrics
from sessionpools.web.parts import Parts

__all__ = ["BODIES_BYTES_AT_MOST", "BODY_BYTES_AT_MOST", "OPEN_BODY_BYTES_AT_MOST", "OPEN_PATHS", "Edge", "is_open"]

_log = logging.getLogger(__name__)

# For logging in, for probes, for those who verify tokens, and what is the same in every installation: the description.
OPEN_PATHS: Final = frozenset(
    {"/login", "/login/refreshToken", "/health", "/.well-known/jwks.json", "/openapi.json", "/docs"}
)
_OPEN_BELOW: Final = "/docs/"
BODY_BYTES_AT_MOST: Final = 64 << 20
OPEN_BODY_BYTES_AT_MOST: Final = 64 << 10  # of who has not said who they are: a name and a password, or a token
BODIES_BYTES_AT_MOST: Final = 128 << 20  # of all that are read at a time: each is in memory until it is answered
# Content of workspaces goes to the store piece by piece, which has a limit of its own (web.store.authoring).
_STREAMED: Final = re.compile(r"/sessions/[^/]+/(workspace|files)(/.*)?")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return path in OPEN_PATHS or path.startswith(_OPEN_BELOW)


class Edge:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, parts: Parts, metrics: Metrics) -> None:
        self._app = app
        self._parts = parts
        self._metrics = metrics
        self._held = 0  # bytes of the bodies of all requests under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        peer = scope["client"][0] if scope.get("client") else ""
        address = source_address(
            peer, request.headers.get("x-forwarded-for"), by_gateway=self._parts.settings.behind_gateway
        )  # fmt: skip
        state = scope.setdefault("state", {})
        state["caller"] = Caller(address, request_id)
        status = 0
        body = _Body(_most(request.scope["path"]))

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            refusal = self._admit(request, state)
            if refusal:
                await answer(refusal)(scope, receive, sent)
            else:
                await self._app(scope, self._limited(body, receive), sent)
        except Exception:
            _log.exception("request failed", extra={"requestId": request_id, "path": request.url.path})
            if status:
                raise  # the answer has begun: all that can be done is to break it off
            problem = Problem(f"something went wrong here: the log has it under {request_id}", kind="InternalError")
            await answer(problem)(scope, receive, sent)
        finally:
            self._held -= body.read
            self._metrics.count(request.method, scope.get("route"), status, time.monotonic() - began)

    def _admit(self, request: Request, state: dict[str, object]) -> Problem | None:
        """Why the request is refused before anything of it is read."""
        path = request.scope["path"]
        if not is_open(path):
            try:
                state["principal"] = self._parts.auth.principal(request.headers.get("authorization"))
            except AuthError as error:
                return problem_of(error, request)
        length, most = request.headers.get("content-length", ""), _most(path)
        if not length.isdecimal() or most is None:
            return None
        if int(length) > most:
            return TooLarge(_too_large(most))
        if int(length) + self._held > BODIES_BYTES_AT_MOST:
            return Unavailable(_TOO_MUCH)
        return None

    def _limited(self, body: _Body, receive: Receive) -> Receive:
        most = body.most
        if most is None:
            return receive

        async def received() -> Message:
            message = await receive()
            size = len(message.get("body", b""))
            body.read += size
            self._held += size
            if body.read > most:
                raise HTTPException(413, _too_large(most))
            if self._held > BODIES_BYTES_AT_MOST:
                raise HTTPException(503, _TOO_MUCH, {"Retry-After": RETRY_SECONDS})
            return message

        return received


@dataclass(slots=True)
class _Body:
    """What is in memory of a request."""

    most: int | None  # bytes; None: it is not kept
    read: int = 0


def _most(path: str) -> int | None:
    if is_open(path):
        return OPEN_BODY_BYTES_AT_MOST
    return None if _STREAMED.fullmatch(path) else BODY_BYTES_AT_MOST


def _too_large(most: int) -> str:
    if most == OPEN_BODY_BYTES_AT_MOST:
        return f"the body is larger than {most >> 10} KiB, the most where no token is needed: send what is asked for"
    return (
        f"the body is larger than {most >> 20} MiB: put large files into a session "
        "(POST /sessions/ID/files), take a snapshot, and publish that"
    )


_TOO_MUCH: Final = "the bodies of other requests take the memory that there is for bodies: send it again in a moment"
