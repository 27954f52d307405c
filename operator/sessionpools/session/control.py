"""The control port: how the kubelet and the controller see a session pod. GET only, one request per connection.

Answers from what the supervisor knows, at once; never asks a session. Called by the supervisor.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from typing import Any

from sessionpools.session import state
from sessionpools.session.loop import Loop
from sessionpools.session.slots import Slot

Answer = tuple[int, str, bytes]  # status, content type, body
_REQUEST_BYTES = 8192
_DEADLINE_SECONDS = 5.0
_BACKLOG = 64
_MAX_EXCHANGES = 64  # descriptors are the sessions' too
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class ControlServer:
    def __init__(self, loop: Loop, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._loop = loop
        self._listener = listener
        self._answer = answer
        self._exchanges: dict[_Exchange, None] = {}  # in the order of their coming
        listener.setblocking(False)
        loop.readable(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        if len(self._exchanges) >= _MAX_EXCHANGES:
            next(iter(self._exchanges)).close()  # probes come and go at once: the oldest is none
        exchange = _Exchange(self._loop, sock, self._answer, self._exchanges)
        self._exchanges[exchange] = None


class _Exchange:
    def __init__(
        self, loop: Loop, sock: socket.socket, answer: Callable[[str], Answer], exchanges: dict[_Exchange, None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._answer = answer
        self._exchanges = exchanges
        self._request = b""
        self._out = b""
        self._timer = loop.call_later(_DEADLINE_SECONDS, self.close)
        loop.readable(sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += data
        if not data or len(self._request) > _REQUEST_BYTES:
            self.close()
        elif b"\r\n\r\n" in self._request:
            words = self._request.split(b"\r\n", 1)[0].split(b" ")
            method, path = words[0], words[1].decode("latin-1").partition("?")[0] if len(words) > 1 else ""
            status, kind, body = self._answer(path) if method == b"GET" else (405, "text/plain", b"GET only\n")
            self._out = (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            ).encode() + body
            self._loop.writable(self._sock.fileno(), self._write)
            self._write()

    def _write(self) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._out = b""
        if not self._out:
            self.close()

    def close(self) -> None:
        self._exchanges.pop(self, None)
        self._timer.cancel()
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()


def json_answer(status: int, content: Any) -> Answer:
    return status, "application/json", json.dumps(content).encode()


def slot_view(slot: Slot, now_ns: int) -> dict[str, Any]:
    """A slot as the controller reads it; sessions that are ready are idle or busy."""
    words, session = slot.row.words, slot.session
    busy_since = words[state.BUSY_SINCE]
    return {
        "slot": slot.number,
        "port": slot.port,
        "pid": session.pid if session else 0,
        "state": state.NAMES[min(words[state.STATE], state.BUSY)] if session else state.NAMES[state.EMPTY],
        "requests": words[state.REQUESTS],
        "busySeconds": round((now_ns - busy_since) / 1e9, 3) if busy_since else 0.0,
        "idleSeconds": round((now_ns - words[state.IDLE_SINCE]) / 1e9, 3) if words[state.STATE] == state.IDLE else 0.0,
        "memoryBytes": session.memory_bytes if session else 0,
        "started": slot.started,
        "lastEnd": slot.last_end,
    }


def metrics(view: dict[str, Any], rows: Iterable[tuple[int, state.Row]], ends: dict[str, int], restarts: int) -> bytes:
    """The Prometheus text of a pod. Service and pool are labels of the pod, which scraping adds."""
    lines = [
        "# HELP sessionpools_session_pod_ready Whether every initial session has answered the warm-up.",
        "# TYPE sessionpools_session_pod_ready gauge",
        f"sessionpools_session_pod_ready {int(view['ready'])}",
        "# HELP sessionpools_sessions Sessions by state.",
        "# TYPE sessionpools_sessions gauge",
    ]
    states = [session["state"] for session in view["sessions"]]
    lines += [f'sessionpools_sessions{{state="{name}"}} {states.count(name)}' for name in state.NAMES]
    columns = (
        ("sessionpools_requests_total", state.TOTAL_REQUESTS, "Requests answered by a slot's sessions.", 1),
        ("sessionpools_requests_failed_total", state.TOTAL_FAILED, "Of those, answered with success=false.", 1),
        ("sessionpools_busy_seconds_total", state.TOTAL_BUSY_NS, "Time spent in the service's code.", 1e9),
    )
    table = list(rows)
    for name, word, text, unit in columns:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
        for number, row in table:
            value = row.words[word] if unit == 1 else row.words[word] / unit
            lines.append(f'{name}{{slot="{number}"}} {value!r}')
    lines += [
        "# HELP sessionpools_session_memory_bytes Proportional set size.",
        "# TYPE sessionpools_session_memory_bytes gauge",
    ]
    for session in view["sessions"]:
        if session["memoryBytes"]:
            lines.append(f'sessionpools_session_memory_bytes{{slot="{session["slot"]}"}} {session["memoryBytes"]}')
    lines += [
        "# HELP sessionpools_session_starts_total Sessions started in a slot.",
        "# TYPE sessionpools_session_starts_total counter",
    ]
    lines += [
        f'sessionpools_session_starts_total{{slot="{session["slot"]}"}} {session["started"]}'
        for session in view["sessions"]
    ]
    lines += [
        "# HELP sessionpools_session_ends_total Sessions that ended, by why.",
        "# TYPE sessionpools_session_ends_total counter",
    ]
    lines += [
        f'sessionpools_session_ends_total{{reason="{_escape(why)}"}} {count}' for why, count in sorted(ends.items())
    ]
    lines += [
        "# HELP sessionpools_template_restarts_total Times the template was started again.",
        "# TYPE sessionpools_template_restarts_total counter",
        f"sessionpools_template_restarts_total {restarts}",
    ]
    return ("\n".join(lines) + "\n").encode()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
