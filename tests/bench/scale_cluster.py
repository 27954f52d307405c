"""The cluster of bench.scale: hundreds of simulated nodes on which pods are Ready as soon as they are scheduled.

What is created and deleted there, and what is waited for, goes through one client and one watch of the namespace's
pods, which stands beside the subjects in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.scale_metrics import Samples
from bench.scale_process import cpu_seconds
from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.credentials import Credentials
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, Json, KubeApi, NotFound, Resource
from sessionpools.kube.reflector import Reflector
from support.cluster import kubectl
from support.tools import ROOT

CLUSTER: Final = os.environ.get("SESSIONPOOLS_SCALE_CLUSTER", "sessionpools-scale")
CONTEXT: Final = f"kind-{CLUSTER}"
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
_STATUS_POLL_SECONDS: Final = 0.5
# What the kubelet says of a pod that it has evicted.
_EVICTED: Final[Json] = {
    "phase": "Failed",
    "reason": "Evicted",
    "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"}],
}
# As the kernel has their names, which it cuts off after 15 characters: the second is the controller manager.
_PROCESSES: Final = ("kube-apiserver", "kube-controller", "kube-scheduler", "etcd")
_READ_STATS: Final = f"""
for process in /proc/[0-9]*; do
    {{ read -r name <"$process/comm"; }} 2>/dev/null || continue
    case $name in {"|".join(_PROCESSES)}) cat "$process/stat" ;; esac
