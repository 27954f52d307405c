"""What the controller knows of the cluster: four reflectors and the indexes over them.

Each change is turned into the keys that it concerns and handed to `enqueue`; nothing is decided here.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import ValidationError

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.controller.ledger import Ledger
from sessionpools.controller.nodes import NamedNodes
from sessionpools.controller.places import Places
from sessionpools.core.keys import Served, key_of
from sessionpools.core.limits import slots_of_new
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.observe import node_view, pod_view
from sessionpools.core.placement import place
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Json, KubeApi
from sessionpools.kube.reflector import Reflector

__all__ = ["SHOWN_WITHIN_SECONDS", "Key", "Kind", "Store", "pool_key", "service_key"]

M = TypeVar("M", SessionPool, WebService)


# Far longer than a watch lags; then a pod that was created may have been deleted unseen (seconds).
SHOWN_WITHIN_SECONDS = 30.0


class Kind(StrEnum):
    POOL = "SessionPool"
    SERVICE = "WebService"


@dataclass(frozen=True, slots=True)
class Key:
    """What a reconciliation is about."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Awaited:
    """A session pod whose creation was sent."""

    at: float  # monotonic seconds
    pool_uid: str
    node: str
    sessions: int  # that it counts as


class _ByKey(Generic[M]):
    """The index by which pools and web services find each other."""

    def __init__(self) -> None:
        self._things: defaultdict[Served, dict[str, M]] = defaultdict(dict)

    def of(self, served: Served) -> list[M]:
        return list(self._things.get(served, {}).values())

    def change(self, old: M | None, new: M | None) -> None:
        if old is not None:
            same = self._things[key_of(old)]
            same.pop(old.metadata.name, None)
            if not same:
                del self._things[key_of(old)]
        if new is not None:
            self._things[key_of(new)][new.metadata.name] = new


