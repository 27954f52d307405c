"""The whole controller against the in-process API server, with kubelets whose pods live as a test says.

async with Simulation() as sim:
    sim.add_node("worker-1")
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: sim.status()["state"] == "Success")
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

from sessionpools.api import names
from sessionpools.controller.app import App
from sessionpools.controller.config import Config
from sessionpools.controller.memory import Pace
from sessionpools.core.backoff import Backoff
from sessionpools.core.model import PodView, SessionReport
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver import ApiServer
from support.apiserver_objects import Json
from support.kubelet import Kubelet, make_node
from support.oracle import unlike_what_there_is

NAMESPACE = "demo"
PACE = Pace(
    status=0.02,
    progress=0.2,
    a_start=0.002,
    config_map=0.05,
    starting=0.05,
    backoff=Backoff(0.1, 1.0),
    room=0.3,
    unseen=0.2,
    gateway=0.5,
    deleted=0.1,
    written=0.2,
)


class SimulatedPods(PodClient):
    """What session pods would say on their control port; the simulation's have no address that could be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "init"
        self.busy: set[str] = set()

    async def reports(self, pods: Iterable[PodView]) -> dict[str, SessionReport]:
        return {pod.uid: self._report(pod) for pod in pods}

    async def signature(self, pod: PodView) -> dict[str, Any] | None:
        return {"inputs": [{"name": "bmi", "type": "numeric", "required": True}], "outputs": []}

    def _report(self, pod: PodView) -> SessionReport:
        settings = json.loads(pod.settings)
        initial, maximum = settings["initialPoolSize"], settings["maxPoolSize"]
        if not pod.ready:
            return SessionReport(0, 0, self.phase, 7.0, initial, maximum)
        return SessionReport(initial, int(pod.name in self.busy), "ready", 0.0, initial, maximum)


