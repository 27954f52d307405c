"""How much is asked of each pool right now: read from HAProxy's admin socket, offered to the controller and to metrics.

`show stat` counts the calls that a backend has (in a session or in its queue) and its open slots, hold.lua's `show
held` the calls that wait for a first slot. They are read every 100 ms while there is a call anywhere and for some
seconds after, else every 250 ms. Measured, CPU of one poll, HAProxy's and this process's: 0.25 + 0.1 ms for 20
backends, 1.1 + 0.5 ms for 100, 5 + 3 ms for 500; with more of them polls become rarer.

While HAProxy does not answer nothing is known, and nothing is offered: "no calls" would let sessions retire.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

__all__ = ["COMMANDS", "Demand", "DemandError", "DemandSource", "Lent", "PoolGauges", "parse"]

COMMANDS: Final = ("show stat -1 2 -1", "show held")
POLL_SECONDS: Final = 0.1
POLL_IDLE_SECONDS: Final = 0.25
BUSY_LINGERS_SECONDS: Final = 5.0
_PAUSE_FOR_EACH: Final = 10.0  # a poll that took a second is followed by so many of pause
# A watcher hears of changes at most this often, and of life at least this often.
WATCH_SECONDS: Final = 0.05
HEARTBEAT_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class DemandError(Exception):
    """What HAProxy said is not what is understood here."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one pool, at one moment."""

    busy: int = 0  # calls that sessions work on
    queued: int = 0  # calls that wait, for a free session or for the first one
    open: int = 0  # slots that calls may be sent to
    pods: Mapping[str, int] = field(default_factory=dict)  # as Lent has it


@dataclass(frozen=True, slots=True)
class Lent:
    """The pool that a backend is lent to."""

    uid: str
    namespace: str
    pool: str
    # By revision: ready session pods that HAProxy was told of. Their slots are open, or open when older ones leave.
    pods: Mapping[str, int] = field(default_factory=dict)


def parse(stat: str, held: str) -> dict[str, Demand]:
    """Demand by backend, from the answers to COMMANDS. Raises DemandError."""
    waiting = {}
    for line in held.splitlines():
        backend, _, count = line.strip().rpartition(" ")
        if backend and count.isdecimal():
            waiting[backend] = int(count)
    head, *lines = stat.strip().splitlines() or [""]
    try:
        columns = head.lstrip("# ").split(",")
        name, type_, queued, calls, active = (columns.index(c) for c in ("pxname", "svname", "qcur", "scur", "act"))
        found = {}
        most = max(name, type_, queued, calls, active) + 1
        for line in lines:
            values = line.split(",", most)
            if line and values[type_] == "BACKEND":
                waits = int(values[queued])
                in_sessions = max(int(values[calls]) - waits, 0)
                backend = values[name]
                found[backend] = Demand(in_sessions, waits + waiting.get(backend, 0), int(values[active]))
    except (ValueError, IndexError) as error:
        raise DemandError(f"HAProxy's `show stat` is not understood: {error}") from error
    return found


class DemandSource:
    """The newest demand of each pool. `ask(commands)` gives HAProxy's answers to them, in order; what it raises means
    that nothing is known. `lent` says which pool each backend is lent to, spare ones left out."""

    def __init__(
        self,
        ask: Callable[[Iterable[str]], Awaitable[list[str]]],
        lent: Callable[[], Mapping[str, Lent]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._lent = lent
        self._clock = clock
        self._demand: Mapping[str, Demand] | None = None
        self._changed = asyncio.Event()
        self._busy_at = -BUSY_LINGERS_SECONDS
        self._trouble = ""

    @property
    def demand(self) -> Mapping[str, Demand] | None:
        """By pool uid; None while nothing is known."""
        return self._demand

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock()
            await self.poll()
            now = self._clock()
            interval = POLL_SECONDS if now - self._busy_at < BUSY_LINGERS_SECONDS else POLL_IDLE_SECONDS
            await asyncio.sleep(max(interval - (now - began), _PAUSE_FOR_EACH * (now - began)))

    async def poll(self) -> None:
        """Asks once."""
        try:
            stat, held = await self._ask(COMMANDS)
            by_backend = parse(stat, held)
        except Exception as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                log.warning("demand is not known", extra={"error": self._trouble})
            self._set(None)
            return
        self._trouble = ""
        lent = self._lent()
        self._set({lent[n].uid: replace(d, pods=lent[n].pods) for n, d in by_backend.items() if n in lent})
        if any(demand.busy or demand.queued for demand in by_backend.values()):
            self._busy_at = self._clock()

    def _set(self, demand: Mapping[str, Demand] | None) -> None:
        if demand != self._demand:
            self._demand = demand
            self._changed.set()
            self._changed = asyncio.Event()

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Lines of JSON, `{"pools": {uid: {"busy": n, "queued": n, "open": n, "pods": {revision: n}}}}`: all pools
        first, then those that changed, null for one that is gone. Ends while nothing is known: what it said before
        holds no longer. A line without pools is a sign of life."""
        told: Mapping[str, Demand] | None = None
        while (now := self._demand) is not None:
            changed = self._changed
            if told != now:
                yield _line({uid: now.get(uid) for uid in _differing(told, now)})
                told = now
                await asyncio.sleep(WATCH_SECONDS)
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                yield _line({})

    def snapshot(self) -> bytes | None:
        """The first line of `watch`, or None while nothing is known."""
        return None if self._demand is None else _line(self._demand)


class PoolGauges(Collector):
    """`sessionpools_gateway_{busy,queued,ready}` of each pool, as of the last poll."""

    def __init__(self, source: DemandSource, lent: Callable[[], Mapping[str, Lent]]) -> None:
        self._source = source
        self._lent = lent

    def collect(self) -> Iterable[GaugeMetricFamily]:
        labels = ["namespace", "pool"]
        families = [
            GaugeMetricFamily("sessionpools_gateway_busy", "Calls that sessions work on.", labels=labels),
            GaugeMetricFamily("sessionpools_gateway_queued", "Calls that wait for a session.", labels=labels),
            GaugeMetricFamily("sessionpools_gateway_ready", "Slots that calls may be sent to.", labels=labels),
        ]
        demand = self._source.demand or {}
        for pool in self._lent().values():
            of = demand.get(pool.uid)
            if of is not None:
                for family, count in zip(families, (of.busy, of.queued, of.open), strict=True):
                    family.add_metric([pool.namespace, pool.pool], count)
        return families


def _differing(old: Mapping[str, Demand] | None, new: Mapping[str, Demand]) -> list[str]:
    if old is None:
        return list(new)
    return [uid for uid in old.keys() | new.keys() if old.get(uid) != new.get(uid)]


def _line(pools: Mapping[str, Demand | None]) -> bytes:
    content = {"pools": {uid: asdict(demand) if demand else None for uid, demand in pools.items()}}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"
