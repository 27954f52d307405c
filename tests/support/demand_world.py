"""A simulated cluster with a gateway that says what is asked of the pool `score`, and which session pods it has."""

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from sessionpools.api import names
from sessionpools.core.model import PodView, SessionReport
from sessionpools.gateway import http
from sessionpools.gateway.demand import DemandSource, Lent
from sessionpools.kube.protocol import PODS, SESSION_POOLS
from support.apiserver_objects import Json
from support.simulation import NAMESPACE, SimulatedPods, Simulation

HOME = "session-pools"  # the release's namespace
LABELS = {"app.kubernetes.io/component": "gateway", names.LABEL_GATEWAY: names.GATEWAY_ACTIVE}
WORKERS = ("worker-1", "worker-2")


class Gateway:
    """The demand of a gateway pod over its real HTTP server, and HAProxy's part played."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[int, int]] = {}  # busy and queued, by pool uid
        self.away = False
        self.pods: Callable[[], Mapping[str, int]] = dict  # that it has, by revision
        self.source = DemandSource(self._ask, self._lent)
        self.port = 0
        self._runner: web.AppRunner | None = None

    def _lent(self) -> dict[str, Lent]:
        pods = self.pods()
        return {uid: Lent(uid, NAMESPACE, "score", pods) for uid in self.calls}

    async def _ask(self, _: Iterable[str]) -> list[str]:
        if self.away:
            raise OSError("HAProxy is away")
        rows = [f"{uid},BACKEND,{queued},{busy + queued},0," for uid, (busy, queued) in self.calls.items()]
        return ["\n".join(["# pxname,svname,qcur,scur,act,", *rows]), ""]

    async def __aenter__(self) -> Self:
        await self.source.poll()
        health = http.Health(time.monotonic, lambda: "")
        self._runner = await http.serve(health, self.source, lambda: b"", CollectorRegistry(), 0, "127.0.0.1")
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner:
            await self._runner.cleanup()


class Pods(SimulatedPods):
    """Session pods that say for how long they have been idle."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_seconds = 0.0
        self.asked: Counter[str] = Counter()

    def _report(self, pod: PodView) -> SessionReport:
        self.asked[pod.name] += 1
        return replace(super()._report(pod), idle_seconds=self.idle_seconds)


class DemandWorld(Simulation):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway
        gateway.pods = self.ready_by_revision
        self.idle_pods = self.pods_say = Pods()

    async def begin(self, initial: int, maximum: int, **spec: Any) -> None:
        self.apply(self.service(), self.pool(initial=initial, maximum=maximum, **spec))
        await self.until(lambda: self.status().get("state") == "Success")
        await self.asks(0, 0)

    def hear_the_gateway(self) -> None:
        """Controllers that start from now on do; its port is known."""
        selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
        port = self.gateway.port
        self.config = replace(self.config, pod_namespace=HOME, gateway_selector=selector, gateway_port=port)

    def activate(self, name: str = "gateway-0") -> None:
        """A gateway pod becomes the active one."""
        body = {"metadata": {"name": name, "labels": LABELS}, "spec": {"containers": [{"name": "agent"}]}}
        self.server.store.create(PODS, {"apiVersion": "v1", "kind": "Pod", **body}, HOME)
        self.server.store.edit(PODS, name, {"status": {"podIP": "127.0.0.1"}}, HOME)

    async def asks(self, busy: int, queued: int) -> None:
        """So many calls are in sessions, and so many wait."""
        self.gateway.calls[self.server.store.all(SESSION_POOLS)[0]["metadata"]["uid"]] = (busy, queued)
        await self.gateway.source.poll()

    def ready_by_revision(self) -> dict[str, int]:
        ready = [pod for pod in self.ready_pods() if pod["metadata"]["namespace"] == NAMESPACE]
        return dict(Counter(pod["metadata"]["labels"][names.LABEL_REVISION] for pod in ready))

    def sessions(self, *, alive: bool = True) -> list[Json]:
        """Session pods; `alive`: that are not leaving."""
        return [pod for pod in self.pods(alive=alive) if pod["metadata"]["namespace"] == NAMESPACE]

    def ready_on(self, node: str) -> list[Json]:
        return [p for p in self.ready_pods() if p["metadata"].get("annotations", {}).get(names.ANNOTATION_NODE) == node]

    def counts(self) -> list[int]:
        return [len(self.ready_on(node)) for node in WORKERS]

    async def knows_demand(self) -> None:
        await self.until(lambda: b"sessionpools_controller_gateways 1.0" in self.metrics(), "a gateway answers")

    def metrics(self) -> bytes:
        assert self.app is not None
        return generate_latest(self.app.metrics.registry)


@contextlib.asynccontextmanager
async def demand_world() -> AsyncIterator[DemandWorld]:
    async with Gateway() as gateway:
        sim = DemandWorld(gateway)
        sim.hear_the_gateway()
        async with sim:
            for worker in WORKERS:
                sim.add_node(worker)
            yield sim
