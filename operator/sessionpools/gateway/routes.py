"""From the cluster's objects to what HAProxy must be: which web services are published, and which slots are open.

Pure. Called by agent.py after every change; everything that it returns is sorted, so that the same cluster gives the
same routes.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool, WebService
from sessionpools.core.keys import Served, key_of, pool_of
from sessionpools.core.model import PodView
from sessionpools.core.sessions import isolation_of
from sessionpools.gateway.model import OpenSlot, Route

__all__ = ["RANKS_PER_SLOT", "routes", "usable"]

T = TypeVar("T", SessionPool, WebService)

# HAProxy's server ids: slot 0 of every node, then slot 1 of every node: load spreads before it climbs. A pool on more
# nodes than this climbs a little earlier.
RANKS_PER_SLOT: Final = 1000

_NAME: Final = re.compile(r"[a-z0-9.-]+")  # Kubernetes' own rule for names; anything else must not reach HAProxy


def routes(
    pools: Iterable[SessionPool],
    services: Iterable[WebService],
    pods: Iterable[PodView],
    max_seen: Mapping[str, int],
) -> tuple[Route, ...]:
    """`max_seen`: by pod uid, the maxPoolSize that the pod's supervisor says it has read."""
    pools_by_key = _by_key(pools)
    pods_by_pool: dict[str, list[PodView]] = defaultdict(list)
    for pod in pods:
        if usable(pod):
            pods_by_pool[pod.owner.pool_uid].append(pod)
    found = []
    for key, same in _by_key(services).items():
        published = [service for service in same if not service.metadata.deletion_timestamp]
        if not published:
            continue
        pool = pool_of(published[0], pools_by_key.get(key, ()))
        # An owner reference is only text: who may make pods elsewhere must not get this namespace's calls.
        own = [p for p in pods_by_pool.get(pool.metadata.uid, ()) if p.namespace == key[0]] if pool else []
        found.append(_route(key, pool, own, max_seen))
    return tuple(sorted(found, key=lambda route: (route.namespace, route.service, route.version)))


def usable(pod: PodView) -> bool:
    """Whether calls may be sent there: ready, not on its way out, and with names and an address as Kubernetes makes
    them (HAProxy's commands are made of these)."""
    return (
        pod.ready
        and pod.alive
        and _is_address(pod.address)
        and _NAME.fullmatch(pod.owner.node) is not None
        and _NAME.fullmatch(pod.name) is not None
    )


def _open_slots(pool: SessionPool, pods: Sequence[PodView], max_seen: Mapping[str, int]) -> tuple[OpenSlot, ...]:
    """The slots of a pool that calls may be sent to, by rank. `pods`: of this pool, usable.

    No node has more than maxPoolSize: while a rollout has old and new pods there, the old ones keep theirs until they
    go. The highest slots are the first to be closed.
    """
    by_node: dict[str, list[PodView]] = defaultdict(list)
    for pod in pods:
        by_node[pod.owner.node].append(pod)
    ranked: list[tuple[int, PodView, int]] = []
    for index, node in enumerate(sorted(by_node)):
        room = pool.spec.max_pool_size
        for pod in _oldest_revision_first(by_node[node]):
            for slot in list(_slots_of(pool, pod, max_seen))[: max(room, 0)]:
                rank_of = slot if isolation_of(pool, pod) is Isolation.PROCESS else pod.owner.slot
                ranked.append((rank_of * RANKS_PER_SLOT + index + 1, pod, slot))
                room -= 1
    slots, last = [], 0
    for rank, pod, slot in sorted(ranked, key=lambda each: (each[0], each[1].created_at, each[1].name)):
        last = max(rank, last + 1)  # two pods of a node may have one slot number during a rollout
        server = f"{pod.owner.node}:{pod.name}:{slot}"
        slots.append(OpenSlot(server, pod.address, names.SLOT_PORT + slot, last))
    return tuple(slots)


def _slots_of(pool: SessionPool, pod: PodView, max_seen: Mapping[str, int]) -> range:
    """The slots of a pod that listen for certain. Before a Process pod has said how many it has, those are its initial
    ones: it would not be ready without them."""
    if isolation_of(pool, pod) is Isolation.POD:
        return range(1)
    return range(min(pool.spec.max_pool_size, max_seen.get(pod.uid, pool.spec.initial_pool_size)))


def _oldest_revision_first(pods: Sequence[PodView]) -> list[PodView]:
    began: dict[str, float] = {}
    for pod in pods:
        began[pod.owner.revision] = min(pod.created_at, began.get(pod.owner.revision, pod.created_at))
    return sorted(pods, key=lambda p: (began[p.owner.revision], p.owner.revision, p.owner.slot, p.created_at, p.name))


def _route(key: Served, pool: SessionPool | None, pods: Sequence[PodView], max_seen: Mapping[str, int]) -> Route:
    namespace, service, version = key
    if pool is None:
        return Route(namespace, service, version, "", "", 0, 0, 0)
    spec = pool.spec
    return Route(
        namespace=namespace,
        service=service,
        version=version,
        pool=pool.metadata.name,
        pool_uid=pool.metadata.uid,
        queue_length=spec.queue.max_length,
        queue_seconds=spec.queue.timeout_seconds,
        request_seconds=spec.request_timeout_seconds,
        slots=_open_slots(pool, pods, max_seen),
        pods=tuple(sorted(Counter(pod.owner.revision for pod in pods).items())),
    )


def _by_key(things: Iterable[T]) -> dict[Served, list[T]]:
    found: dict[Served, list[T]] = defaultdict(list)
    for thing in things:
        found[key_of(thing)].append(thing)
    return found


@lru_cache(maxsize=16384)  # the same addresses again at each change
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
