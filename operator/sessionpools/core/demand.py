"""How many sessions each node should have between initialPoolSize and maxPoolSize (isolation Pod), by what is asked of
the pool: pure decisions.

Growth: as many sessions as there are calls, waiting ones included, each new one on the node that has the fewest. What
starts counts as there already. A start is mostly Python importing, on one CPU, and for a third of its time waiting for
the kubelet: at most two pods of a pool for each CPU of a node start at a time there, which keeps the CPUs at work; the
next ones follow as those become ready. A node where one can not start gets no more. Deciding twice does no harm: while
what the first decision has created is half visible, the second comes to the same sessions on the same nodes.

Shrinking: a session above initialPoolSize that was not used for idleTimeoutSeconds (it says so itself, just before)
goes, the highest slot first, as long as those that stay are enough for the calls that there are. The gateway fills low
slots first, so that high ones fall idle. Deleting a session pod drains it.

While the demand is not known (no gateway answers) nothing grows and nothing retires.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.limits import slots_of
from sessionpools.core.model import PodView
from sessionpools.core.placement import Place

__all__ = ["SETTLE_SECONDS", "Demand", "Wish", "elastic", "look_again", "retirable", "wishes"]

# A queue that is gone by then never needed a session that takes seconds to start.
SETTLE_SECONDS = 0.1
# The last of 8 new sessions on two nodes was ready after 2.0 times what bare pods took with 1, 1.5 times with 2.
_STARTS_PER_CPU = 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What gateways say of a pool at one moment."""

    busy: int  # calls that sessions work on
    queued: int  # calls that wait
    pods: Mapping[str, int] | None = None  # ready session pods that each gateway has, by revision; None: not known

    @property
    def calls(self) -> int:
        return self.busy + self.queued


@dataclass(frozen=True, slots=True)
class Wish:
    """What one node should have."""

    sessions: int  # initialPoolSize at least, maxPoolSize at most
    retire: tuple[PodView, ...] = ()  # of those that are there; not among `sessions`
    limited: bool = False  # there would be more of them but for the limit of all pools' sessions there (core.limits)


@dataclass(slots=True)
class _Node:
    """A node as growth and shrinking see it; `grow` changes it."""

    place: Place
    here: list[PodView]  # alive
    sessions: int  # that it should have, before anything changes
    starting: int
    failing: int  # of those that are here; with those that are missing, where none is created now
    stuck: bool  # one of its pods does not start, or has ended and is not replaced yet, or none is created now
    rolling: bool
    room: int  # how many more maxPoolSize allows
    spare: float  # how many more the limit of all pools' sessions allows (core.limits)

    @property
    def capacity(self) -> int:
        return max(self.sessions - self.failing, 0) if self.place.node.ready else 0

    @property
    def open(self) -> bool:
        return self.place.compute_node and not self.place.closed

    def may_grow(self) -> bool:
        at_most = _STARTS_PER_CPU * max(self.place.node.cpus, 1)
        return self.open and not self.stuck and min(self.room, self.spare) > 0 and self.starting < at_most

    @property
    def limited(self) -> bool:
        return self.open and not self.stuck and self.room > 0 >= self.spare

    def grow(self) -> None:
        self.sessions += 1
        self.starting += 1
        self.room -= 1
        self.spare -= 1


def elastic(pool: SessionPool) -> bool:
    """Whether the controller grows it; Process pods grow by themselves."""
    return pool.spec.isolation is Isolation.POD


def wishes(
    pool: SessionPool,
    revision: str,
    demand: Demand | None,
    places: Mapping[str, Place],
    pods: Sequence[PodView],
    before: Mapping[str, int],
    idle: Mapping[str, float],
    now: float,
    held: Collection[str] = (),
    most: Mapping[str, int] | None = None,
) -> dict[str, Wish]:
    """What each node of `places` should have. `before` is what this said of them last, as far as known: during a
    rollout the pods that are there do not tell how many are wanted. `idle` is for how many seconds pods (by uid) that
    were asked just now have been idle; `held` nodes get no session pod now (core.holds). `most` is how many sessions
    the pool may have on each node (core.limits); None: there is no limit."""
    nodes = _nodes(pool, revision, places, pods, before, held, most)
    if demand is None:
        return {name: Wish(node.sessions) for name, node in nodes.items()}
    missing = demand.calls - sum(node.capacity for node in nodes.values())
    open_ = [(node.sessions, name) for name, node in nodes.items() if node.may_grow()] if missing > 0 else []
    heapify(open_)
    while missing > 0 and open_:
        fewest = nodes[open_[0][1]]
        fewest.grow()
        missing -= 1
        if fewest.may_grow():
            heapreplace(open_, (fewest.sessions, open_[0][1]))
        else:
            heappop(open_)
    going = _stale(pool, nodes, now) if missing <= 0 else []
    rested = [pod for pod in _above_initial(pool, nodes) if idle.get(pod.uid, -1.0) >= pool.spec.idle_timeout_seconds]
    going += rested[: max(-missing, 0)]
    gone: dict[str, list[PodView]] = {}
    for pod in going:
        gone.setdefault(pod.owner.node, []).append(pod)
    return {
        name: Wish(min(node.sessions, len(node.here) - len(gone[name])), tuple(gone[name]))
        if name in gone
        else Wish(node.sessions, limited=missing > 0 and node.limited)
        for name, node in nodes.items()
    }


