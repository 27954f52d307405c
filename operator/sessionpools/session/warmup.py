"""The warm-up call that the supervisor makes over a session's own slot.

Real HTTP, so that Ready means what callers will see. Never blocks. Called by the supervisor before Ready.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from sessionpools.session import state
from sessionpools.session.loop import Loop
from sessionpools.session.slots import Slot


class WarmUps:
    """The warm-up calls of a pod that are under way, one for a slot at most."""

    def __init__(self, loop: Loop, host: str, inputs: dict[str, Any] | None) -> None:
        self._loop = loop
        self._host = host or "127.0.0.1"
        self._body = json.dumps(inputs).encode()
        self._calls: dict[int, WarmUpCall] = {}

    def start(self, slot: Slot, done: Callable[[str | None], None]) -> None:
        """Call the slot's session; it does not count as a request. `done` as WarmUpCall has it."""
        session = slot.session
        slot.row.words[state.WARMING] = 1

        def ended(problem: str | None) -> None:
            self._calls.pop(slot.number, None)
            if slot.session is session:
                slot.row.words[state.WARMING] = 0
            done(problem)

        self._calls[slot.number] = WarmUpCall(self._loop, self._host, slot.port, self._body, ended)

    def cancel(self, slot: Slot) -> None:
        """Its session has ended."""
        call = self._calls.pop(slot.number, None)
        if call is not None:
            call.cancel()


class WarmUpCall:
    """One POST. `done` gets "" when the service answered with success, else what it answered; None for no answer."""

    def __init__(self, loop: Loop, host: str, port: int, body: bytes, done: Callable[[str | None], None]) -> None:
        self._loop = loop
        self._done = done
        self._answer = bytearray()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._out = (
            b"POST /warmup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        ) + body
        try:
            self._sock.connect((host, port))
        except BlockingIOError:
            pass
        except OSError:
            loop.call_later(0, lambda: self._finish(None))  # later: the caller does not have this object yet
            return
        loop.writable(self._sock.fileno(), self._write)

    def cancel(self) -> None:
        """The session ended: nobody wants to know any more."""
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
        self._done = _ignore

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None)
            return
        self._out = self._out[sent:]
        if not self._out:
            self._loop.readable(self._sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None)
            return
        if data:
            self._answer += data
        else:
            self._finish(problem(bytes(self._answer)))

    def _finish(self, text: str | None) -> None:
        done = self._done
        self.cancel()
        done(text)


def problem(answer: bytes) -> str | None:
    """What is wrong with an answer; "" for nothing, None when there is none."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status or not status[0]:  # the beginning, which is sent before the call, is no answer
        return None
    try:
        content = json.loads(body)
    except ValueError:
        content = {}
    if status[0] == b"200" and content.get("success") is True:
        return ""
    message = content.get("errorMessage") or f"HTTP status {status[0].decode('latin-1')}"
    return str(message)


def _ignore(text: str | None) -> None:
    del text
