"""The client of all measures: HTTP/1.1 with keep-alive over a plain socket, with as little of its own time as can be.

It understands what the measured servers send (Content-Length, no chunks) and raises for everything else. One process,
one thread; it imports no numeric library, so that it shares no memory with what is measured.
"""

import json
import socket
import statistics
import time
from collections.abc import Mapping
from typing import Any, Final, Self

_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 60
PATH: Final = "/predict"  # of FastAPI and of the peer; a session takes every path


class Caller:
    """A connection that sends one request again and again."""

    def __init__(self, port: int, inputs: Mapping[str, Any], path: str = PATH, token: str = "") -> None:
        self.port = port
        self.request = request_bytes(inputs, path, token=token)
        self.sock = connect(port)

    def call(self) -> bytes:
        """Send, and return the body of the answer. Raises ConnectionError when there is none."""
        self.send()
        data = self._answer()
        if not data.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"not a 200: {data[:200]!r}")
        return data[data.index(b"\r\n\r\n") + 4 :]

    def send(self) -> None:
        self.sock.sendall(self.request)

    def refused(self) -> None:
        """A call that is not to be answered with 200."""
        self.send()
        if self._answer().startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a call that had to be refused was answered")

    def _answer(self) -> bytes:
        sock = self.sock
        data = sock.recv(65536)
        while (end := answer_end(data)) > len(data) or end < 0:
            more = sock.recv(65536)
            if not more:
                raise ConnectionError("the connection was closed before the answer's end")
            data += more
        return data

    def timed(self) -> float:
        """Microseconds of one call."""
        started = time.perf_counter_ns()
        self.call()
        return (time.perf_counter_ns() - started) / 1000

    def p50(self, calls: int) -> float:
        return statistics.median(self.timed() for _ in range(calls))

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(port: int) -> socket.socket:
    sock = socket.create_connection((_HOST, port), timeout=_TIMEOUT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request_bytes(inputs: Mapping[str, Any], path: str = PATH, request_id: str = "", token: str = "") -> bytes:
    body = json.dumps(inputs).encode()
    more = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    more += f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer_end(data: bytes) -> int:
    """Where the answer that begins these bytes ends; -1 while its head is not complete."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        if not data:
            raise ConnectionError("the connection was closed without an answer")
        return -1
    at = data.lower().find(b"content-length: ", 0, head)
    if at < 0:
        raise ConnectionError("an answer without Content-Length")
    return head + 4 + int(data[at + 16 : data.index(b"\r", at)])
