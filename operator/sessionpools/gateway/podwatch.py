"""What the agent learns from session pods themselves, on their control port: how many slots they have, and whether they
can be reached at all. Called by agent.py; each change calls `on_change`.

A pod is asked for its slots when it becomes ready, and again while it has fewer than its pool allows: the kubelet shows
a new maxPoolSize to the pod up to a minute after the API server has it. What a pod had before its pool's maximum was
lowered counts no more: it closes the slots above when it reads so, whatever the maximum has become since.

A pod is probed only when connections to it failed: one probe that fails may be bad luck, two are the end, until it
answers again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView
from sessionpools.core.sessions import isolation_of
from sessionpools.gateway.routes import usable
from sessionpools.kube.podclient import PodClient

__all__ = ["PodWatch"]

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 0.5
ASK_AGAIN_AT_MOST_SECONDS: Final = 5.0
PROBE_TIMEOUT_SECONDS: Final = 1.0
PROBE_AGAIN_SECONDS: Final = 0.1
PROBES: Final = 2
LOOK_AGAIN_SECONDS: Final = 1.0  # whether a pod that could not be reached answers again


class PodWatch:
    def __init__(
        self, client: PodClient, on_change: Callable[[], None], control_port: int = names.CONTROL_PORT
    ) -> None:
        self.max_seen: dict[str, int] = {}  # by pod uid: the maxPoolSize that its supervisor has read
        self.unreachable: set[str] = set()  # uids
        self._client = client
        self._on_change = on_change
        self._port = control_port
        self._asking: dict[str, tuple[int, asyncio.Task[None]]] = {}  # by uid: for which maximum
        self._probing: dict[str, asyncio.Task[None]] = {}

    def update(self, pools: Iterable[SessionPool], pods: Iterable[PodView]) -> None:
        """Ask the pods that have to be asked now; forget what is gone."""
        by_uid = {pool.metadata.uid: pool for pool in pools}
        here = {pod.uid: pod for pod in pods if usable(pod)}
        for uid in self.max_seen.keys() - here.keys():
            del self.max_seen[uid]
        for uid in self._probing.keys() - here.keys():
            self._probing.pop(uid).cancel()
            self.unreachable.discard(uid)
        for uid in self._asking.keys() - here.keys():
            self._asking.pop(uid)[1].cancel()
        for uid, pod in here.items():
            pool = by_uid.get(pod.owner.pool_uid)
            maximum = pool.spec.max_pool_size if pool and isolation_of(pool, pod) is Isolation.PROCESS else 0
            if maximum and uid in self.max_seen:
                self.max_seen[uid] = min(self.max_seen[uid], maximum)
            asked_for, task = self._asking.get(uid, (0, None))
            if self.max_seen.get(uid, 0) >= maximum:
                if task is not None:
                    del self._asking[uid]
                    task.cancel()
            elif asked_for != maximum:
                if task is not None:
                    task.cancel()
                self._asking[uid] = (maximum, asyncio.create_task(self._ask(pod, maximum)))

    def take_up(self, open_servers: Iterable[str], pods: Iterable[PodView]) -> None:
        """What an earlier agent knew to be there, by the names of the servers that it had opened: those slots stay open
        while the pods are asked."""
        counts: dict[tuple[str, str], int] = {}
        for name in open_servers:
            node, _, rest = name.partition(":")
            pod_name, _, slot = rest.partition(":")
            if slot.isdecimal():
                counts[node, pod_name] = max(counts.get((node, pod_name), 0), int(slot) + 1)
        for pod in pods:
            count = counts.get((pod.owner.node, pod.name), 0)
            if count and usable(pod):
                self.max_seen[pod.uid] = count

    def suspect(self, pod: PodView) -> None:
        """Connections to it failed."""
        if pod.uid not in self._probing:
            task = asyncio.create_task(self._probe(pod))
            self._probing[pod.uid] = task
            task.add_done_callback(lambda done: self._probed(pod.uid, done))

    async def close(self) -> None:
        tasks = [*(task for _, task in self._asking.values()), *self._probing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, pod: PodView, maximum: int) -> None:
        delay = ASK_AGAIN_SECONDS
        while True:
            report = (await self._client.reports([pod])).get(pod.uid)
            # More than the maximum: it has not read that yet.
            if report is not None and 0 <= report.max_seen <= maximum:
                if self.max_seen.get(pod.uid) != report.max_seen:
                    self.max_seen[pod.uid] = report.max_seen
                    self._on_change()
                if report.max_seen == maximum:
                    return
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, ASK_AGAIN_AT_MOST_SECONDS)

    async def _probe(self, pod: PodView) -> None:
        for _ in range(PROBES):
            if await self._answers(pod):
                return
            await asyncio.sleep(PROBE_AGAIN_SECONDS)
        fields = {"namespace": pod.namespace, "pod": pod.name, "node": pod.owner.node}
        log.warning("session pod cannot be reached: its slots are closed", extra=fields)
        self.unreachable.add(pod.uid)
        self._on_change()
        while not await self._answers(pod):  # noqa: ASYNC110  the pod tells nobody
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        log.info("session pod can be reached again", extra=fields)
        self.unreachable.discard(pod.uid)
        self._on_change()

    def _probed(self, uid: str, task: asyncio.Task[None]) -> None:
        if self._probing.get(uid) is task:
            del self._probing[uid]

    async def _answers(self, pod: PodView) -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                _, writer = await asyncio.open_connection(pod.address, self._port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
