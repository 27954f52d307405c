"""The controller without its shell: store, queue, reconcilers and workers, wired. Tests run it against any KubeApi."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from sessionpools.api import names
from sessionpools.controller.config import Config
from sessionpools.controller.demand import DemandFeed
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.queue import WorkQueue
from sessionpools.controller.reconcile import Pace, PoolReconciler
from sessionpools.controller.report import Reporter
from sessionpools.controller.services import ServiceReconciler
from sessionpools.controller.store import Key, Kind, Store, pool_key
from sessionpools.core.demand import SETTLE_SECONDS, elastic, look_again
from sessionpools.kube.events import EventRecorder
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi, KubeError

__all__ = ["App"]

log = logging.getLogger(__name__)

WORKERS = 8
# Everything is looked at again this often, in case a change was missed for a reason that nobody thought of.
RESYNC_SECONDS = 600.0
HEARTBEAT_SECONDS = 5.0
# More calls than sessions are no news for so long, unless the number of session pods has changed.
OVERLOADED_SECONDS = 1.0


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
        selector, namespace = config.gateway_selector, config.pod_namespace
        self._feed = (
            DemandFeed(api, namespace, selector, self._demand_changed, config.gateway_port) if selector else None
        )
        self._looked_at: dict[Key, tuple[int, float]] = {}  # with how many pods, and when (monotonic), for growth
        self.metrics.watch(
            self.store.pools.values, lambda: len(self.queue), lambda: self._feed.gateways if self._feed else 0
        )
        self._pod_client = pod_client or PodClient()
        recorder = EventRecorder(api, names.FIELD_MANAGER, lambda: datetime.fromtimestamp(clock(), UTC))
        reporter = Reporter(api, recorder)
        self._pools = PoolReconciler(
            api,
            self.store,
            self._pod_client,
            reporter,
            config,
            pace or Pace(),
            clock,
            self.queue.add,
            self.metrics,
            self._feed.of if self._feed else None,
        )
        self._services = ServiceReconciler(self.store, self._pod_client, reporter, self._pools.progress, clock)

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
                if self._feed:
                    group.create_task(self._feed.run())
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

    def _demand_changed(self, uids: Collection[str] | None) -> None:
        """Pools for which the demand decides something now, or will when sessions have been idle for long enough."""
        now = time.monotonic()
        for pool in self.store.pools.values():
            if uids is None:
                if elastic(pool):
                    self.queue.add(pool_key(pool))
                continue
            demand = self._feed.of(pool.metadata.uid) if self._feed and pool.metadata.uid in uids else None
            if demand is None:
                continue
            pods = self.store.pods_of(pool)
            after = look_again(pool, demand, pods)
            if after is None:
                continue
            key = pool_key(pool)
            if after <= SETTLE_SECONDS:  # a pool that can not grow is not looked at with each call
                looked = self._looked_at.get(key)
                if looked and looked[0] == len(pods) and now - looked[1] < OVERLOADED_SECONDS:
                    after = OVERLOADED_SECONDS - (now - looked[1])
                else:
                    self._looked_at[key] = (len(pods), now)
            self.queue.add(key, after)

    async def _reconcile(self, key: Key) -> float | None:
        with self.metrics.reconcile_seconds.labels(key.kind).time():
            reconciler = self._pools if key.kind is Kind.POOL else self._services
            again = await reconciler.reconcile(key)
        known = self.store.pool(key) if key.kind is Kind.POOL else self.store.service(key)
        if known is None:
            self.queue.forget(key)
            self._looked_at.pop(key, None)
        return again

    def _failed(self, key: Key, error: Exception) -> None:
        self.metrics.reconcile_errors.labels(key.kind).inc()
        fields = {"kind": key.kind, "namespace": key.namespace, "object": key.name, "error": str(error)}
        log.warning("reconciliation failed", extra=fields, exc_info=None if isinstance(error, KubeError) else error)
