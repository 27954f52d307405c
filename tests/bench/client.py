"""The client of all measures: HTTP/1.1 with keep-alive over a plain socket, with as little of its own time as can be.

It understands what the measured servers send (Content-Length, no chunks) and raises for everything else. One process,
one thread; it imports no numeric library, so that it shares no memory with what is measured.
"""

import json
import socket
import statistics
import time
from collections.abc import Mapping
from typing import Any, Self

_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 60


class Caller:
    """A connection that sends one request again and again."""

    def __init__(self, port: int, inputs: Mapping[str, Any]) -> None:
        self.port = port
        self.request = request_bytes(inputs)
        self.sock = connect(port)

    def call(self) -> bytes:
        """Send, and return the body of the answer. Raises ConnectionError when there is none."""
        sock = self.sock
        sock.sendall(self.request)
        data = sock.recv(65536)
        while (end := answer_end(data)) > len(data) or end < 0:
            more = sock.recv(65536)
            if not more:
                raise ConnectionError("the connection was closed before the answer's end")
            data += more
        if not data.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"not a 200: {data[:200]!r}")
        return data[data.index(b"\r\n\r\n") + 4 :]

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


def request_bytes(inputs: Mapping[str, Any]) -> bytes:
    body = json.dumps(inputs).encode()
    return b"POST /predict HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


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
