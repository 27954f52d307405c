"""The bars that figures are held to, all of them, and the words for figures that have none.

Numbers and comparisons only; measures import names from here so that a bar can't be misspelt. Where the design of the
product changes a bar, this file changes with it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Bar:
    """The range that a figure must be in; None is open on that side."""

    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"


# A run in which the same server differs more from itself than this says nothing about the others.
CONTROL: Final = Bar(at_least=0.9, at_most=1.1)

WARM_TO_DEF: Final = "warm call through the gateway / FastAPI def"
WARM_TO_ASYNC: Final = "warm call through the gateway / FastAPI async def"
GATEWAY_ADDS: Final = "gateway adds to p50"
BARE: Final = "HAProxy alone"
WARM_TO_BARE: Final = f"warm call through the gateway / {BARE}"
GATEWAY_FIRST_CALL: Final = "gateway: first call / warm p50, worst slot"
GATEWAY_FIRST_TO_PAUSED: Final = "gateway: first call / later call after a pause"
GATEWAY_GROWTH: Final = "gateway: burst of 10 calls of 100 ms on 2 of 10 sessions, slowest"
POD_GROWTH: Final = "pod-growth: last call of a burst / as many bare pods"
GATEWAY_REFILL_MEDIAN: Final = "gateway: killed session answers again, median"
GATEWAY_REFILL_WORST: Final = "gateway: killed session answers again, worst"
GATEWAY_FAILED_ELSEWHERE: Final = "gateway: killed session, requests failed in others"
GATEWAY_FAILED_OWN: Final = "gateway: killed session, most requests failed by one kill"
GATEWAY_UNANSWERED: Final = "gateway: killed session, requests that got no answer, not even 502"
FLOOD: Final = "pool B's p99 while A is flooded / alone"
FLOOD_ERRORS: Final = "pool B's errors while A is flooded"
DIRECT_TO_DEF: Final = "direct call / FastAPI def"
DIRECT_TO_ASYNC: Final = "direct call / FastAPI async def"
MEMORY: Final = "further session, Process / interpreter of its own"
FIRST_CALL: Final = "first call / warm p50, worst slot"
FIRST_TO_PAUSED: Final = "first call / later call after a pause"
GROWTH: Final = "burst of 10 calls of 100 ms on 2 of 10 sessions, slowest"
REFILL_MEDIAN: Final = "killed session: slot answers again, median"
REFILL_WORST: Final = "killed session: slot answers again, worst"
FAILED_ELSEWHERE: Final = "killed session: requests failed in other slots"
FAILED_OWN: Final = "killed session: requests failed per kill"

SCALE_POOLS: Final = "scale-pools"
SCALE_NODES: Final = "scale-nodes"
SCALE_SESSIONS: Final = "scale-sessions"
SCALE_FILL: Final = "all session pods ready / as many by the DaemonSet controller"
SCALE_CONTROLLER_CPU: Final = "controller CPU, a pod filled"
SCALE_CONTROLLER_TO_BARE: Final = "controller CPU, a pod filled / a bare client's request for one"
SCALE_API_CPU: Final = "API server CPU, a pod filled"
SCALE_API_TO_DAEMON_SETS: Final = "API server CPU, a pod filled / a DaemonSet's"
SCALE_CREATES: Final = "requests to create a pod, a pod filled"
SCALE_STATUS: Final = "status patches, a pod filled"
SCALE_IDLE: Final = "writes while nothing changes, but Lease renewals"
SCALE_DECIDE: Final = "observe and plan of one pool, p99"
SCALE_MEMORY: Final = "controller's memory at its most"


def throughput_to(other: str, connections: int) -> str:
    plural = "s" if connections > 1 else ""
    return f"throughput, {connections} connection{plural}: gateway / {other}"


_THROUGHPUT: Final = {
    throughput_to(other, connections): bar
    for connections in (1, 4, 16)
    for other, bar in (
        ("FastAPI def", Bar(at_least=2)),
        ("FastAPI async def", Bar(at_least=1.2)),
        (BARE, Bar(at_least=0.8)),
    )
}


def scale(shape: str, what: str) -> str:
    return f"{shape}: {what}"


_SCALE: Final = {
    scale(shape, what): bar
    for shape in (SCALE_POOLS, SCALE_NODES, SCALE_SESSIONS)
    for what, bar in (
        (SCALE_CONTROLLER_CPU, Bar(at_most=2)),
        (SCALE_CONTROLLER_TO_BARE, Bar(at_most=5)),
        (SCALE_API_CPU, Bar(at_most=10)),
        (SCALE_API_TO_DAEMON_SETS, Bar(at_most=1.15)),
        (SCALE_CREATES, Bar(at_least=1, at_most=1)),
        (SCALE_STATUS, Bar(at_most=0.1)),
        (SCALE_IDLE, Bar(at_most=0)),
        (SCALE_DECIDE, Bar(at_most=50)),
    )
} | {
    scale(SCALE_POOLS, SCALE_FILL): Bar(at_most=1.15),
    scale(SCALE_NODES, SCALE_FILL): Bar(at_most=1.15),
    scale(SCALE_SESSIONS, SCALE_MEMORY): Bar(at_most=250),
}

BARS: Final = {
    WARM_TO_DEF: Bar(at_most=0.6),
    WARM_TO_ASYNC: Bar(at_most=0.9),
    **_THROUGHPUT,
    GATEWAY_ADDS: Bar(at_most=150),
    # What is the gateway's own of it: docs/decisions/2026-11-23-what-a-proxy-costs.md
    WARM_TO_BARE: Bar(at_most=1.15),
    GATEWAY_FIRST_CALL: Bar(at_most=2),
    GATEWAY_FIRST_TO_PAUSED: Bar(at_most=1.2),
    GATEWAY_GROWTH: Bar(at_most=150),
    POD_GROWTH: Bar(at_most=1.2),
    GATEWAY_REFILL_MEDIAN: Bar(at_most=20),
    GATEWAY_REFILL_WORST: Bar(at_most=150),
    GATEWAY_FAILED_ELSEWHERE: Bar(at_most=0),
    GATEWAY_FAILED_OWN: Bar(at_most=1),
    GATEWAY_UNANSWERED: Bar(at_most=0),
    FLOOD: Bar(at_most=1.5),
    FLOOD_ERRORS: Bar(at_most=0),
    # What a call through the gateway is held to; a direct call is a part of one, so it must be better.
    DIRECT_TO_DEF: Bar(at_most=0.6),
    DIRECT_TO_ASYNC: Bar(at_most=0.9),
    MEMORY: Bar(at_most=0.3),
    FIRST_CALL: Bar(at_most=2),
    FIRST_TO_PAUSED: Bar(at_most=1.2),
    GROWTH: Bar(at_most=150),
    REFILL_MEDIAN: Bar(at_most=20),
    REFILL_WORST: Bar(at_most=150),
    FAILED_ELSEWHERE: Bar(at_most=0),
    FAILED_OWN: Bar(at_most=1),
    **_SCALE,
}
