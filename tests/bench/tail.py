"""What callers see at a moderate rate that is the same for all servers: p50, p99, p99.9 and CPU time per call, and what
the slowest of the calls through the gateway waited for.
"""

import statistics
from typing import Final

from bench import services
from bench.cpu import cpu_microseconds
from bench.figures import Figure, figure, median_of, progress
from bench.open_loop import OpenLoop, Run, percentile
from bench.priority import preferred
from bench.warm import GATEWAY, SESSION, all_servers

_RATE: Final = 200  # calls a second: about a third of what the slowest server's worker can do on a busy machine
_SLOWEST: Final = 0.001  # the share that is looked at


def measure(quick: bool) -> list[Figure]:
    rounds, seconds = (2, 2) if quick else (8, 10)
    service = services.ridge()
    runs: dict[str, list[Run]] = {}
    cpu: dict[str, list[float]] = {}
    with all_servers(service, 2) as (servers, pids), preferred(pid for some in pids.values() for pid in some):
        del servers[SESSION]  # it refuses a second call at a time, which the gateway would not send it
        names = list(servers)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                loop = OpenLoop(servers[name], service.inputs, _RATE, seed=number + 1)
                before = cpu_microseconds(pids[name])
                run = loop.run(seconds)
                cpu.setdefault(name, []).append((cpu_microseconds(pids[name]) - before) / len(run.calls))
                runs.setdefault(name, []).append(run)
            progress(f"tail: round {number + 1} of {rounds}, {_RATE} calls a second to each")
    figures = [item for name in names for item in _figures(name, runs[name], cpu[name])]
    return figures + _slowest(runs[GATEWAY])


def _figures(name: str, runs: list[Run], cpu: list[float]) -> list[Figure]:
    times = [call.milliseconds for run in runs for call in run.calls]
    at = f"{_RATE} calls/s, {name}"
    return [
        figure(f"{at}: p50", percentile(times, 50), "ms", [_of(run, 50) for run in runs]),
        figure(f"{at}: p99", percentile(times, 99), "ms", [_of(run, 99) for run in runs]),
        figure(f"{at}: p99.9", percentile(times, 99.9), "ms"),
        figure(f"{at}: slowest", max(times), "ms"),
        figure(f"{at}: client's own stalls, p99.9", percentile(_stalls(runs), 99.9), "ms"),
        median_of(f"{at}: CPU per call", cpu, "µs"),
        figure(f"{at}: errors", sum(run.errors for run in runs), "requests"),
    ]


def _of(run: Run, percent: float) -> float:
    return percentile([call.milliseconds for call in run.calls], percent)


def _stalls(runs: list[Run]) -> list[float]:
    return [late * 1000 for run in runs for _, late in run.stalls]


def _slowest(runs: list[Run]) -> list[Figure]:
    """Where the slowest calls through the gateway spent their time, each as a share of it.

    `late`: due, not sent, as the client was busy or stood still. `session`: what the session says it took, of its own
    work and of waiting for a processor within it. The rest is the gateway, the ways, and waiting for processors."""
    calls = sorted((call for run in runs for call in run.calls), key=lambda call: -call.milliseconds)
    slowest = calls[: max(1, round(len(calls) * _SLOWEST))]
    late = [(call.sent - call.due) * 1000 for call in slowest]
    session = [call.service * 1000 for call in slowest]
    rest = [call.milliseconds - one - two for call, one, two in zip(slowest, late, session, strict=True)]
    usual = statistics.median(call.service * 1000 for call in calls)
    stalled = sum(_stalled(call.due, call.done, run) for run in runs for call in run.calls if call in slowest)
    return [
        median_of("slowest 0.1 % through the gateway: due and not sent", late, "ms"),
        median_of("slowest 0.1 % through the gateway: in the session", session, "ms"),
        figure("  of all calls: in the session", usual, "ms"),
        median_of("slowest 0.1 % through the gateway: elsewhere", rest, "ms"),
        figure(
            "slowest 0.1 % through the gateway: with a client's stall > 0.5 ms in them", stalled / len(slowest), "x"
        ),
    ]


def _stalled(begin: float, end: float, run: Run) -> bool:
    return any(late > 0.0005 and begin < at and at - late < end for at, late in run.stalls)
