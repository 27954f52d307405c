"""The supervisor's event loop: descriptors, timers and signals, one thread.

selectors and heapq instead of asyncio: less memory, as every session pod has one of these. Callbacks run to their end;
an exception in one ends the process, which the kubelet then restarts. Called by the supervisor only.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Timer:
    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._handlers: dict[int, Callback] = {}
        self._code: int | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self.readable(self._wake_read.fileno(), self._signalled)

    @staticmethod
    def now() -> float:
        return time.monotonic()

    def readable(self, fd: int, callback: Callback) -> None:
        self._watch(fd, selectors.EVENT_READ, callback)

    def writable(self, fd: int, callback: Callback) -> None:
        self._watch(fd, selectors.EVENT_WRITE, callback)

    def forget(self, fd: int) -> None:
        """Stop watching; not watched is fine."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def watched(self, fd: int) -> bool:
        return fd in self._selector.get_map()

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(self.now() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._sequence), timer))
        return timer

    def every(self, seconds: float, callback: Callback) -> None:
        def again() -> None:
            self.call_later(seconds, again)
            callback()

        self.call_later(seconds, again)

    def on_signal(self, signum: int, callback: Callback) -> None:
        self._handlers[signum] = callback
        signal.signal(signum, _ignore)  # a Python handler must exist for the wake-up descriptor to be written

    def stop(self, code: int) -> None:
        if self._code is None:
            self._code = code

    def run(self) -> int:
        while self._code is None:
            timeout = max(0.0, self._timers[0][0] - self.now()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                # An earlier callback of this round may have stopped watching it.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
                if self._code is not None:
                    return self._code
            while self._timers and self._timers[0][0] <= self.now() and self._code is None:
                callback = heapq.heappop(self._timers)[2].callback
                if callback is not None:
                    callback()
        return self._code

    def _watch(self, fd: int, events: int, callback: Callback) -> None:
        if self.watched(fd):
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def _signalled(self) -> None:
        try:
            numbers = self._wake_read.recv(4096)
        except BlockingIOError:
            return
        for number in sorted(set(numbers)):
            if number in self._handlers:
                self._handlers[number]()


def _ignore(signum: int, frame: object) -> None:
    del signum, frame
