"""What the controller knows of the cluster: four reflectors and the indexes over them.

Each change is turned into the keys that it concerns and handed to `enqueue`; nothing is decided here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.observe import node_view, pod_view
from sessionpools.kube import protocol
from sessionpools.kube.protocol import KubeApi
from sessionpools.kube.reflector import Reflector

__all__ = ["Key", "Kind", "Store"]


class Kind(StrEnum):
    POOL = "SessionPool"
    SERVICE = "WebService"


@dataclass(frozen=True, slots=True)
class Key:
    """What a reconciliation is about."""

    kind: Kind
    namespace: str
    name: str


class Store:
    def __init__(self, api: KubeApi, namespaces: Sequence[str], enqueue: Callable[[Key], None]) -> None:
        scope = list(namespaces) or None
        self._enqueue = enqueue
        self._pods: defaultdict[str, dict[str, PodView]] = defaultdict(dict)
        self._deleting: set[str] = set()
        self.pools = Reflector(api, protocol.SESSION_POOLS, SessionPool.model_validate, self._pool_changed, scope)
        self.services = Reflector(api, protocol.WEB_SERVICES, WebService.model_validate, self._service_changed, scope)
        self.pods = Reflector(
            api, protocol.PODS, pod_view, self._pod_changed, scope, label_selector=names.LABEL_POOL_UID
        )
        self.nodes = Reflector(api, protocol.NODES, node_view, self._node_changed, None)
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

    def pools_in(self, namespace: str) -> list[SessionPool]:
        return [pool for pool in self.pools.values() if pool.metadata.namespace == namespace]

    def services_in(self, namespace: str) -> list[WebService]:
        return [service for service in self.services.values() if service.metadata.namespace == namespace]

    def pods_of(self, pool: SessionPool) -> list[PodView]:
        """The pool's session pods, with those whose deletion was accepted marked even before the watch says so."""
        found = self._pods.get(pool.metadata.uid, {}).values()
        return [replace(pod, deleting=True) if pod.uid in self._deleting else pod for pod in found]

    def deletion_accepted(self, pod: PodView) -> None:
        if pod.uid in self._pods.get(pod.owner.pool_uid, {}):
            self._deleting.add(pod.uid)

    def all_keys(self) -> Iterable[Key]:
        for pool in self.pools.values():
            yield _pool_key(pool)
        for service in self.services.values():
            yield _service_key(service)

    # --- changes ----------------------------------------------------------------------------------------------------

    def _pool_changed(self, old: SessionPool | None, new: SessionPool | None) -> None:
        pool = new or old
        if pool is None:
            return
        self._enqueue(_pool_key(pool))
        for service in self.services_in(pool.metadata.namespace):
            if _serves(pool, service):
                self._enqueue(_service_key(service))
        if old is None or new is None:  # one of two pools of the same service may have its turn now
            for other in self.pools_in(pool.metadata.namespace):
                if other.spec.service_name == pool.spec.service_name:
                    self._enqueue(_pool_key(other))

    def _service_changed(self, old: WebService | None, new: WebService | None) -> None:
        service = new or old
        if service is None:
            return
        self._enqueue(_service_key(service))
        if old and new and old.metadata.generation == new.metadata.generation and _same_life(old, new):
            return  # its status changed: no pool depends on that
        for pool in self.pools_in(service.metadata.namespace):
            if _serves(pool, service):
                self._enqueue(_pool_key(pool))
        for other in self.services_in(service.metadata.namespace):
            if other.spec.name == service.spec.name and other.metadata.uid != service.metadata.uid:
                self._enqueue(_service_key(other))

    def _pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        if old == new:
            return
        if old is not None and (new is None or new.uid != old.uid):
            of_pool = self._pods[old.owner.pool_uid]
            of_pool.pop(old.uid, None)
            if not of_pool:
                del self._pods[old.owner.pool_uid]
            self._deleting.discard(old.uid)
        if new is not None:
            self._pods[new.owner.pool_uid][new.uid] = new
        for pod in filter(None, (old, new)):
            self._enqueue(Key(Kind.POOL, pod.namespace, pod.owner.pool))

    def _node_changed(self, old: NodeView | None, new: NodeView | None) -> None:
        if old == new:  # a heartbeat
            return
        for pool in self.pools.values():
            self._enqueue(_pool_key(pool))


def _pool_key(pool: SessionPool) -> Key:
    return Key(Kind.POOL, pool.metadata.namespace, pool.metadata.name)


def _service_key(service: WebService) -> Key:
    return Key(Kind.SERVICE, service.metadata.namespace, service.metadata.name)


def _serves(pool: SessionPool, service: WebService) -> bool:
    return (pool.spec.service_name, pool.spec.service_version) == (service.spec.name, service.spec.version)


def _same_life(old: WebService, new: WebService) -> bool:
    return old.metadata.uid == new.metadata.uid and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