done
"""


def control_plane_cpu() -> dict[str, float]:
    """Seconds of processor time that its processes have taken. Not asked of the API server, which would take some."""
    command = ["docker", "exec", f"{CLUSTER}-control-plane", "sh", "-c", _READ_STATS]
    lines = subprocess.run(command, check=True, text=True, capture_output=True, timeout=60).stdout.splitlines()
    found = {line[line.index("(") + 1 : line.rindex(")")]: cpu_seconds(line) for line in lines}
    if missing := set(_PROCESSES) - found.keys():
        raise RuntimeError(f"{CLUSTER}-control-plane does not run {', '.join(sorted(missing))}")
    return found


def api_requests() -> Samples:
    """What the API server has counted of requests, of whatever client."""
    text = kubectl("get", "--raw", "/metrics", context=CONTEXT).stdout
    return Samples.parse(text, "apiserver_request_total")


def install_crds() -> None:
    kubectl("apply", "--server-side", "--filename", str(ROOT / "crds"), context=CONTEXT)
    kubectl("wait", "--for=condition=Established", "--filename", str(ROOT / "crds"), context=CONTEXT)


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    ready: bool


def _pod(body: Json) -> Pod:
    conditions = body.get("status", {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    leaving = "deletionTimestamp" in body["metadata"]
    return Pod(body["metadata"]["namespace"], body["metadata"]["name"], ready and not leaving)


class Pods:
    """The pods of a namespace, counted as the watch shows them."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.ready = 0
        self.newest: Pod | None = None
        self._changed = asyncio.Event()
        self.reflector = Reflector(api, PODS, _pod, self._on_change, [namespace])

    def __len__(self) -> int:
        return len(self.reflector)

    def __iter__(self) -> Iterator[Pod]:
        return self.reflector.values()

    async def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Returns as soon as the watch shows it."""
        try:
            await _until(holds, self._changed, seconds)
        except TimeoutError:
            seen = f"{len(self)} pods, {self.ready} of them ready"
            raise RuntimeError(f"waited {seconds:g} s in vain for {what}: {seen}") from None

    def _on_change(self, old: Pod | None, new: Pod | None) -> None:
        self.ready += (new is not None and new.ready) - (old is not None and old.ready)
        if old is None:
            self.newest = new
        self._changed.set()


class Fleet:
    """What is on the simulated nodes in one namespace. Its coroutines run on the event loop that `open` ran on."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.namespace = namespace
        self.pods = Pods(api, namespace)
        self._api = api
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, namespace: str) -> Fleet:
        credentials = Credentials.from_kubeconfig(CONTEXT, None)
        fleet = cls(await HttpKubeApi.open(credentials, component="session-pools-bench"), namespace)
        fleet._watch = asyncio.create_task(fleet.pods.reflector.run())
        await fleet.pods.reflector.synced.wait()
        return fleet

    async def close(self) -> None:
        if self._watch:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._api.close()

    async def nodes(self, selector: str) -> int:
        """How many nodes these labels select."""
        page = await self._api.list_page(NODES, label_selector=selector, limit=5000)
        return len(page["items"])

    async def alone(self) -> None:
        """Raises RuntimeError if the cluster has pools: the controller would see to them too, or has a rival."""
        page = await self._api.list_page(SESSION_POOLS)
        left = sorted({pool["metadata"]["namespace"] for pool in page["items"]})
        if left:
            remedy = f"end what runs there, then kubectl --context {CONTEXT} delete namespace {' '.join(left)}"
            raise RuntimeError(f"cluster {CLUSTER} has pools of another run: {remedy}")

    async def create(self, resource: Resource, objects: Sequence[Json]) -> None:
        await asyncio.gather(*(self._api.create(resource, body, namespace=self.namespace) for body in objects))

    async def a_pod(self) -> Json:
        """One of the pods, as the API server has it."""
        found: Json = (await self._api.list_page(PODS, namespace=self.namespace, limit=1))["items"][0]
        return found

    async def fill(self, resource: Resource, objects: Sequence[Json], pods: int, seconds: float) -> tuple[float, float]:
        """Creates the objects; the seconds until so many pods were there, and until so many were Ready."""
        clock = asyncio.get_running_loop().time
        began = clock()
        await self.create(resource, objects)
        await self.pods.until(lambda: len(self.pods) >= pods, seconds, f"{pods} pods to be created")
        created = clock() - began
        await self.until_all_ready(pods, seconds)
        return created, clock() - began

    async def until_all_ready(self, pods: int, seconds: float) -> None:
        await self.pods.until(lambda: self.pods.ready >= pods, seconds, f"{pods} pods to be ready")

    async def until_success(self, seconds: float) -> None:
        """Until the status of every pool says that all is done."""
        async with asyncio.timeout(seconds):
            while True:
                page = await self._api.list_page(SESSION_POOLS, namespace=self.namespace)
                if all(_is_done(pool) for pool in page["items"]):
                    return
                await asyncio.sleep(_STATUS_POLL_SECONDS)

    async def empty(self, resource: Resource, objects: Sequence[Json], seconds: float) -> None:
        """Deletes the objects, and waits until their pods are gone."""
        names = [body["metadata"]["name"] for body in objects]
        await asyncio.gather(*(self._delete(resource, name) for name in names))
        await self.pods.until(lambda: not len(self.pods), seconds, "all pods to be gone")

    async def replaced(self, pod: Pod, seconds: float) -> float:
        """Deletes a pod at once; the seconds from then until the next pod was created."""
        clock, before = asyncio.get_running_loop().time, self.pods.newest
        began = clock()
        await self._api.delete(PODS, pod.name, namespace=self.namespace, grace_period_seconds=0)
        await self.pods.until(lambda: self.pods.newest is not before, seconds, f"a pod in the place of {pod.name}")
        return clock() - began

    async def noticed(self, pod: Pod, seconds: float) -> float:
        """Lets a pod have failed for good; the seconds from then until the status of its pool has one ready less."""
        clock = asyncio.get_running_loop().time
        async with self._ready_by_status() as (ready, changed):
            before = sum(ready.values())
            began = clock()
            await self._api.apply_status(
                PODS, pod.name, {"status": _EVICTED}, namespace=self.namespace, field_manager="session-pools-bench"
            )
            await _until(lambda: sum(ready.values()) < before, changed, seconds)
            return clock() - began

    @contextlib.asynccontextmanager
    async def _ready_by_status(self) -> AsyncIterator[tuple[dict[str, int], asyncio.Event]]:
        """The ready sessions of each pool as its status has them, kept true meanwhile; each change sets the event."""
        ready: dict[str, int] = {}
        changed = asyncio.Event()

        def take(_: tuple[str, int] | None, new: tuple[str, int] | None) -> None:
            if new:
                ready[new[0]] = new[1]
                changed.set()

        reflector = Reflector(self._api, SESSION_POOLS, _ready_of, take, [self.namespace])
        watch = asyncio.create_task(reflector.run())
        try:
            await reflector.synced.wait()
            yield ready, changed
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _delete(self, resource: Resource, name: str) -> None:
        with contextlib.suppress(NotFound):
            await self._api.delete(resource, name, namespace=self.namespace)


async def _until(holds: Callable[[], bool], changed: asyncio.Event, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            changed.clear()
            await changed.wait()


def _ready_of(pool: Json) -> tuple[str, int]:
    sessions = (pool.get("status") or {}).get("sessions") or {}
    return pool["metadata"]["name"], sessions.get("ready", 0)


def _is_done(pool: dict[str, Any]) -> bool:
    status = pool.get("status") or {}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    return (
        status.get("observedGeneration") == pool["metadata"]["generation"]
        and status.get("state") == "Success"
        and conditions.get("Ready") == "True"
        and conditions.get("Reconciling") == "False"
    )
