"""Create, resize and delete the dedicated pool of a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.kube.protocol import SESSION_POOLS, AlreadyExists, Json, NotFound
from sessionpools.web import objects
from sessionpools.web.auth.identity import Principal
from sessionpools.web.auth.roles import Action, require
from sessionpools.web.cluster import Cluster
from sessionpools.web.errors import BadRequest, Clash, Missing
from sessionpools.web.models.pools import PoolRequest
from sessionpools.web.publishing import guard
from sessionpools.web.signatures import owner_of

__all__ = ["Pooling"]

# A pool that is being deleted keeps its name until its last session is gone. Another one under another name can begin
# meanwhile: the controller counts the one that stays.
NAMES_AT_MOST: Final = 9


@dataclass(frozen=True, slots=True)
class Pooling:
    cluster: Cluster

    async def put(self, who: Principal, name: str, version: str, request: PoolRequest, force: bool) -> bool:
        """Create the pool or change its sizes; whether it was created. Raises Problem, KubeError."""
        service = self.cluster.service(name, version)
        require(who, Action.WRITE_POOL, owner_of(service) if service else None)
        if service is None:
            raise Missing(
                f"there is no service {name!r} version {version!r} to make a pool for: publish it first; case matters",
                kind="ServiceNotFound",
            )
        # Once more from the start where another has created or deleted the pool between two steps.
        for _ in range(NAMES_AT_MOST):
            pool = self.cluster.pool(name, version)
            resize = pool is not None and not pool.metadata.deletion_timestamp
            object_name = pool.metadata.name if pool and resize else self._free_name(name, version)
            try:
                if resize:
                    await self._resize(object_name, request, force)
                    return False
                await self._create(who, object_name, name, version, request)
                return True
            except (AlreadyExists, NotFound):
                await self.cluster.catch_up(SESSION_POOLS, object_name)
        raise Clash(
            f"the pool of {name!r} version {version!r} is created and deleted by others at this moment: try again"
        )

    async def delete(self, who: Principal, name: str, version: str, force: bool) -> None:
        """In the foreground: the object stays, and its rows count down, until its last session is gone. A pool that is
        not there is deleted already; one that is leaving, too."""
        service = self.cluster.service(name, version)
        pool = self.cluster.pool(name, version)
        require(who, Action.DELETE_POOL, owner_of(service) if service else _owner(pool))
        while pool is not None and not pool.metadata.deletion_timestamp:
            try:
                read = await self.cluster.read(SESSION_POOLS, pool.metadata.name)
                guard(read, "pool", force)
                await self.cluster.delete(SESSION_POOLS, read, "Foreground")
            except NotFound:
                return
            left = self.cluster.pool(name, version)
            if left is None or left.metadata.uid == pool.metadata.uid:
                return  # what remains of the one is its foreground deletion
            pool = left

    async def _resize(self, object_name: str, request: PoolRequest, force: bool) -> None:
        def changed(read: Json) -> Json:
            guard(read, "pool", force)
            spec = read["spec"]
            initial, maximum = _sizes(request, int(spec["initialPoolSize"]), int(spec["maxPoolSize"]))
            return objects.resized(read, initial, maximum)

        await self.cluster.change(SESSION_POOLS, object_name, changed)

    async def _create(self, who: Principal, object_name: str, name: str, version: str, request: PoolRequest) -> None:
        initial, maximum = _sizes(request, 0, 0)
        body = objects.new_pool(self.cluster.namespace, object_name, name, version, who.name, initial, maximum)
        await self.cluster.create(SESSION_POOLS, body)

    def _free_name(self, name: str, version: str) -> str:
        taken = {pool.metadata.name for pool in self.cluster.pools_of(name, version)}
        first = objects.object_name(name, version)
        others = (f"{first}-{count}" for count in range(2, NAMES_AT_MOST + 1))
        return next((each for each in (first, *others) if each not in taken), first)


def _sizes(request: PoolRequest, initial: int, maximum: int) -> tuple[int, int]:
    """What is left out stays. Raises BadRequest."""
    initial = initial if request.initial_pool_size is None else request.initial_pool_size
    maximum = maximum if request.max_pool_size is None else request.max_pool_size
    if initial > maximum:
        raise BadRequest(
            f"initialPoolSize ({initial}) must not exceed maxPoolSize ({maximum}): lower the one or raise the other",
            kind="InvalidPoolSize",
        )
    return initial, maximum


def _owner(pool: SessionPool | None) -> str | None:
    return pool.metadata.annotations.get(names.ANNOTATION_OWNER, "") if pool else None
