"""reconcile(key) for web services: only their status; their sessions are the pools' business."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.controller.report import Reporter
from sessionpools.controller.store import Key, Store
from sessionpools.core.keys import elder_of, key_of, pool_of
from sessionpools.core.model import PodView
from sessionpools.core.services import service_status, signature_needed
from sessionpools.kube import protocol
from sessionpools.kube.podclient import PodClient

__all__ = ["ServiceReconciler"]

SIGNATURE_INTERVAL_SECONDS = 10.0  # until a session of the revision answers


class ServiceReconciler:
    def __init__(
        self,
        store: Store,
        pod_client: PodClient,
        reporter: Reporter,
        progress: Callable[[SessionPool, WebService], tuple[SessionPool, int | None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`progress` gives a pool with its newest status, and the generation of its service which that is about."""
        self._store = store
        self._pod_client = pod_client
        self._reporter = reporter
        self._progress = progress
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which the service has to be looked at again, or None."""
        service = self._store.service(key)
        if service is None or service.metadata.deletion_timestamp:
            return None
        duplicate = elder_of(service, self._store.services_of(key_of(service)))
        pool, handled = pool_of(service, self._store.pools_of(key_of(service))), None
        if pool:
            pool, handled = self._progress(pool, service)
        wanted = duplicate is None and signature_needed(service, pool)
        signature = await self._signature(pool) if pool and wanted else None
        now = datetime.fromtimestamp(int(self._clock()), UTC)
        status = service_status(service, duplicate, pool, signature, handled, now)
        if status != service.status:
            await self._reporter.report(protocol.WEB_SERVICES, service.metadata, service.status, status)
        return SIGNATURE_INTERVAL_SECONDS if wanted and signature is None and self._ready_pods(pool) else None

    def _ready_pods(self, pool: SessionPool | None) -> list[PodView]:
        if pool is None:
            return []
        return [
            p for p in self._store.pods_of(pool) if p.ready and p.alive and p.owner.revision == pool.status.revision
        ]

    async def _signature(self, pool: SessionPool) -> dict[str, Any] | None:
        for pod in self._ready_pods(pool)[:3]:
            answer = await self._pod_client.signature(pod)
            if answer is not None:
                return answer
        return None
