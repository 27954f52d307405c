"""Sessions killed under half load: how soon their slots answer again, and which requests fail.

Each slot has a caller that waits as long as its calls take. One loop serves all callers and kills, so that no thread of
the client delays what it times.
"""

import os
import random
import select
import signal
import socket
import statistics
import time

import orjson

from bench import bars, services
from bench.client import answer_end, connect, request_bytes
from bench.figures import Figure, figure, progress
from bench.priority import preferred

_SLOTS = 4
_CALL_SECONDS = 0.005
_BETWEEN_KILLS_SECONDS = (0.05, 0.15)

_LOAD = request_bytes({"seconds": _CALL_SECONDS})
_PROBE = request_bytes({"seconds": 0})  # the first call after a kill: nothing but the time until there is an answer


class SlotCaller:
    """A closed loop of calls to one slot: call, pause, call. The pause ends when the connection does."""

    def __init__(self, port: int, poller: select.poll) -> None:
        self._port = port
        self._poller = poller
        self.pid = 0  # of the session that answered last
        self.killed_at = 0.0  # 0: no kill that has not been answered
        self.failed = 0
        self.calls = 0
        self._next_call = 0.0  # 0: a call is under way
        self._begun = b""  # what there is of an answer
        self._connect(_LOAD)

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    @property
    def wait_seconds(self) -> float:
        return max(0.0, self._next_call - time.perf_counter()) if self._next_call else 1.0

    def kill(self) -> None:
        self.killed_at = time.perf_counter()
        os.kill(self.pid, signal.SIGKILL)

    def call_if_due(self) -> None:
        if self._next_call and time.perf_counter() >= self._next_call:
            self._next_call = 0.0
            try:
                self._sock.sendall(_LOAD)
            except OSError:
                self._lost()

    def readable(self) -> float:
        """Read; the seconds from a kill to this answer, if it is the first after one."""
        try:
            data = self._sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._lost()
            return 0.0
        now = time.perf_counter()
        data, self._begun = self._begun + data, b""
        end = answer_end(data)
        if end < 0:  # a session sends the beginning of its answer when it begins with the call
            self._begun = data
            return 0.0
        if end != len(data):
            raise RuntimeError(f"not one answer: {data!r}")
        answer = orjson.loads(data[data.index(b"\r\n\r\n") + 4 :])
        if not answer["success"]:
            raise RuntimeError(answer["errorMessage"])
        self.calls += 1
        pid = next(iter(answer["outputParameters"].values()))
        before, self.pid = self.pid, pid
        self._next_call = now + _CALL_SECONDS
        if self.killed_at and pid != before:
            seconds, self.killed_at = now - self.killed_at, 0.0
            return seconds
        return 0.0

    def close(self) -> None:
        self._poller.unregister(self.fd)
        self._sock.close()

    def _lost(self) -> None:
        self.failed += not self._next_call
        self.close()
        self._connect(_PROBE)

    def _connect(self, request: bytes) -> None:
        self._sock: socket.socket = connect(self._port)
        self._sock.sendall(request)
        self._begun = b""
        self._poller.register(self.fd, select.POLLIN)
        self._next_call = 0.0


def measure(quick: bool) -> list[Figure]:
    kills = 5 if quick else 50
    with services.session_pod(services.sleeper(), _SLOTS) as pod:
        poller = select.poll()
        callers = [SlotCaller(pod.base_port + slot, poller) for slot in range(_SLOTS)]
        progress(f"kills: {kills} kills, {_SLOTS} sessions at half load")
        with preferred(services.pids(pod)):
            times, elsewhere = _run(callers, poller, kills)
        for caller in callers:
            caller.close()
    failed = sum(caller.failed for caller in callers)
    progress(f"kills: {sum(caller.calls for caller in callers)} calls, {failed} failed")
    return [
        figure(bars.REFILL_MEDIAN, statistics.median(times), "ms", times),
        figure(bars.REFILL_WORST, max(times), "ms"),
        figure(bars.FAILED_ELSEWHERE, elsewhere, "requests"),
        figure(bars.FAILED_OWN, failed / kills, "requests"),
    ]


def _run(callers: list[SlotCaller], poller: select.poll, kills: int) -> tuple[list[float], int]:
    """Milliseconds to refill, and how many requests failed in slots whose session was not killed."""
    choose = random.Random(1)
    times: list[float] = []
    elsewhere = 0
    next_kill = time.perf_counter() + 0.5
    while len(times) < kills:
        wait = min(caller.wait_seconds for caller in callers)
        if not any(caller.killed_at for caller in callers):  # else the next kill waits: no loop that takes a processor
            wait = min(wait, next_kill - time.perf_counter())
        for fd, _ in poller.poll(max(0.0, wait) * 1000):
            caller = next(caller for caller in callers if caller.fd == fd)
            failed, expected = caller.failed, bool(caller.killed_at)
            seconds = caller.readable()
            elsewhere += 0 if expected else caller.failed - failed
            if seconds:
                times.append(seconds * 1000)
                next_kill = time.perf_counter() + choose.uniform(*_BETWEEN_KILLS_SECONDS)
        for caller in callers:
            caller.call_if_due()
        if time.perf_counter() >= next_kill and not any(caller.killed_at for caller in callers):
            choose.choice(callers).kill()
    return times, elsewhere
