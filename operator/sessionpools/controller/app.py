"""The controller without its shell: store, queue, reconcilers and workers, wired. Tests run it against any KubeApi."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sessionpools.api import names
from sessionpools.controller.config import Config
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.queue import WorkQueue
from sessionpools.controller.reconcile import Pace, PoolReconciler
from sessionpools.controller.report import Reporter
from sessionpools.controller.services import ServiceReconciler
from sessionpools.controller.store import Key, Kind, Store
from sessionpools.kube.events import EventRecorder
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi, KubeError

__all__ = ["App"]

log = logging.getLogger(__name__)

WORKERS = 8
# Everything is looked at again this often, in case a change was missed for a reason that nobody thought of.
RESYNC_SECONDS = 600.0
HEARTBEAT_SECONDS = 5.0


class App:
    def __init__(
        self,
        api: KubeApi,
        config: Config,
        *,
        metrics: Metrics | None = None,
        pod_client: PodClient | None = None,
        clock: Callable[[], float] = time.time,
        min_interval: float = 0.1,
        pace: Pace | None = None,
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(self._reconcile, self._failed, min_interval=min_interval)
        self.heartbeat = time.monotonic()  # when the event loop last turned
        self.store = Store(api, config.namespaces, self.queue.add)
        self.metrics = metrics or Metrics()
        self.metrics.watch(self.store.pools.values, lambda: len(self.queue))
        self._pod_client = pod_client or PodClient()
        recorder = EventRecorder(api, names.FIELD_MANAGER, lambda: datetime.fromtimestamp(clock(), UTC))
        reporter = Reporter(api, recorder)
        self._pools = PoolReconciler(
            api, self.store, self._pod_client, reporter, config, pace or Pace(), clock, self.queue.add
        )
        self._services = ServiceReconciler(
            self.store, self._pod_client, reporter, self._pools.handled_generation, clock
        )

    async def run(self) -> None:
        """Until cancelled. Nothing is decided before the caches are complete."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.store.run())
                await self.store.wait_synced()
                log.info("caches complete", extra={"pools": len(self.store.pools), "pods": len(self.store.pods)})
                group.create_task(self.queue.run(WORKERS))
                group.create_task(self._resync())
                group.create_task(self._beat())
        finally:
            await self._pod_client.close()

    async def _beat(self) -> None:
        while True:
            self.heartbeat = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for key in self.store.all_keys():
                self.queue.add(key)

    async def _reconcile(self, key: Key) -> float | None:
        with self.metrics.reconcile_seconds.labels(key.kind).time():
            reconciler = self._pools if key.kind is Kind.POOL else self._services
            again = await reconciler.reconcile(key)
        known = self.store.pool(key) if key.kind is Kind.POOL else self.store.service(key)
        if known is None:
            self.queue.forget(key)
        return again

    def _failed(self, key: Key, error: Exception) -> None:
        self.metrics.reconcile_errors.labels(key.kind).inc()
        fields = {"kind": key.kind, "namespace": key.namespace, "object": key.name, "error": str(error)}
        log.warning("reconciliation failed", extra=fields, exc_info=None if isinstance(error, KubeError) else error)
