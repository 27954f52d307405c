"""A burst of calls on a pod that has too few sessions: each call that finds an empty slot starts a session. Once to the
slots themselves, once through the gateway, which has all of them open.
"""

import select
import statistics
import time
from typing import Final

from bench import bars, services
from bench.client import answer_end, connect, request_bytes
from bench.figures import Figure, figure, median_of, progress
from bench.gateway import Pool, gateway
from bench.priority import preferred
from bench.services import Server
from support.runtime_pod import Pod

_INITIAL: Final = 2
_MAXIMUM: Final = 10
_FUNCTION_SECONDS: Final = 0.1
_SPARES: Final = 3  # of a pod with so many slots


def measure(quick: bool) -> list[Figure]:
    bursts = 2 if quick else 9
    with services.session_pod(services.sleeper(), _INITIAL, _MAXIMUM, idleTimeoutSeconds=0) as pod:
        pool = Pool(pod, _MAXIMUM)
        with gateway(pool) as front:
            pids = [*front.pids, *services.pids(pod)]
            through = _bursts(pod, [front.server(pool)] * _MAXIMUM, pids, bursts)
        slots = [Server(pod.base_port + slot, pids[0]) for slot in range(_MAXIMUM)]
        direct = _bursts(pod, slots, services.pids(pod), bursts)
    return [
        *_figures(bars.GATEWAY_GROWTH, "gateway: burst", through),
        *_figures(bars.GROWTH, "burst", direct),
    ]


def _figures(name: str, what: str, bursts: list[list[float]]) -> list[Figure]:
    slowest = [times[-1] for times in bursts]
    return [
        median_of(name, slowest, "ms"),
        median_of(f"{what}: median of the 8 on new sessions", [statistics.median(t[_INITIAL:]) for t in bursts], "ms"),
        figure(f"{what}: slowest of all", max(slowest), "ms"),
    ]


def _bursts(pod: Pod, servers: list[Server], pids: list[int], count: int) -> list[list[float]]:
    """For each burst the milliseconds to its answers, the soonest first."""
    found = []
    for number in range(count):
        _until_shrunk(pod)
        with preferred(pids):
            found.append(sorted(_burst(servers)))
        progress(f"growth: burst {number + 1} of {count}: {found[-1][0]:.1f} to {found[-1][-1]:.1f} ms")
    return found


def _burst(servers: list[Server]) -> list[float]:
    """Milliseconds from the burst's begin to each answer. Raises RuntimeError unless each is of another session."""
    requests = [request_bytes({"seconds": _FUNCTION_SECONDS}, server.path, token=server.token) for server in servers]
    poller = select.poll()
    started = time.perf_counter()
    socks = [connect(server.port) for server in servers]
    for sock, request in zip(socks, requests, strict=True):
        sock.sendall(request)
        poller.register(sock.fileno(), select.POLLIN)
    by_fd = {sock.fileno(): sock for sock in socks}
    answers = dict.fromkeys(by_fd, b"")
    times: list[float] = []
    sessions: set[bytes] = set()
    while len(times) < len(socks):
        for fd, _ in poller.poll():
            answer = answers[fd] = answers[fd] + by_fd[fd].recv(65536)
            if answer_end(answer) < 0:  # a session sends the beginning of its answer when it begins with the call
                continue
            times.append((time.perf_counter() - started) * 1000)
            poller.unregister(fd)
            if answer_end(answer) != len(answer) or b'"success":true' not in answer:
                raise RuntimeError(f"a call of the burst was answered {answer!r}")
            sessions.add(answer[answer.index(b'"outputParameters"') :])
    for sock in socks:
        sock.close()
    if len(sessions) < len(socks):
        raise RuntimeError(f"{len(socks)} calls were answered by {len(sessions)} sessions")
    return times


def _until_shrunk(pod: Pod) -> None:
    """As before the burst: the spares too."""
    for slot in range(_INITIAL, _MAXIMUM):
        pod.wait_slot(slot, state="empty")
    pod.wait_spares(_SPARES)
