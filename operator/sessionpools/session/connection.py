"""One connection of a caller: reads requests with httptools, decides what is refused unread, knows its deadline.

Never blocks and never runs user code. Called by callers.py, which owns the sockets' readiness.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any, Final

import httptools

MIB: Final = 1 << 20
MAX_BODY_BYTES: Final = 64 * MIB
LARGE_BYTES: Final = MIB  # one connection at a time may have a body above this in memory
MAX_HEAD_BYTES: Final = 64 * 1024  # what HAProxy's buffer holds; a head that is longer is no head
GRACE_SECONDS: Final = 5.0  # what a request and an answer may take, plus 1 s per MiB

_REASONS: Final = {
    200: b"OK",
    400: b"Bad Request",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    425: b"Too Early",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
BEGINNING: Final = b"HTTP/1.1 "  # of every answer, whatever it will be
_HEADS: Final = {
    status: b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: " % (status, reason)
    for status, reason in _REASONS.items()
}


def failure(message: str) -> bytes:
    """The body of an answer that did not come from the service."""
    return json.dumps(
        {
            "success": False,
            "errorMessage": message,
            "outputParameters": {},
            "consoleOutput": "",
            "changedFiles": [],
            "outputFiles": {},
        }
    ).encode()


def head(status: int, length: int, request: Request | None, close: bool, milliseconds: float | None = None) -> bytes:
    parts = _HEADS.get(status) or b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: " % status
    parts += b"%d\r\n" % length
    if milliseconds is not None:
        parts += b"Server-Timing: session;dur=%.3f\r\n" % milliseconds
    if request is not None and request.id:
        parts += b"X-Request-Id: " + request.id + b"\r\n"
    if status == 405:
        parts += b"Allow: POST\r\n"
    if close:
        parts += b"Connection: close\r\n"
    elif request is not None and request.http_1_0:
        parts += b"Connection: keep-alive\r\n"
    return parts + b"\r\n"


# Headers that matter, and the fields of a request that they fill.
_FIELDS: Final = {
    b"content-length": "length",
    b"x-request-id": "id",
    b"x-session-pool": "pool",
    b"expect": "expects",
    b"transfer-encoding": "chunked",
}


class Request:
    """What the loop needs of one request."""

    __slots__ = ("body", "chunked", "expects", "filled", "http_1_0", "id", "keep_alive", "length", "method", "pool")

    def __init__(self) -> None:
        self.id = b""
        self.pool: bytes | None = None
        self.length = 0
        self.chunked = b""
        self.expects = False
        self.method = b""
        self.http_1_0 = False
        self.keep_alive = True
        self.body: bytes | bytearray = b""
        self.filled = 0

    def take_body(self) -> bytes | bytearray:
        """Give the body away, so that who parses it can free it."""
        body, self.body = self.body, b""
        return body


class Refused(Exception):  # noqa: N818  not an error of ours
    """The request gets this answer, unread, and the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection:
    """A socket, its parser, and the requests that are complete but not yet served."""

    __slots__ = (
        "deadline",
        "events",
        "expected_pool",
        "fd",
        "head_bytes",
        "in_body",
        "lingering",
        "parser",
        "paused",
        "refusal",
        "request",
        "requests",
        "sock",
        "started",
    )

    def __init__(self, sock: socket.socket, expected_pool: bytes) -> None:
        """`expected_pool`: the uid that X-Session-Pool must name; empty for any."""
        self.sock = sock
        self.fd = sock.fileno()
        self.expected_pool = expected_pool
        self.events = select.poll()
        self.events.register(self.fd, select.POLLIN | select.POLLRDHUP)
        self.parser: Any = httptools.HttpRequestParser(self)
        self.request: Request | None = None  # being read
        self.requests: list[Request] = []
        self.in_body = False
        self.head_bytes = 0
        self.refusal: Refused | None = None
        self.started = 0.0  # monotonic seconds at the first byte of the request being read
        self.deadline = 0.0  # 0: none
        self.lingering = False  # answered and shut down; what still comes is thrown away
        self.paused = False  # waits until another connection's large body is done

    def feed(self, data: memoryview) -> None:
        """Parse what came. Raises Refused for what is not going to be read."""
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:  # after the head, whatever follows
                again = self._head_without_upgrade() + data[stop.args[0] :]
                self.parser.feed_data(again)
        except httptools.HttpParserUpgrade:
            raise Refused(400, "protocol upgrades are not supported") from None
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__cause__ or error.__context__, MemoryError):
                raise Refused(413, "MemoryError: the request does not fit into the memory of this session") from None
            raise
        except httptools.HttpParserError as error:
            raise Refused(400, f"not an HTTP request: {error}") from None
        if self.refusal is not None:
            raise self.refusal
        if self.request is not None and not self.in_body:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                raise Refused(431, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")

    def _head_without_upgrade(self) -> bytes:
        """For a new parser: the head of the request that offered another protocol, without the offer."""
        asked = self.requests.pop()
        self.parser = httptools.HttpRequestParser(self)
        top = asked.method + (b" / HTTP/1.0\r\n" if asked.http_1_0 else b" / HTTP/1.1\r\n")
        top += b"Transfer-Encoding: " + asked.chunked if asked.chunked else b"Content-Length: %d" % asked.length
        top += b"\r\nConnection: " + (b"keep-alive" if asked.keep_alive else b"close")
        if asked.expects:
            top += b"\r\nExpect: 100-continue"
        if asked.id:
            top += b"\r\nX-Request-Id: " + asked.id
        if asked.pool is not None:
            top += b"\r\nX-Session-Pool: " + asked.pool
        return top + b"\r\n\r\n"

    def gone(self) -> bool:
        """Whether the caller has closed the connection, or broken it."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def large(self) -> bool:
        request = self.request
        return request is not None and (request.length > LARGE_BYTES or request.filled > LARGE_BYTES)

    def time_allowed(self) -> float:
        """Seconds that the request being read may take in all."""
        request = self.request
        size = max(request.length, request.filled) if request is not None else 0
        return GRACE_SECONDS + size / MIB

    # --- called by the parser ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.request = Request()
        self.in_body = False
        self.head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        field = _FIELDS.get(name.lower())
        if field is None:
            return
        if field == "length":
            self.request.length = int(value)  # type: ignore[union-attr]
        elif field == "expects":
            self.request.expects = value.lower() == b"100-continue"  # type: ignore[union-attr]
        else:
            setattr(self.request, field, value)

    def on_headers_complete(self) -> None:
        request = self.request
        assert request is not None  # noqa: S101
        self.in_body = True
        request.method = self.parser.get_method()
        request.http_1_0 = self.parser.get_http_version() == "1.0"
        if request.pool is not None and self.expected_pool and pool_uid(request.pool) != self.expected_pool:
            self.refusal = Refused(425, "this session belongs to another pool")
        elif request.length > MAX_BODY_BYTES:
            self.refusal = too_large()

    def on_body(self, data: bytes) -> None:
        request = self.request
        assert request is not None  # noqa: S101
        if self.refusal is not None:
            return
        size = len(data)
        if request.filled == 0:
            if size == request.length:  # the usual case: all of it came in one piece
                request.body = data
                request.filled = size
                return
            # Room for all of it at once: a body of 63 MiB is in memory once, not twice.
            request.body = bytearray(request.length)
        body = request.body
        assert isinstance(body, bytearray)  # noqa: S101
        if request.chunked:
            if request.filled + size > MAX_BODY_BYTES:
                self.refusal = too_large()
                return
            body += data
        else:
            body[request.filled : request.filled + size] = data
        request.filled += size

    def on_message_complete(self) -> None:
        request = self.request
        assert request is not None  # noqa: S101
        request.keep_alive = self.parser.should_keep_alive()
        self.requests.append(request)
        self.request = None


def pool_uid(name: bytes) -> bytes:
    """Of "<pool uid>" or "<pool uid>/<revision>": a caller sends to all revisions of a pool alike."""
    return name.partition(b"/")[0]


def too_large() -> Refused:
    return Refused(413, f"the request is larger than {MAX_BODY_BYTES // MIB} MiB")
