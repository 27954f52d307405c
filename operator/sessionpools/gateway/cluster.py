"""What the agent knows of the cluster: a reflector for each kind. Each change calls `on_change`; nothing is decided
here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.model import PodView
from sessionpools.core.observe import pod_view
from sessionpools.gateway.keys import Published, of_config_map
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Json, KubeApi
from sessionpools.kube.reflector import Reflector

__all__ = ["Cluster"]

log = logging.getLogger(__name__)

M = TypeVar("M", SessionPool, WebService)


class Cluster:
    """`namespaces`: those that are watched; none: all but the `ignored` ones. `keys`: namespace and name of the
    ConfigMap with the public keys; None: there is nothing to verify."""

    def __init__(
        self,
        api: KubeApi,
        namespaces: Sequence[str],
        on_change: Callable[[], None],
        ignored: Sequence[str] = (),
        keys: tuple[str, str] | None = None,
    ) -> None:
        scope = list(namespaces) or None
        self._on_change = on_change
        self.pools = Reflector(api, protocol.SESSION_POOLS, _pool, self._changed, scope, ignored=ignored)
        self.services = Reflector(api, protocol.WEB_SERVICES, _service, self._changed, scope, ignored=ignored)
        self.pods = Reflector(
            api, protocol.PODS, pod_view, self._pod_changed, scope, names.LABEL_POOL_UID, ignored=ignored
        )
        self._keys: Reflector[Published] | None = None  # an empty one is false: ask whether it is None
        if keys:
            # One name: who may read no other ConfigMap may do this.
            by_name = f"metadata.name={keys[1]}"
            self._keys = Reflector(
                api, protocol.CONFIG_MAPS, of_config_map, self._keys_changed, [keys[0]], field_selector=by_name
            )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in (self.pools, self.services, self.pods):
                group.create_task(reflector.run())
            if self._keys is not None:
                group.create_task(self._keys.run())

    async def wait_synced(self) -> None:
        for synced in self._all_synced:
            await synced.wait()

    @property
    def synced(self) -> bool:
        return all(synced.is_set() for synced in self._all_synced)

    @property
    def keys(self) -> Mapping[str, str]:
        """The published public keys, by kid; none when there is no ConfigMap."""
        found = [published.keys for published in self._keys.values()] if self._keys is not None else []
        return found[0] if found else {}

    @property
    def _all_synced(self) -> list[asyncio.Event]:
        synced = [self.pools.synced, self.services.synced, self.pods.synced]
        return synced if self._keys is None else [*synced, self._keys.synced]

    def _keys_changed(self, old: Published | None, new: Published | None) -> None:
        if new is None:
            log.warning("the ConfigMap with the public keys is gone: those that were known stay")
        elif new.refused and (old is None or old.refused != new.refused):
            log.error("public keys are refused", extra={"refused": "; ".join(new.refused)})
        self._on_change()

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
