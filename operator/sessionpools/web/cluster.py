"""What the web API knows of the cluster, and every change that it makes of it. The only module here that uses `kube`.

Four reflectors hold what is there: web services, pools and session pods of the API's namespace, and the nodes. Lists
are read from them, at no cost to the API server. A change reads the object itself first, writes under the version that
it has read, and returns when the reflector shows it: who asks the same replica next sees what they have done. Another
replica may show it some milliseconds later.

Of two objects with one key (service name and version) the oldest counts, as everywhere (core.keys).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from pydantic import ValidationError

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.core.keys import age_of, key_of
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.observe import node_view, pod_view
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Conflict, Json, KubeApi, NotFound, Resource
from sessionpools.kube.reflector import Reflector
from sessionpools.web.objects import bundle_of, object_name

__all__ = ["Cluster"]

_log = logging.getLogger(__name__)
M = TypeVar("M", SessionPool, WebService)

# A watch lags by milliseconds. If it is broken, what was written is written all the same: the answer says so then.
SHOWN_WITHIN_SECONDS: Final = 5.0
ATTEMPTS: Final = 8  # to write under the version that was read; each loss means that another has written
HOSTNAME: Final = "kubernetes.io/hostname"


class Cluster:
    """`namespace` is the one that ML Server's paths mean, `watched` all that the release serves (none: all there are).
    `nodes` are the names of the compute nodes where nodes may not be read: of those nothing else is known."""

    def __init__(self, api: KubeApi, namespace: str, watched: Sequence[str] = (), nodes: Sequence[str] = ()) -> None:
        self.namespace = namespace
        self._watched = watched
        self._api = api
        self._changed = asyncio.Event()
        scope = [namespace]
        self._services = Reflector(api, protocol.WEB_SERVICES, _service, self._service_changed, scope)
        self._pools = Reflector(api, protocol.SESSION_POOLS, _pool, self._pool_changed, scope)
        self._pods = Reflector(api, protocol.PODS, pod_view, self._pod_changed, scope, names.LABEL_POOL_UID)
        self._named = [NodeView(name, f"named/{name}", True, True, {HOSTNAME: name}) for name in nodes]
        self._nodes = None if nodes else Reflector(api, protocol.NODES, node_view, lambda old, new: None, None)
        # Pools that are gone while session pods of theirs are not: uid and the service that they were for.
        self._former: dict[str, tuple[str, str]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors():
                group.create_task(reflector.run())

    async def wait_synced(self) -> None:
        for reflector in self._reflectors():
            await reflector.synced.wait()

    @property
    def synced(self) -> bool:
        return all(reflector.synced.is_set() for reflector in self._reflectors())

    @property
    def silent_seconds(self) -> float:
        """For how long the API server has said nothing to the reflector that waits longest, bookmarks included."""
        return time.monotonic() - min(reflector.last_seen for reflector in self._reflectors())

    # --- reading ----------------------------------------------------------------------------------------------------

    def services(self) -> list[WebService]:
        """One of each key."""
        oldest: dict[tuple[str, str, str], WebService] = {}
        for service in sorted(self._services.values(), key=age_of):
            if not service.metadata.deletion_timestamp:
                oldest.setdefault(key_of(service), service)
        return list(oldest.values())

    def service(self, name: str, version: str) -> WebService | None:
        return _oldest(
            s for s in self._alive(self._services.values()) if (s.spec.name, s.spec.version) == (name, version)
        )

    def pool(self, name: str, version: str) -> SessionPool | None:
        """The pool of a service; one that is being deleted only if there is no other."""
        found = self.pools_of(name, version)
        return _oldest(self._alive(found)) or _oldest(found)

    def pools_of(self, name: str, version: str) -> list[SessionPool]:
        """All of a service: one that serves, others that are being deleted or that are not needed."""
        return [p for p in self._pools.values() if (p.spec.service_name, p.spec.service_version) == (name, version)]

    def pools(self) -> list[SessionPool]:
        return list(self._pools.values())

    def pods(self, name: str, version: str) -> list[PodView]:
        """Session pods of all pools that the service has or had, as long as they are there."""
        uids = {pool.metadata.uid for pool in self.pools_of(name, version)}
        uids |= {uid for uid, key in self._former.items() if key == (name, version)}
        # After a restart nothing is remembered of pools that were gone before: this API's own are known by their name.
        known, ours = {pool.metadata.uid for pool in self._pools.values()}, object_name(name, version)
        return [
            pod
            for pod in self._pods.values()
            if pod.owner.pool_uid in uids or (pod.owner.pool_uid not in known and pod.owner.pool == ours)
        ]

    def all_pods(self) -> Iterator[PodView]:
        return self._pods.values()

    def nodes(self) -> list[NodeView]:
        return list(self._nodes.values()) if self._nodes is not None else list(self._named)

    async def bundles(self) -> set[str]:
        """The digests of all bundles that web services name, read from the API server: what is not among them may be
        deleted from the store. Raises KubeError."""
        return {bundle_of(body.get("spec") or {}) async for body in self._listed_services()} - {""}

    async def snapshots(self) -> set[str]:
        """The ids of the snapshots that web services were published from, read likewise. Raises KubeError."""
        metadata = [body["metadata"] async for body in self._listed_services()]
        return {(each.get("annotations") or {}).get(names.ANNOTATION_SNAPSHOT, "") for each in metadata} - {""}

    async def _listed_services(self) -> AsyncIterator[Json]:
        """Of all namespaces that are watched, by the API server and not from memory."""
        everywhere: Sequence[str | None] = [None]
        for namespace in self._watched or everywhere:
            token = ""
            while True:
                page = await self._api.list_page(protocol.WEB_SERVICES, namespace=namespace, continue_token=token)
                for body in page.get("items") or ():
                    yield body
                token = page["metadata"].get("continue") or ""
                if not token:
                    break

    # --- writing: KubeErrors come through ---------------------------------------------------------------------------

    async def read(self, resource: Resource, name: str) -> Json:
        """As the API server has it now."""
        return await self._api.get(resource, name, namespace=self.namespace)

    async def create(self, resource: Resource, body: Json) -> Json:
        """Raises AlreadyExists if the name is taken."""
        created = await self._api.create(resource, body, namespace=self.namespace)
        await self._shown(resource, created)
        return created

    async def change(self, resource: Resource, name: str, changed: Callable[[Json], Json]) -> Json:
        """Write what `changed` makes of the object, which it is given as it is now; again if it has changed meanwhile.
        What `changed` raises comes through, and nothing is written."""
        for attempt in range(ATTEMPTS):
            read = await self.read(resource, name)
            body = changed(read)
            if body == read:
                return read
            try:
                written = await self._api.update(resource, body, namespace=self.namespace)
            except Conflict:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            await self._shown(resource, written)
            return written
        raise AssertionError

    async def delete(self, resource: Resource, read: Json, propagation: str = "Background") -> None:
        """Delete the object that was read, and none that was made in its place since: that is a Conflict."""
        metadata = read["metadata"]
        await self._api.delete(
            resource, metadata["name"], namespace=self.namespace, uid=metadata["uid"], propagation=propagation
        )
        await self._until(lambda: self._is_leaving(resource, metadata["name"], metadata["uid"]))

    async def catch_up(self, resource: Resource, name: str) -> None:
        """Return when the reflector shows the object as the API server has it now, or that there is none."""
        try:
            read = await self.read(resource, name)
        except NotFound:
            await self._until(lambda: self._held(resource, name) is None)
        else:
            await self._shown(resource, read)

    # --- logs -------------------------------------------------------------------------------------------------------

    async def log(self, pod: str, lines: int, limit_bytes: int) -> bytes:
        """The end of a session pod's log, as KubeApi.log reads it. Raises KubeError."""
        return await self._api.log(pod, names.CONTAINER, namespace=self.namespace, lines=lines, limit_bytes=limit_bytes)

    # --- what the reflectors show -----------------------------------------------------------------------------------

    async def _shown(self, resource: Resource, written: Json) -> None:
        metadata = written["metadata"]

        def shows() -> bool:
            held = self._held(resource, metadata["name"])
            return held is not None and _at_least(held, metadata["uid"], metadata["resourceVersion"])

        await self._until(shows)

    def _is_leaving(self, resource: Resource, name: str, uid: str) -> bool:
        held = self._held(resource, name)
        return held is None or held.metadata.uid != uid or held.metadata.deletion_timestamp is not None

    def _held(self, resource: Resource, name: str) -> WebService | SessionPool | None:
        if resource is protocol.WEB_SERVICES:
            return self._services.get(self.namespace, name)
        return self._pools.get(self.namespace, name)

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                while not holds():
                    await self._changed.wait()
        except TimeoutError:
            _log.warning("written, but not seen yet", extra={"silentSeconds": round(self.silent_seconds, 1)})

    def _alive(self, things: Iterable[M]) -> Iterator[M]:
        return (thing for thing in things if not thing.metadata.deletion_timestamp)

    def _reflectors(
        self,
    ) -> Iterator[Reflector[WebService] | Reflector[SessionPool] | Reflector[PodView] | Reflector[NodeView]]:
        yield self._services
        yield self._pools
        yield self._pods
        if self._nodes is not None:
            yield self._nodes

    # --- changes ----------------------------------------------------------------------------------------------------

    def _service_changed(self, old: WebService | None, new: WebService | None) -> None:
        self._tell()

    def _pool_changed(self, old: SessionPool | None, new: SessionPool | None) -> None:
        if old is not None and new is None and any(p.owner.pool_uid == old.metadata.uid for p in self._pods.values()):
            self._former[old.metadata.uid] = (old.spec.service_name, old.spec.service_version)
        self._tell()

    def _pod_changed(self, old: PodView | None, new: PodView | None) -> None:
        gone = old.owner.pool_uid if old is not None and new is None else ""
        if gone in self._former and not any(pod.owner.pool_uid == gone for pod in self._pods.values()):
            del self._former[gone]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _oldest(things: Iterable[M]) -> M | None:
    return min(things, key=age_of, default=None)


def _at_least(held: WebService | SessionPool, uid: str, version: str) -> bool:
    if held.metadata.uid != uid:
        return True  # made anew since
    try:
        return int(held.metadata.resource_version) >= int(version)
    except ValueError:
        return held.metadata.resource_version == version


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
