"""What the routes work with, put together once for a process (`assemble`), and what of it runs in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi
from sessionpools.web.auth import tokens
from sessionpools.web.auth.identity import IdentitySource, Principal, Role
from sessionpools.web.auth.keystore import KeyRing
from sessionpools.web.auth.limits import LoginLimit
from sessionpools.web.auth.logins import Authentication, Logins, OpenDoor
from sessionpools.web.auth.passwords import Passwords
from sessionpools.web.auth.refresh import RefreshTokens
from sessionpools.web.auth.users import LocalUsers
from sessionpools.web.batch.batches import Batches, Headers, Service
from sessionpools.web.batch.calls import OwnerGone
from sessionpools.web.bundlefiles import Texts
from sessionpools.web.cluster import Cluster
from sessionpools.web.gateways import Gateways
from sessionpools.web.pooling import Pooling
from sessionpools.web.publishing import INIT_BLOCK, SCRIPT, Publishing
from sessionpools.web.references import References
from sessionpools.web.settings import Settings
from sessionpools.web.store.authoring import Authoring
from sessionpools.web.store.bundles import Bundles
from sessionpools.web.store.collect import Collector
from sessionpools.web.store.objects import ObjectStore

__all__ = ["Parts", "assemble"]

# A batch's token serves many of its calls: HAProxy verifies a header that it has just seen with a look at the clock.
_TOKEN_USED_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    cluster: Cluster
    auth: Authentication
    keys: KeyRing | None  # None: authentication is turned off
    store: ObjectStore
    bundles: Bundles
    texts: Texts
    authoring: Authoring
    batches: Batches
    publishing: Publishing
    pooling: Pooling
    gateways: Gateways
    pods: PodClient
    collector: Collector

    async def run(self) -> None:
        """All that happens without being asked, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.cluster.run())
                group.create_task(self.gateways.run())
                group.create_task(self.batches.run())
                group.create_task(self.collector.run())
                if self.keys:
                    group.create_task(self.keys.run())
        finally:
            await self.pods.close()

    def not_ready_because(self) -> str:
        """ "" when requests can be answered. That the API server or the store is away later is no reason to take this
        replica out of service: what needs neither is answered."""
        if not self.cluster.synced:
            return "the caches are not complete yet"
        if not self.auth.ready:
            return "there is no key to sign access tokens with yet"
        return ""


def assemble(api: KubeApi, settings: Settings, store: ObjectStore, *, clock: Callable[[], float] = time.time) -> Parts:
    """`clock` is in seconds since the epoch."""
    cluster = Cluster(api, settings.api_namespace, settings.watched, settings.nodes)
    bundles, authoring = Bundles(store), Authoring(store, clock)
    refresh_tokens = RefreshTokens(store, clock=clock)
    keys = _keys(api, settings, clock) if settings.auth_enabled else None
    auth: Authentication
    headers: Headers = _no_headers
    if keys:
        source = LocalUsers(Passwords(), admin_password=settings.admin_password, users=settings.users)
        auth = Logins(source, keys, refresh_tokens, LoginLimit(), clock=clock)
        headers = _headers(keys, source, clock)
    else:
        auth = OpenDoor(clock=clock)

    def known(service: Service) -> bool:
        return not cluster.synced or cluster.service(service.name, service.version) is not None

    batches = Batches(
        store,
        settings.gateway_url,
        headers,
        settings.pod,
        certificate=settings.gateway_certificate,
        known=known,
    )

    async def expire_authoring() -> None:
        await authoring.expire(await cluster.snapshots())

    chores: Mapping[str, Callable[[], Awaitable[object]]] = {
        "authoring": expire_authoring,
        "batches": batches.expire,
        "refresh tokens": refresh_tokens.expire,
    }
    return Parts(
        settings=settings,
        cluster=cluster,
        auth=auth,
        keys=keys,
        store=store,
        bundles=bundles,
        texts=Texts(bundles, (SCRIPT, INIT_BLOCK)),
        authoring=authoring,
        batches=batches,
        publishing=Publishing(cluster, bundles, authoring, settings.bundles_url, clock),
        pooling=Pooling(cluster),
        gateways=Gateways(api, settings.namespace, settings.gateway_labels, settings.gateway_port),
        pods=PodClient(),
        collector=Collector(
            store,
            settings.pod,
            References(store, cluster.bundles, clock).known,
            {name: _chore(chore) for name, chore in chores.items()},
        ),
    )


def _keys(api: KubeApi, settings: Settings, clock: Callable[[], float]) -> KeyRing:
    secret, config_map = settings.keys_secret, settings.keys_config_map
    return KeyRing(api, settings.namespace, secret=secret, config_map=config_map, clock=clock)


async def _no_headers(_: Service, owner: str) -> Mapping[str, str]:
    """Where no token is needed."""
    return {}


def _headers(keys: KeyRing, source: IdentitySource, clock: Callable[[], float]) -> Headers:
    """What lets a call of somebody's batch through the gateway: a token of theirs that may call and nothing more."""
    issued: dict[str, tuple[float, str, str]] = {}  # until when it is used, by which key, and the token

    async def headers(_: Service, owner: str) -> Mapping[str, str]:
        if await source.find(owner) is None:
            raise OwnerGone(f"{owner!r}, who started the batch, is no user any more")
        now, key = clock(), keys.signing_key()
        until, kid, token = issued.get(owner, (0.0, "", ""))
        if now >= until or kid != key.kid:  # a key that was replaced at once is not believed any more
            token = tokens.issue(key, Principal(owner, Role.READER), now).token
            for name in [name for name, (over, _, _) in issued.items() if over <= now]:
                del issued[name]
            issued[owner] = (now + _TOKEN_USED_SECONDS, key.kid, token)
        return {"Authorization": f"Bearer {token}"}

    return headers


def _chore(chore: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    async def done() -> None:
        await chore()

    return done