class Simulation:
    def __init__(self, *, namespaces: tuple[str, ...] = (), kubelet_seconds: float = 0.01) -> None:
        """`kubelet_seconds`: between two steps of the kubelets; large simulations have no time for more."""
        self.server = ApiServer()
        self.kubelet = Kubelet(self.server.store)
        self.pods_say = SimulatedPods()
        self._kubelet_seconds = kubelet_seconds
        self.config = Config(session_image="session:1", namespaces=namespaces)
        self.pace = PACE
        self.app: App | None = None
        self.crashes = 0
        self._stack = AsyncExitStack()
        self._controller: asyncio.Task[None] | None = None
        self._successors: list[asyncio.Task[None]] = []
        self._restarting = asyncio.Lock()
        self._life = 0  # of the controller: what belongs to one that crashed sends no write any more

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.server)
        await self._stack.enter_async_context(self.kubelet.running(self._kubelet_seconds))
        await self.start_controller()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._successors, return_exceptions=True)
        await self.stop_controller()
        await self._stack.aclose()

    async def start_controller(self) -> None:
        self.app = await self._app(self.pods_say)
        self._controller = asyncio.create_task(self.app.run())
        await self.app.store.wait_synced()

    async def second_controller(self, seconds: float) -> None:
        """Another one that believes to lead, for so long; then it ends at once, wherever it is."""
        pods_say = SimulatedPods()
        pods_say.busy = self.pods_say.busy
        second = asyncio.create_task((await self._app(pods_say)).run())
        await asyncio.sleep(seconds)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    async def _app(self, pods_say: SimulatedPods) -> App:
        life = self._life
        api = await self.server.connect(may_write=lambda: life == self._life)
        return App(api, self.config, pod_client=pods_say, min_interval=0.005, pace=self.pace)

    def crash_controller(self) -> None:
        """The controller is gone from this moment on: not one more write. Another one starts as soon as it can."""
        self.crashes += 1
        self._life += 1
        self._successors.append(asyncio.create_task(self.restart_controller()))

    async def restart_controller(self) -> None:
        async with self._restarting:
            await self.stop_controller()
            await self.start_controller()

    async def stop_controller(self) -> None:
        """As a crash does it: at once, wherever it is."""
        if self._controller:
            self._controller.cancel()
            await asyncio.gather(self._controller, return_exceptions=True)
            self._controller = None

    # --- what users and the cluster do ------------------------------------------------------------------------------

    def add_node(self, name: str, **fields: Any) -> None:
        self.server.store.create(NODES, make_node(name, **fields))

    def pool(
        self, name: str = "score", *, service: str = "Score", initial: int = 2, maximum: int = 4, **spec: Any
    ) -> Json:
        fields = {"serviceName": service, "serviceVersion": "v1", "initialPoolSize": initial, "maxPoolSize": maximum}
        return {
            "apiVersion": names.API_VERSION,
            "kind": "SessionPool",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": fields | spec,
        }

    def service(self, name: str = "score", *, service: str = "Score", code: str = "x = 1", **spec: Any) -> Json:
        fields = {"name": service, "version": "v1", "code": {"inline": {"service.py": code}}, "entrypoint": "service:f"}
        return {
            "apiVersion": names.API_VERSION,
            "kind": "WebService",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": fields | spec,
        }

    def apply(self, *objects: Json, namespace: str = NAMESPACE) -> None:
        for body in objects:
            resource = SESSION_POOLS if body["kind"] == "SessionPool" else WEB_SERVICES
            body["metadata"]["namespace"] = namespace
            self.server.store.create(resource, body, namespace)

    def edit_pool(self, name: str = "score", *, namespace: str = NAMESPACE, **spec: Any) -> None:
        self.server.store.edit(SESSION_POOLS, name, {"spec": spec}, namespace)

    def edit_service(self, name: str = "score", **spec: Any) -> None:
        self.server.store.edit(WEB_SERVICES, name, {"spec": spec}, NAMESPACE)

    # --- what is observed ---------------------------------------------------------------------------------------------

    def pods(self, *, node: str = "", alive: bool = True) -> list[Json]:
        found = [pod for pod in self.server.store.all(PODS) if not (alive and pod["metadata"].get("deletionTimestamp"))]
        return [p for p in found if not node or p["metadata"]["annotations"][names.ANNOTATION_NODE] == node]

    def uids(self, *, alive: bool = True) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods(alive=alive)}

    def ready_pods(self) -> list[Json]:
        return [
            pod
            for pod in self.pods()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        ]

    def status(self, name: str = "score") -> Json:
        found = [p for p in self.server.store.all(SESSION_POOLS) if p["metadata"]["name"] == name]
        status: Json = (found[0].get("status") or {}) if found else {}
        return status

    def condition(self, type_: str, name: str = "score") -> Json:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == type_), {})

    async def until(self, holds: Callable[[], object], what: str = "", seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what or 'the condition'}; status: {self.status()}")
            await asyncio.sleep(0.005)

    async def until_success(self, name: str = "score", seconds: float = 10.0) -> None:
        await self.until(lambda: self.status(name).get("state") == "Success", f"{name} is Success", seconds)

    async def quiet(self, seconds: float = 0.4) -> int:
        """How many writes the controller makes in the next `seconds`, once it has nothing in its queue that is due."""
        await self.until(lambda: self.app and self.app.term and self.app.term.queue.idle, "the queue is idle")
        before = len(self.server.writes())
        await asyncio.sleep(seconds)
        return len(self.server.writes()) - before

    async def comes_to_rest(self, within_seconds: float = 5.0, for_seconds: float = 0.4) -> None:
        """Nothing is written any more: the last write follows within `within_seconds`. Every status is what there is
        then (support.oracle), if there is a controller that hears of it."""
        end = time.monotonic() + within_seconds
        while await self.quiet(for_seconds):
            if time.monotonic() > end:
                raise AssertionError(f"still writing after {within_seconds} s: {self.server.writes()[-3:]}")
        if not self._controller or not self.server.is_heard:
            return
        while self.untrue():
            if time.monotonic() > end + for_seconds:
                raise AssertionError("\n".join(["no status should say what is not so:", *self.untrue()]))
            await asyncio.sleep(0.01)

    def untrue(self) -> list[str]:
        """Where the status of a pool that the controller serves is not what there is."""
        store, config = self.server.store, self.config
        if config.nodes:
            return []  # it does not read them
        served = [pool for pool in store.all(SESSION_POOLS) if _serves(config, pool["metadata"]["namespace"])]
        return [line for pool in served for line in unlike_what_there_is(store, pool, config.session_image)]


def _serves(config: Config, namespace: str) -> bool:
    return namespace not in config.ignored_namespaces and (not config.namespaces or namespace in config.namespaces)
