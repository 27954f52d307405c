"""The first call on each session after Ready, against the median of its later calls."""

import statistics

from bench import bars, services
from bench.client import Caller
from bench.figures import Figure, figure, progress
from bench.priority import preferred

_SESSIONS = 6


def measure(quick: bool) -> list[Figure]:
    pods, calls = (1, 50) if quick else (5, 200)
    service = services.diabetes()
    ratios: list[list[float]] = [[] for _ in range(_SESSIONS)]
    for number in range(pods):
        # One session more than is measured: its calls warm the client.
        with services.session_pod(service, initial=_SESSIONS + 1) as pod, preferred(services.pids(pod)):
            with Caller(pod.base_port + _SESSIONS, service.inputs) as caller:
                caller.p50(calls)
            for slot, found in enumerate(ratios):
                with Caller(pod.base_port + slot, service.inputs) as caller:
                    first = caller.timed()  # the session accepts the connection within it
                    found.append(first / caller.p50(calls))
        progress(f"first-call: pod {number + 1} of {pods}: {', '.join(f'{found[-1]:.2f}' for found in ratios)}")
    # One call can meet anything on a shared machine: the median over the pods tells of the slot.
    slots = [statistics.median(found) for found in ratios]
    return [
        figure(bars.FIRST_CALL, max(slots), "x", slots),
        figure("first call / warm p50, worst of all", max(max(found) for found in ratios), "x"),
    ]
