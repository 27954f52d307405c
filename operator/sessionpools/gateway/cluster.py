"""What the agent knows of the cluster: three reflectors. Each change calls `on_change`; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.model import PodView
from sessionpools.core.observe import pod_view
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Json, KubeApi
from sessionpools.kube.reflector import Reflector

__all__ = ["Cluster"]

M = TypeVar("M", SessionPool, WebService)


class Cluster:
    """`namespaces`: those that are watched; none: all but the `ignored` ones."""

    def __init__(
        self, api: KubeApi, namespaces: Sequence[str], on_change: Callable[[], None], ignored: Sequence[str] = ()
    ) -> None:
        scope = list(namespaces) or None
        self._on_change = on_change
        self.pools = Reflector(api, protocol.SESSION_POOLS, _pool, self._changed, scope, ignored=ignored)
        self.services = Reflector(api, protocol.WEB_SERVICES, _service, self._changed, scope, ignored=ignored)
        self.pods = Reflector(
            api, protocol.PODS, pod_view, self._pod_changed, scope, names.LABEL_POOL_UID, ignored=ignored
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in (self.pools, self.services, self.pods):
                group.create_task(reflector.run())

    async def wait_synced(self) -> None:
        for synced in (self.pools.synced, self.services.synced, self.pods.synced):
            await synced.wait()

    @property
    def synced(self) -> bool:
        return all(s.is_set() for s in (self.pools.synced, self.services.synced, self.pods.synced))

    def _changed(self, old: M | None, new: M | None) -> None:
        if old is None or new is None or _without_status(old) != _without_status(new):
            self._on_change()

    def _pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        if old != new:
            self._on_change()


def _without_status(thing: M) -> tuple[object, ...]:
    """What routes depend on."""
    return thing.metadata.uid, thing.metadata.deletion_timestamp, thing.spec


def _pool(body: Json) -> SessionPool:
    return _lenient(SessionPool, body)


def _service(body: Json) -> WebService:
    return _lenient(WebService, body)


def _lenient(kind: type[M], body: Json) -> M:
    """Without its status, which nothing here reads: values from a later version there are no reason to lose sight of
    the object."""
    return kind.model_validate({key: value for key, value in body.items() if key != "status"})
