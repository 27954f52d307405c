"""Two pools behind one gateway: what the callers of B see while 64 connections call A as fast as they are answered."""

import statistics
from typing import Final

from bench import bars, services
from bench.figures import Figure, figure, median_of, progress
from bench.gateway import Pool, gateway
from bench.load import WRK, Load, flood
from bench.open_loop import OpenLoop, Run, percentile
from bench.priority import preferred
from bench.services import Server

_SLOTS: Final = 4
_CALL_SECONDS: Final = 0.005
_RATE: Final = _SLOTS / _CALL_SECONDS / 2  # half of what B's sessions can do
_CONNECTIONS: Final = 64


def measure(quick: bool) -> list[Figure]:
    if WRK is None:
        progress("flood: left out; it needs wrk, as a flood from Python takes the processors that it is to share")
        return []
    rounds, seconds = (2, 2) if quick else (7, 6)
    sleeper = services.sleeper()
    with services.session_pod(sleeper, _SLOTS) as one, services.session_pod(sleeper, _SLOTS) as two:
        a, b = Pool(one, _SLOTS, "a"), Pool(two, _SLOTS, "b", queue_seconds=11)
        full = Pool(one, _SLOTS, "full", queue_seconds=12, queue_length=10)  # A again: most of its callers get 429
        with gateway(a, b, full) as front:
            pids = [*front.pids, *services.pids(one), *services.pids(two)]
            with preferred(pids):
                waiting = _Flooded(front.server(a), front.server(b), rounds, seconds)
            # Callers that are refused at once take what the processors have: as all others, then, and no preference,
            # which would let none but the first comers run.
            refused = _Flooded(front.server(full), front.server(b), rounds if quick else 3, seconds)
    return [
        median_of("flood: B's p99 alone, against itself", waiting.control, "x"),
        median_of(bars.FLOOD, waiting.ratios, "x", waiting.valid),
        figure(bars.FLOOD_ERRORS, sum(run.errors for run in waiting.flooded), "requests"),
        median_of("B's p99 alone", [_p99(run) for run in waiting.alone], "ms"),
        median_of("B's p99 while A is flooded", [_p99(run) for run in waiting.flooded], "ms"),
        median_of("client's own stalls meanwhile, p99.9", [_stall(run) for run in waiting.flooded], "ms"),
        median_of("A's calls answered meanwhile", [load.per_second for load in waiting.loads], "1/s"),
        figure("A's errors", sum(load.errors for load in waiting.loads), "requests"),
        median_of("B's p99 while A's callers get 429 and call again at once / alone", refused.ratios, "x"),
        figure("B's errors meanwhile", sum(run.errors for run in refused.flooded), "requests"),
        median_of("429 meanwhile", [load.errors / load.seconds for load in refused.loads], "1/s"),
    ]


class _Flooded:
    """Rounds of B alone, B beside the flood of A, and B alone again."""

    def __init__(self, a: Server, b: Server, rounds: int, seconds: int) -> None:
        self.alone: list[Run] = []
        self.again: list[Run] = []
        self.flooded: list[Run] = []
        self.loads: list[Load] = []
        inputs = {"seconds": _CALL_SECONDS}
        for number in range(rounds):

            def run(part: int, number: int = number) -> Run:
                return OpenLoop(b, inputs, _RATE, seed=10 * number + part).run(seconds)

            self.alone.append(run(1))
            with flood(a, inputs, _CONNECTIONS, seconds + 30) as loads:
                self.flooded.append(run(2))
            self.loads += loads
            self.again.append(run(3))
            statuses = sorted({call.status for call in self.flooded[-1].calls})
            progress(f"flood: round {number + 1} of {rounds}: B's p99 {_p99(self.flooded[-1]):.1f} ms, {statuses}")

    @property
    def control(self) -> list[float]:
        return [_p99(one) / _p99(two) for one, two in zip(self.alone, self.again, strict=True)]

    @property
    def valid(self) -> bool:
        return bars.CONTROL.holds(statistics.median(self.control))

    @property
    def ratios(self) -> list[float]:
        rounds = zip(self.alone, self.again, self.flooded, strict=True)
        return [_p99(flooded) / ((_p99(one) + _p99(two)) / 2) for one, two, flooded in rounds]


def _p99(run: Run) -> float:
    return percentile([call.milliseconds for call in run.calls], 99)


def _stall(run: Run) -> float:
    return percentile([late * 1000 for _, late in run.stalls], 99.9)
