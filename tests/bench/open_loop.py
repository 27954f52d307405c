"""Open-loop load: requests are due at times that do not depend on the answers (Poisson arrivals), and the latency of
each counts from when it was due, whatever the client did then. So nothing is left out (no coordinated omission): a
server, or a client, that stands still for 100 ms is late with all that was due meanwhile.

One loop sends on as many connections as it takes. A thread that wants to wake every millisecond tells how long the
client itself stood still, as client and servers share the processors.
"""

import contextlib
import random
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.client import answer_end, connect, request_bytes
from bench.services import Server

_TICK_SECONDS: Final = 0.001
_CONNECTIONS: Final = 4  # open before the first request; more are when all are busy
_DRAIN_SECONDS: Final = 15
_TIMING: Final = re.compile(rb"server-timing: session;dur=([\d.]+)", re.IGNORECASE)


@dataclass(slots=True)
class Call:
    """One request; times in seconds of time.perf_counter()."""

    id: str
    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0  # 0: the connection ended without an answer
    service: float = 0.0  # what the session says it took; 0 where it says nothing
    body: bytes = b""

    @property
    def milliseconds(self) -> float:
        """From when it was due until its answer was there."""
        return (self.done - self.due) * 1000


@dataclass
class Run:
    calls: list[Call] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)  # when a tick came, how many seconds late

    @property
    def errors(self) -> int:
        return sum(call.status != 200 for call in self.calls)


def percentile(values: list[float], percent: float) -> float:
    """The value that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class OpenLoop:
    """`watch` sees each answer; `step` runs in each turn of the loop and says when it wants the next (perf_counter)."""

    def __init__(
        self,
        server: Server,
        inputs: Mapping[str, Any],
        rate: float,
        seed: int = 1,
        watch: Callable[[Call], None] = lambda _: None,
        step: Callable[[float], float] = lambda now: now + 1,
    ) -> None:
        self._server = server
        self._request = request_bytes(inputs, server.path, request_id=_PLACE, token=server.token)
        self._rate = rate
        self._random = random.Random(seed)
        self._prefix = f"{seed}-{self._random.randrange(1 << 32):08x}"
        self._watch = watch
        self._step = step
        self._idle: list[socket.socket] = []
        self._busy: dict[int, tuple[socket.socket, Call, bytes]] = {}

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> Run:
        """Calls for so long, or until that says so; then waits for what is under way."""
        run = Run()
        for _ in range(_CONNECTIONS):
            self._idle.append(connect(self._server.port))
        with _ticking(run):
            start = due = time.perf_counter()
            due += self._random.expovariate(self._rate)
            while due < start + seconds and not until():
                now = time.perf_counter()
                while due <= now:
                    run.calls.append(self._send(f"{self._prefix}-{len(run.calls)}", due))
                    due += self._random.expovariate(self._rate)
                self._turn(min(due, self._step(now)))
            end = time.perf_counter() + _DRAIN_SECONDS
            while self._busy and time.perf_counter() < end:
                self._turn(end)
        for sock in [*self._idle, *(sock for sock, _, _ in self._busy.values())]:
            sock.close()
        return run

    def _send(self, name: str, due: float) -> Call:
        sock = self._kept() or connect(self._server.port)
        call = Call(name, due, sent=time.perf_counter())
        with contextlib.suppress(OSError):  # what has become of it is seen when it is read
            sock.sendall(self._request.replace(_PLACE.encode(), name.encode().ljust(len(_PLACE), b"-")))
        call.id = name.ljust(len(_PLACE), "-")
        self._busy[sock.fileno()] = (sock, call, b"")
        return call

    def _kept(self) -> socket.socket | None:
        """An open connection without a call. Servers close those that had none for some seconds: that is no error."""
        while self._idle:
            sock = self._idle.pop()
            if not select.select([sock], [], [], 0)[0]:
                return sock
            sock.close()
        return None

    def _turn(self, until: float) -> None:
        # select() has microseconds, where poll() would oversleep by up to one millisecond
        ready, _, _ = select.select(list(self._busy), [], [], max(0.0, until - time.perf_counter()))
        for fd in ready:
            self._read(fd)

    def _read(self, fd: int) -> None:
        sock, call, before = self._busy[fd]
        try:
            piece = sock.recv(65536)
        except OSError:
            piece = b""
        data = before + piece
        if piece and answer_end(data) != len(data):
            self._busy[fd] = (sock, call, data)
            return
        call.done = time.perf_counter()
        del self._busy[fd]
        if not piece:
            sock.close()
        else:
            call.status = int(data[9:12])
            timing = _TIMING.search(data)
            call.service = float(timing[1]) / 1000 if timing else 0.0
            call.body = data[data.index(b"\r\n\r\n") + 4 :]
            if b"\r\nconnection: close" in data.lower():
                sock.close()
            else:
                self._idle.append(sock)
        self._watch(call)


_PLACE: Final = "-" * 24  # of the request id, so that a request need not be built for each call


@contextlib.contextmanager
def _ticking(run: Run) -> Iterator[None]:
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            wanted = time.perf_counter() + _TICK_SECONDS
            time.sleep(_TICK_SECONDS)
            now = time.perf_counter()
            run.stalls.append((now, now - wanted))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
