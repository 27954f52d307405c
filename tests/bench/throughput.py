"""Throughput at 1, 4 and 16 connections, with as many sessions or workers, and the CPU time that a request takes.

Client and servers share the processors, as they do in the other measures: what a server gets done in a second is what
its requests cost, of all its processes, and what wrk takes.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from bench import bars, services
from bench.cpu import cpu_microseconds
from bench.figures import Figure, figure, median_of, progress
from bench.load import CLIENT, Load, closed_loop
from bench.services import process_tree
from bench.warm import GATEWAY, SESSION, all_servers

_AGAIN: Final = "again"
_MARGIN_SECONDS: Final = 0.2


def measure(quick: bool) -> list[Figure]:
    progress(f"throughput: the client is {CLIENT}")
    found: list[Figure] = []
    for connections in (1, 4) if quick else (1, 4, 16):
        found += _measure(connections, rounds=2 if quick else 7, seconds=1 if quick else 3)
    return found


def _measure(connections: int, rounds: int, seconds: int) -> list[Figure]:
    service = services.ridge()
    with all_servers(service, connections, bare=True) as (servers, pids):
        del servers[SESSION]  # a client can't spread its connections over ports
        names = [*servers, _AGAIN]
        loads: dict[str, list[Load]] = {name: [] for name in names}
        cpu: dict[str, list[float]] = {name: [] for name in names}
        for server in servers.values():
            closed_loop(server, service.inputs, connections, 1)  # warm, and thrown away
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                of = GATEWAY if name == _AGAIN else name
                block = partial(closed_loop, servers[of], service.inputs, connections, seconds)
                load, used = _with_cpu(block, pids[of], seconds)
                loads[name].append(load)
                cpu[name].append(used)
            progress(f"throughput: {connections} connections, round {number + 1} of {rounds}")
    return _figures(connections, loads, cpu)


def _with_cpu(block: Callable[[], Load], roots: list[int], seconds: int) -> tuple[Load, float]:
    """The block's load and the CPU time of a request. It is taken in the middle of the block: at its end wrk leaves its
    last calls unanswered, and sessions whose callers have gone end, as they do for any caller."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(block)
        time.sleep(_MARGIN_SECONDS)
        pids = process_tree(*roots)
        before, since = cpu_microseconds(pids), time.perf_counter()
        time.sleep(seconds - 3 * _MARGIN_SECONDS)
        used, took = cpu_microseconds(pids) - before, time.perf_counter() - since
        load = future.result()
    time.sleep(2 * _MARGIN_SECONDS)  # their slots have sessions again
    return load, used / took / max(1.0, load.per_second)


def _figures(connections: int, loads: dict[str, list[Load]], cpu: dict[str, list[float]]) -> list[Figure]:
    def per_second(name: str) -> list[float]:
        return [load.per_second for load in loads[name]]

    control = [one / other for one, other in zip(per_second(GATEWAY), per_second(_AGAIN), strict=True)]
    valid = bars.CONTROL.holds(statistics.median(control))
    subject = [(one + other) / 2 for one, other in zip(per_second(GATEWAY), per_second(_AGAIN), strict=True)]
    others = [name for name in loads if name not in (GATEWAY, _AGAIN)]
    at = f"at {connections}"
    figures = [
        median_of(
            bars.throughput_to(other, connections),
            [one / two for one, two in zip(subject, per_second(other), strict=True)],
            "x",
            valid,
        )
        for other in others
    ]
    figures.append(median_of(f"throughput {at}: gateway against itself", control, "x"))
    for name in (GATEWAY, *others):
        figures.append(median_of(f"throughput {at}: {name}", per_second(name), "1/s"))
        figures.append(median_of(f"CPU per request {at}: {name}", cpu[name], "µs"))
        figures.append(figure(f"errors {at}: {name}", sum(load.errors for load in loads[name]), "requests"))
    return figures
