"""The time for which one controller leads: queue, workers and reconcilers, with all that they remember.

Made anew each time: what was remembered before another controller led would be believed wrongly afterwards. Called by
app.py, which keeps the caches true in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from sessionpools.api import names
from sessionpools.controller.config import Config
from sessionpools.controller.memory import Pace
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.queue import WorkQueue
from sessionpools.controller.reconcile import PoolReconciler
from sessionpools.controller.report import Reporter
from sessionpools.controller.services import ServiceReconciler
from sessionpools.controller.store import Key, Kind, Store, pool_key
from sessionpools.core.demand import SETTLE_SECONDS, Demand, elastic, look_again
from sessionpools.core.model import PodView
from sessionpools.kube.events import EventRecorder
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi, KubeError

__all__ = ["Term"]

log = logging.getLogger(__name__)

# They mostly wait: for the API server, of which the client asks no more than so many writes at a time, or for session
# pods that do not answer, up to a second a pool. As many pools of silent pods keep the other pools waiting.
WORKERS = 32
# Everything is looked at again this often, in case a change was missed for a reason that nobody thought of.
RESYNC_SECONDS = 600.0
# More calls than sessions are no news for so long, unless the number of session pods has changed.
OVERLOADED_SECONDS = 1.0


class Term:
    """`demand` says what is asked of a pool, by its uid; without it there is no gateway."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        pod_client: PodClient,
        config: Config,
        metrics: Metrics,
        demand: Callable[[str], Demand | None] | None,
        *,
        clock: Callable[[], float],
        min_interval: float,
        pace: Pace,
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(self._reconcile, self._failed, min_interval=min_interval)
        self._store = store
        self._metrics = metrics
        self._demand = demand
        self._looked_at: dict[Key, tuple[int, float]] = {}  # with how many pods, and when (monotonic), for growth
        recorder = EventRecorder(api, names.FIELD_MANAGER, lambda: datetime.fromtimestamp(clock(), UTC))
        reporter = Reporter(api, recorder)
        self._pools = PoolReconciler(
            api, store, pod_client, reporter, config, pace, clock, self.queue.add, metrics, demand
        )
        self._services = ServiceReconciler(store, pod_client, reporter, self._pools.progress, clock)

    async def run(self) -> None:
        """Until cancelled: at everything first, then at what changes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.queue.run(WORKERS))
            group.create_task(self._resync())

    async def _resync(self) -> None:
        while True:
            for key in self._store.all_keys():
                self.queue.add(key)
            await asyncio.sleep(RESYNC_SECONDS)

    def pod_left(self, pod: PodView) -> None:
        """As Store says it, before the pod's pool is looked at for it."""
        self._pools.pod_left(pod)

    def pod_starts(self, pool: Key, starting: int) -> None:
        """One of its pods comes nearer to being ready, and nothing else is new: what that asks for can wait a moment
        where many others are on their way."""
        self.queue.add(pool, self._pools.patience(pool, starting))

    def demand_changed(self, uids: Collection[str] | None) -> None:
        """Pools for which the demand decides something now, or will when sessions have been idle for long enough."""
        now = time.monotonic()
        for pool in self._store.pools.values():
            if uids is None:
                if elastic(pool):
                    self.queue.add(pool_key(pool))
                continue
            demand = self._demand(pool.metadata.uid) if self._demand and pool.metadata.uid in uids else None
            if demand is None:
                continue
            pods = self._store.pods_of(pool)
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
        with self._metrics.reconcile_seconds.labels(key.kind).time():
            reconciler = self._pools if key.kind is Kind.POOL else self._services
            again = await reconciler.reconcile(key)
        known = self._store.pool(key) if key.kind is Kind.POOL else self._store.service(key)
        if known is None:
            self.queue.forget(key)
            self._looked_at.pop(key, None)
        return again

    def _failed(self, key: Key, error: Exception) -> None:
        self._metrics.reconcile_errors.labels(key.kind).inc()
        fields = {"kind": key.kind, "namespace": key.namespace, "object": key.name, "error": str(error) or repr(error)}
        log.warning("reconciliation failed", extra=fields, exc_info=None if isinstance(error, KubeError) else error)