def retirable(
    pool: SessionPool,
    revision: str,
    demand: Demand | None,
    places: Mapping[str, Place],
    pods: Sequence[PodView],
    before: Mapping[str, int],
) -> list[PodView]:
    """The ready pods that would go if they were idle for long enough, those that go first in front."""
    if demand is None or not _has_grown(pool, pods):
        return []
    nodes = _nodes(pool, revision, places, pods, before)
    if demand.calls >= sum(node.capacity for node in nodes.values()):
        return []
    return _above_initial(pool, nodes)


def look_again(pool: SessionPool, demand: Demand, pods: Sequence[PodView]) -> float | None:
    """In how many seconds the pool should be looked at since its demand has changed; None: the change decides nothing.
    Cheap, for a stream of changes: nodes are not looked at."""
    if not elastic(pool):
        return None
    alive = [pod for pod in pods if pod.alive]
    if demand.calls > sum(pod.failure is None for pod in alive):
        return SETTLE_SECONDS if any(pod.ready for pod in alive) else 0.0
    if demand.calls < len(alive) and _has_grown(pool, alive):
        return float(pool.spec.idle_timeout_seconds)
    return None


def _has_grown(pool: SessionPool, pods: Sequence[PodView]) -> bool:
    """Whether there is a node with more pods than initialPoolSize."""
    return max(Counter(pod.owner.node for pod in pods).values(), default=0) > pool.spec.initial_pool_size


def _nodes(
    pool: SessionPool,
    revision: str,
    places: Mapping[str, Place],
    pods: Sequence[PodView],
    before: Mapping[str, int],
    held: Collection[str] = (),
    most: Mapping[str, int] | None = None,
) -> dict[str, _Node]:
    by_node: dict[str, list[PodView]] = {name: [] for name in places}
    for pod in pods:
        if pod.owner.node in by_node:
            by_node[pod.owner.node].append(pod)
    return {
        name: _node(pool, revision, places[name], found, before.get(name), name in held, allowed)
        for name, found, allowed in ((n, f, None if most is None else most.get(n, 0)) for n, f in by_node.items())
    }


def _node(
    pool: SessionPool,
    revision: str,
    place: Place,
    pods: Sequence[PodView],
    before: int | None,
    held: bool,
    most: int | None,
) -> _Node:
    spec = pool.spec
    here = [pod for pod in pods if pod.alive and pod.owner.node_uid == place.node.uid]
    old = sum(pod.owner.revision != revision for pod in here)
    sessions = len(here)
    if old:  # surge sessions are not to be taken for wanted ones
        sessions = max(old, len(here) - old) if before is None else before
    if place.compute_node and not place.closed:
        sessions = max(sessions, spec.initial_pool_size)
    sessions = min(sessions, spec.max_pool_size)
    failing = sum(pod.failure is not None and not pod.ready for pod in here)
    ended = any(pod.ended and not pod.deleting and pod.owner.revision == revision for pod in pods)
    leaving = 0 if old else len(pods) - len(here)  # in a rollout maxSurge bounds them
    spare, never = math.inf, 0  # never: those that are missing, and stay so
    if most is not None:
        spare = most - max(sessions, sum(slots_of(pod) for pod in pods if not pod.ended))
        never = max(sessions - max(most, len(here)), 0)
    return _Node(
        place=place,
        here=here,
        sessions=sessions,
        starting=sum(not pod.ready for pod in here) + max(sessions - len(here), 0),
        failing=failing + (max(sessions - len(here), 0) if held else never),
        stuck=failing > 0 or ended or held,
        rolling=old > 0,
        room=spec.max_pool_size - sessions - leaving,
        spare=spare,
    )


def _above_initial(pool: SessionPool, nodes: Mapping[str, _Node]) -> list[PodView]:
    """Ready pods above initialPoolSize, the highest slot first; each node keeps as many ready ones."""
    found = []
    for node in nodes.values():
        if node.rolling or not node.place.node.ready:
            continue
        ready = sorted((pod for pod in node.here if pod.ready), key=lambda pod: -pod.owner.slot)
        found += ready[: max(len(ready) - pool.spec.initial_pool_size, 0)]
    return sorted(found, key=lambda pod: (-pod.owner.slot, pod.owner.node))


def _stale(pool: SessionPool, nodes: Mapping[str, _Node], now: float) -> list[PodView]:
    """Pods above initialPoolSize that have failed to start for as long as idle ones may stay."""
    found = []
    for node in nodes.values():
        if node.rolling or not node.place.node.ready:
            continue
        failing = [pod for pod in node.here if not pod.ready and pod.failure]
        long = [pod for pod in failing if now - pod.created_at >= pool.spec.idle_timeout_seconds]
        long.sort(key=lambda pod: -pod.owner.slot)
        found += long[: max(len(node.here) - pool.spec.initial_pool_size, 0)]
    return found
