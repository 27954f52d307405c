"""A burst of calls on a pod that has too few sessions: each call that finds an empty slot starts a session."""

import select
import statistics
import time

from bench import bars, services
from bench.client import answer_end, connect, request_bytes
from bench.figures import Figure, figure, median_of, progress
from bench.priority import preferred
from unit.session.runtime_pod import Pod

_INITIAL = 2
_MAXIMUM = 10
_FUNCTION_SECONDS = 0.1


def measure(quick: bool) -> list[Figure]:
    bursts = 2 if quick else 9
    slowest, grown = [], []
    with services.session_pod(services.sleeper(), _INITIAL, _MAXIMUM, idleTimeoutSeconds=0) as pod:
        for number in range(bursts):
            _until_shrunk(pod)
            with preferred(services.pids(pod)):
                times = _burst(pod)
            slowest.append(max(times))
            grown.append(statistics.median(times[_INITIAL:]))
            progress(f"growth: burst {number + 1} of {bursts}: {min(times):.1f} to {max(times):.1f} ms")
    return [
        median_of(bars.GROWTH, slowest, "ms"),
        median_of("burst of 10 calls of 100 ms: median of the 8 on new sessions", grown, "ms"),
        figure("burst of 10 calls of 100 ms: slowest of all bursts", max(slowest), "ms"),
    ]


def _burst(pod: Pod) -> list[float]:
    """Milliseconds from the burst's begin to each answer, by slot."""
    request = request_bytes({"seconds": _FUNCTION_SECONDS})
    poller = select.poll()
    started = time.perf_counter()
    socks = [connect(pod.base_port + slot) for slot in range(_MAXIMUM)]
    for sock in socks:
        sock.sendall(request)
        poller.register(sock.fileno(), select.POLLIN)
    slots = {sock.fileno(): slot for slot, sock in enumerate(socks)}
    times = [0.0] * _MAXIMUM
    while not all(times):
        for fd, _ in poller.poll():
            slot = slots[fd]
            answer = socks[slot].recv(65536)
            times[slot] = (time.perf_counter() - started) * 1000
            poller.unregister(fd)
            if answer_end(answer) != len(answer) or b'"success":true' not in answer:
                raise RuntimeError(f"slot {slot} answered {answer!r}")
    for sock in socks:
        sock.close()
    return times


def _until_shrunk(pod: Pod) -> None:
    for slot in range(_INITIAL, _MAXIMUM):
        pod.wait_slot(slot, state="empty")
