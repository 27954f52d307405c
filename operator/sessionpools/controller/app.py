"""The controller without its shell: store, demand, election and terms, wired. Tests run it against any KubeApi.

What is known of the cluster, and of the demand, is kept true whether this controller leads or stands by, so that one
that begins to lead can act at once. All that decides and writes is in the term (term.py) and ends with it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial

from sessionpools.controller.config import Config
from sessionpools.controller.demand import DemandFeed
from sessionpools.controller.memory import Pace
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.store import Key, Store
from sessionpools.controller.term import Term
from sessionpools.core.model import PodView
from sessionpools.kube.lease import Election
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import KubeApi

__all__ = ["App"]

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0


class App:
    """Without an `election` it is alone, and leads. With one, `api` must send no write while `election.leading` is
    false, and the election must have a client of its own."""

    def __init__(
        self,
        api: KubeApi,
        config: Config,
        *,
        election: Election | None = None,
        metrics: Metrics | None = None,
        pod_client: PodClient | None = None,
        clock: Callable[[], float] = time.time,
        min_interval: float = 0.1,
        pace: Pace | None = None,
    ) -> None:
        self.heartbeat = time.monotonic()  # when the event loop last turned
        self.store = Store(
            api,
            config.namespaces,
            self.enqueue,
            self._pod_left,
            self._pod_starts,
            ignored=config.ignored_namespaces,
            nodes=config.nodes,
            sessions_per_node=config.max_sessions_per_node,
        )
        self.metrics = metrics or Metrics()
        selector, namespace = config.gateway_selector, config.pod_namespace
        self._feed = (
            DemandFeed(api, namespace, selector, self._demand_changed, config.gateway_port) if selector else None
        )
        self._pod_client = pod_client or PodClient()
        self._election = election
        self.term: Term | None = None  # while this controller leads
        self._serving: asyncio.Task[None] | None = None  # the latest term's, also when that has ended
        self._new_term = partial(
            Term,
            api,
            self.store,
            self._pod_client,
            config,
            self.metrics,
            self._feed.of if self._feed else None,
            clock=clock,
            min_interval=min_interval,
            pace=pace or Pace(),
        )
        self.metrics.watch(
            lambda: self.store.pools.values() if self.term else (),  # else every sum over controllers would be double
            lambda: len(self.term.queue) if self.term else 0,
            lambda: self._feed.gateways if self._feed else 0,
            lambda: self.term is not None,
        )

    async def run(self) -> None:
        """Until cancelled; then the Lease is released. Nothing is decided before the caches are complete, and who has
        none does not contend."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self.store.run())
                if self._feed:
                    group.create_task(self._feed.run())
                await self.store.wait_synced()
                log.info("caches complete", extra={"pools": len(self.store.pools), "pods": len(self.store.pods)})
                if self._election is None:
                    self._lead(group)
                else:
                    await self._election.run(lambda leading: self._lead(group) if leading else self._stand_by())
        finally:
            await self._pod_client.close()

    def enqueue(self, key: Key) -> None:
        """Look at it soon; who stands by looks at everything once it leads."""
        if self.term:
            self.term.queue.add(key)

    def _pod_starts(self, key: Key, starting: int) -> None:
        if self.term:
            self.term.pod_starts(key, starting)

    def stuck_seconds(self) -> float:
        """As WorkQueue.stuck_seconds; who stands by has no work to be stuck in."""
        return self.term.queue.stuck_seconds() if self.term else 0.0

    def _lead(self, group: asyncio.TaskGroup) -> None:
        self.term = self._new_term()
        self._serving = group.create_task(_serve(self.term, self._serving))

    def _stand_by(self) -> None:
        """The workers are told to stop where they are. What they would still write is not sent (`kube.client`)."""
        self.term = None
        if self._serving:
            self._serving.cancel()

    def _pod_left(self, pod: PodView) -> None:
        if self.term:
            self.term.pod_left(pod)

    def _demand_changed(self, uids: Collection[str] | None) -> None:
        if self.term:
            self.term.demand_changed(uids)

    async def _beat(self) -> None:
        while True:
            self.heartbeat = time.monotonic()
            await asyncio.sleep(HEARTBEAT_SECONDS)


async def _serve(term: Term, before: asyncio.Task[None] | None) -> None:
    """One term at a time: what is left of the one before has ended when this one begins."""
    if before:
        await asyncio.wait([before])
    await term.run()
