"""A warm call through the gateway at one connection: against FastAPI, against a ready-made model server, and against
the session called directly, which tells what the gateway adds.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from bench import bars, peer, services
from bench.client import Caller
from bench.compare import Comparison, interleaved
from bench.cpu import cpu_microseconds
from bench.figures import Figure, figure, median_of, progress
from bench.gateway import Pool, bare_haproxy, gateway
from bench.priority import preferred
from bench.services import Server, Service

GATEWAY, SESSION, DEF, ASYNC = "gateway", "session", "FastAPI def", "FastAPI async def"
_QUIET_SECONDS: Final = 300
_QUIET_MICROSECONDS: Final = 100_000  # in a second


def measure(quick: bool) -> list[Figure]:
    ridge = _compare(services.ridge(), "Ridge", quick)
    boosting = _compare(services.diabetes(), "GradientBoosting", quick)
    added = [found[GATEWAY] - found[SESSION] for found in ridge.rounds]
    bare = [found[bars.BARE] - found[SESSION] for found in ridge.rounds]
    return [
        figure("warm: gateway against itself", statistics.median(ridge.control), "x", ridge.control),
        median_of(bars.WARM_TO_DEF, ridge.ratios(DEF), "x", ridge.valid),
        median_of(bars.WARM_TO_ASYNC, ridge.ratios(ASYNC), "x", ridge.valid),
        median_of(bars.GATEWAY_ADDS, added, "µs", ridge.valid),
        median_of(bars.WARM_TO_BARE, ridge.ratios(bars.BARE), "x", ridge.valid),
        median_of("a HAProxy that only passes calls on adds to p50", bare, "µs", ridge.valid),
        median_of(f"warm call through the gateway / {peer.NAME}", ridge.ratios(peer.NAME), "x", ridge.valid),
        *_p50s(ridge, "Ridge"),
        median_of("GradientBoosting: gateway against itself", boosting.control, "x"),
        *(
            median_of(f"GradientBoosting: gateway / {other}", boosting.ratios(other), "x", boosting.valid)
            for other in (DEF, ASYNC, peer.NAME)
        ),
        *_p50s(boosting, "GradientBoosting"),
    ]


@contextmanager
def all_servers(
    service: Service, count: int, *, bare: bool = False
) -> Iterator[tuple[dict[str, Server], dict[str, list[int]]]]:
    """The service under each of them, with so many sessions or workers, and all processes of each."""
    with ExitStack() as stack:
        progress(f"start {count} sessions behind the gateway, and as many workers of FastAPI (twice) and {peer.NAME}")
        pod = stack.enter_context(services.session_pod(service, count + 1 + bare * count))
        pool = Pool(pod, count)
        front = stack.enter_context(gateway(pool))
        servers = {
            GATEWAY: front.server(pool),
            # The session after those of the gateway: an idle connection of HAProxy's is no load for it.
            SESSION: Server(pod.base_port + count, services.pids(pod)[0]),
            DEF: stack.enter_context(services.fastapi(service, "def", count)),
            ASYNC: stack.enter_context(services.fastapi(service, "async def", count)),
            peer.NAME: stack.enter_context(peer.bentoml(service, count)),
        }
        if bare:
            first = pod.base_port + count + 1
            servers[bars.BARE] = stack.enter_context(bare_haproxy(range(first, first + count)))
        for name, server in servers.items():
            await_quiet(name, server, service)
        pids = {name: server.pids for name, server in servers.items()}
        pids[GATEWAY] = [*front.pids, *services.pids(pod)]  # the sessions of all servers among them
        if bare:
            pids[bars.BARE] += services.pids(pod)
        yield servers, pids


def await_quiet(name: str, server: Server, service: Service) -> None:
    """A server may listen before its workers are ready: until one answers, and all have nothing more to do."""
    with Caller(server.port, service.inputs, server.path, server.token) as caller:
        caller.call()
    for _ in range(_QUIET_SECONDS):
        before = cpu_microseconds(server.pids)
        time.sleep(1)
        if cpu_microseconds(server.pids) - before < _QUIET_MICROSECONDS:
            return
    raise RuntimeError(f"{name} does not get ready")


def _compare(service: Service, name: str, quick: bool) -> Comparison:
    rounds, calls = (3, 50) if quick else (13, 200)
    with all_servers(service, 1, bare=True) as (servers, pids), ExitStack() as stack:
        callers = {
            name: stack.enter_context(Caller(server.port, service.inputs, server.path, server.token))
            for name, server in servers.items()
        }
        stack.enter_context(preferred(pid for some in pids.values() for pid in some))
        for caller in callers.values():
            caller.p50(calls)  # warm, and thrown away
        progress(f"warm: {name}: {rounds} rounds of {calls} calls to each")
        return interleaved({name: partial(caller.p50, calls) for name, caller in callers.items()}, rounds)


def _p50s(found: Comparison, name: str) -> list[Figure]:
    return [median_of(f"{name}: p50, {server}", found.p50s(server), "µs") for server in found.rounds[0]]