class Store:
    def __init__(
        self,
        api: KubeApi,
        namespaces: Sequence[str],
        enqueue: Callable[[Key], None],
        left: Callable[[PodView], None] = lambda pod: None,
        starts: Callable[[Key, int], None] | None = None,
        *,
        ignored: Sequence[str] = (),
        nodes: Sequence[str] = (),
        sessions_per_node: int = 0,
    ) -> None:
        """`left` is told of each session pod once, when it begins to leave, whoever deletes it; `starts`, in place of
        `enqueue`, of a pool of which nothing has changed but that a pod comes nearer to being ready, and of how many of
        its pods are on their way to that. `ignored` are namespaces that are none of ours, of all; `nodes` the names of
        nodes that can not be read; `sessions_per_node` the limit of all pools together, 0: there is none."""
        scope = list(namespaces) or None
        self._enqueue = enqueue
        self._left = left
        self._starts = starts or (lambda key, starting: enqueue(key))
        self._pools_by_key: _ByKey[SessionPool] = _ByKey()
        self._services_by_key: _ByKey[WebService] = _ByKey()
        self._pods: defaultdict[str, dict[str, PodView]] = defaultdict(dict)
        self._starting: Counter[str] = Counter()  # pods on their way to being ready, by pool
        self._deleting: set[str] = set()
        self._created: dict[tuple[str, str], _Awaited] = {}
        self.ledger = Ledger(sessions_per_node, lambda pool: enqueue(pool_key(pool))) if sessions_per_node else None
        self.pools = Reflector(api, protocol.SESSION_POOLS, _pool, self._pool_changed, scope, ignored=ignored)
        self.services = Reflector(api, protocol.WEB_SERVICES, _service, self._service_changed, scope, ignored=ignored)
        self.pods = Reflector(
            api, protocol.PODS, pod_view, self._pod_changed, scope, names.LABEL_POOL_UID, ignored=ignored
        )
        self.nodes: Reflector[NodeView] | NamedNodes = (
            NamedNodes(nodes) if nodes else Reflector(api, protocol.NODES, node_view, self._node_changed, None)
        )
        self.places = Places(self.nodes.values, lambda name: self.nodes.get("", name))
        if self.ledger and nodes:
            for node in self.nodes.values():
                self.ledger.node_changed(None, node)
        self._reflectors = (self.pools, self.services, self.pods, self.nodes)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def wait_synced(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()

    @property
    def synced(self) -> bool:
        return all(reflector.synced.is_set() for reflector in self._reflectors)

    @property
    def last_seen(self) -> float:
        """When the reflector that is silent for longest last heard of the API server (monotonic seconds)."""
        return min(reflector.last_seen for reflector in self._reflectors)

    # --- reading ----------------------------------------------------------------------------------------------------

    def pool(self, key: Key) -> SessionPool | None:
        return self.pools.get(key.namespace, key.name)

    def service(self, key: Key) -> WebService | None:
        return self.services.get(key.namespace, key.name)

    def pools_of(self, served: Served) -> list[SessionPool]:
        """The pools of a web service; one of them counts."""
        return self._pools_by_key.of(served)

    def services_of(self, served: Served) -> list[WebService]:
        """The web services of that key; one of them counts."""
        return self._services_by_key.of(served)

    def pods_of(self, pool: SessionPool) -> list[PodView]:
        """The pool's session pods, with those whose deletion was accepted marked even before the watch says so."""
        found = self._pods.get(pool.metadata.uid, {}).values()
        return [
            replace(pod, deleting=True) if pod.uid in self._deleting else pod
            for pod in found
            if pod.namespace == pool.metadata.namespace
        ]

    def creation_sent(self, pool: SessionPool, name: str, node: str) -> None:
        """To be said before the request is sent: the watch may be faster than the answer, and may even have shown that
        the pod is gone by then."""
        now = time.monotonic()
        while self._created and not _recent(next(iter(self._created.values())), now):
            del self._created[next(iter(self._created))]  # the oldest comes first; this one was never shown
        self._created.pop((pool.metadata.namespace, name), None)
        sent = _Awaited(now, pool.metadata.uid, node, slots_of_new(pool))
        self._created[pool.metadata.namespace, name] = sent

    def creation_failed(self, pool: SessionPool, name: str) -> None:
        self._created.pop((pool.metadata.namespace, name), None)

    def awaits(self, pool: SessionPool, name: str) -> bool:
        """Whether this pod's creation was sent, and the watch has not shown it yet."""
        sent = self._created.get((pool.metadata.namespace, name))
        return sent is not None and _recent(sent, time.monotonic())

    def awaited(self, pool: SessionPool, but: Collection[str] = ()) -> dict[str, int]:
        """How many sessions of the pool are awaited so on each node, but for the pods of these names."""
        now, found = time.monotonic(), dict[str, int]()
        for (_, name), sent in self._created.items():
            if sent.pool_uid == pool.metadata.uid and name not in but and _recent(sent, now):
                found[sent.node] = found.get(sent.node, 0) + sent.sessions
        return found

    def has(self, pool: SessionPool, name: str) -> bool:
        """Whether the watch has shown such a pod of the pool, since a plan was made perhaps, and it stays."""
        pod = self.pods.get(pool.metadata.namespace, name)
        return pod is not None and pod.alive and pod.owner.pool_uid == pool.metadata.uid

    def deletion_accepted(self, pod: PodView) -> None:
        if pod.uid in self._pods.get(pod.owner.pool_uid, {}):
            self._deleting.add(pod.uid)

    def all_keys(self) -> Iterable[Key]:
        for pool in self.pools.values():
            yield pool_key(pool)
        for service in self.services.values():
            yield service_key(service)

    # --- changes ----------------------------------------------------------------------------------------------------

    def _pool_changed(self, old: SessionPool | None, new: SessionPool | None) -> None:
        self._pools_by_key.change(old, new)
        if self.ledger:
            self.ledger.pool_changed(old, new)
        pool = new or old
        if pool is None:
            return
        self._enqueue(pool_key(pool))
        for service in self.services_of(key_of(pool)):
            self._enqueue(service_key(service))
        if old is None or new is None or old.metadata.deletion_timestamp != new.metadata.deletion_timestamp:
            for other in self.pools_of(key_of(pool)):  # one of two pools of a service may have its turn now
                self._enqueue(pool_key(other))

    def _service_changed(self, old: WebService | None, new: WebService | None) -> None:
        self._services_by_key.change(old, new)
        service = new or old
        if service is None:
            return
        self._enqueue(service_key(service))
        if old and new and old.metadata.generation == new.metadata.generation and _same_life(old, new):
            return  # its status changed: no pool depends on that
        for pool in self.pools_of(key_of(service)):
            self._enqueue(pool_key(pool))
        for other in self.services_of(key_of(service)):
            self._enqueue(service_key(other))

    def _pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        if old == new:
            return
        if self.ledger:
            self.ledger.pod_changed(old, new)
        for pod, change in ((old, -1), (new, 1)):
            if pod and _is_starting(pod):
                self._starting[pod.owner.pool_uid] += change
        if old is not None and (new is None or new.uid != old.uid):
            of_pool = self._pods[old.owner.pool_uid]
            of_pool.pop(old.uid, None)
            if not of_pool:
                del self._pods[old.owner.pool_uid]
                del self._starting[old.owner.pool_uid]
            self._deleting.discard(old.uid)
        if old is not None and old.alive and not (new and new.uid == old.uid and not new.deleting):
            self._left(old)
        if new is not None:
            self._created.pop((new.namespace, new.name), None)
            self._pods[new.owner.pool_uid][new.uid] = new
        if new and new.alive and not new.failure and (old is None or (old.uid == new.uid and _is_starting(old))):
            self._starts(Key(Kind.POOL, new.namespace, new.owner.pool), self._starting[new.owner.pool_uid])
            return
        for pod in filter(None, (old, new)):
            self._enqueue(Key(Kind.POOL, pod.namespace, pod.owner.pool))

    def _node_changed(self, old: NodeView | None, new: NodeView | None) -> None:
        if old == new:  # a heartbeat
            return
        self.places.node_changed(old, new)
        if self.ledger:
            self.ledger.node_changed(old, new)
        for pool in self.pools.values():
            if self._concerns(pool, old) or self._concerns(pool, new):
                self._enqueue(pool_key(pool))

    def _concerns(self, pool: SessionPool, node: NodeView | None) -> bool:
        """Whether the pool's sessions belong on the node, or some are there."""
        if node is None:
            return False
        pods = self._pods.get(pool.metadata.uid, {}).values()
        return place(pool.spec.placement, node).compute_node or any(pod.owner.node == node.name for pod in pods)


def _is_starting(pod: PodView) -> bool:
    return pod.alive and not pod.ready and not pod.failure


def _recent(sent: _Awaited, now: float) -> bool:
    return now - sent.at < SHOWN_WITHIN_SECONDS


def pool_key(pool: SessionPool) -> Key:
    return Key(Kind.POOL, pool.metadata.namespace, pool.metadata.name)


def service_key(service: WebService) -> Key:
    return Key(Kind.SERVICE, service.metadata.namespace, service.metadata.name)


def _pool(body: Json) -> SessionPool:
    return _lenient(SessionPool, body)


def _service(body: Json) -> WebService:
    return _lenient(WebService, body)


def _lenient(kind: type[M], body: Json) -> M:
    """Without its status if that has values from a later version: they are no reason to lose sight of the object."""
    try:
        return kind.model_validate(body)
    except ValidationError:
        return kind.model_validate({key: value for key, value in body.items() if key != "status"})


def _same_life(old: WebService, new: WebService) -> bool:
    return old.metadata.uid == new.metadata.uid and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
