"""Which pool has which of HAProxy's backends.

HAProxy 2.8 can neither add a backend while it runs nor take a queue timeout from a request. So the configuration holds
spare backends for each queue timeout in use, and each pool is lent one. Only when none is left the configuration gets
more and HAProxy is reloaded. A backend whose pool is gone, or has moved to another queue timeout, stays lent until it
holds no request and no server: what waits or runs in it is never another pool's.

Pure; deterministic, so that the file and the running HAProxy agree. Used by agent.py and config.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sessionpools.gateway.model import Route

__all__ = ["USUAL_QUEUE_SECONDS", "Allocation", "allocate", "backend_name", "release"]

USUAL_QUEUE_SECONDS: Final = 10  # the default of a pool's queue.timeoutSeconds
_USUAL_SPARES: Final = 16  # a backend without servers costs HAProxy about 10 kB
_OTHER_SPARES: Final = 4
_NAME: Final = re.compile(r"q([1-9]\d*)-([1-9]\d*)")


@dataclass(frozen=True)
class Allocation:
    """All backends of the configuration: name -> uid of the pool that has it, "" for a spare."""

    backends: Mapping[str, str] = field(default_factory=dict)

    def backend_of(self, route: Route) -> str:
        """The backend that a route's calls go to; "" when it has no pool, or none is lent to it yet."""
        if not route.pool:
            return ""
        return self._lent.get((route.pool_uid, route.queue_seconds), "")

    def needs_reload(self, running: Allocation) -> bool:
        """Whether there are backends that a HAProxy with `running` does not have."""
        return not self.backends.keys() <= running.backends.keys()

    @cached_property
    def _lent(self) -> Mapping[tuple[str, int], str]:
        """By pool uid and queue timeout."""
        return {(uid, _parse(name)[0]): name for name, uid in self.backends.items() if uid}


def backend_name(queue_seconds: int, number: int) -> str:
    return f"q{queue_seconds}-{number}"


def allocate(allocation: Allocation, routes: Iterable[Route]) -> Allocation:
    """Lend a backend to each pool that has none of its queue timeout; none is taken away. Adds backends when the spares
    of a queue timeout are used up: as many again as there are, so that reloads become rare."""
    backends = dict(allocation.backends)
    _add(backends, USUAL_QUEUE_SECONDS, _USUAL_SPARES - _count(backends, USUAL_QUEUE_SECONDS))
    lent = {(uid, _parse(name)[0]) for name, uid in backends.items() if uid}
    spares = _spares(backends)
    for uid, seconds in sorted({(route.pool_uid, route.queue_seconds) for route in routes if route.pool} - lent):
        if not spares.get(seconds):
            count = _count(backends, seconds)
            least = _USUAL_SPARES if seconds == USUAL_QUEUE_SECONDS else _OTHER_SPARES
            _add(backends, seconds, max(least, count))
            spares[seconds] = _spares(backends)[seconds]
        backends[spares[seconds].pop()] = uid
    return Allocation({name: backends[name] for name in sorted(backends, key=_parse)})


def release(allocation: Allocation, routes: Iterable[Route], quiet: Collection[str]) -> Allocation:
    """Make spares of the backends that no route's calls go to, if they are `quiet`: HAProxy was seen to have no server,
    no request and no held call in them, after the map had stopped naming them."""
    routes = list(routes)
    used = {allocation.backend_of(route) for route in routes}
    return Allocation(
        {name: "" if name in quiet and name not in used else uid for name, uid in allocation.backends.items()}
    )


def _parse(name: str) -> tuple[int, int]:
    """The queue timeout in seconds and the number. Raises ValueError for what is not a backend's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a backend that this program makes")
    return int(match[1]), int(match[2])


def _count(backends: Iterable[str], seconds: int) -> int:
    return sum(_parse(name)[0] == seconds for name in backends)


def _spares(backends: Mapping[str, str]) -> dict[int, list[str]]:
    """Spares by queue timeout, the lowest number last."""
    spares: dict[int, list[str]] = {}
    for name in sorted((name for name, uid in backends.items() if not uid), key=_parse, reverse=True):
        spares.setdefault(_parse(name)[0], []).append(name)
    return spares


def _add(backends: dict[str, str], seconds: int, count: int) -> None:
    first = 1 + max((_parse(name)[1] for name in backends if _parse(name)[0] == seconds), default=0)
    for number in range(first, first + count):
        backends[backend_name(seconds, number)] = ""
