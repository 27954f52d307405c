"""Scheduler and kubelets for the in-process API server, so that pods there live as pods do.

    kubelet = Kubelet(server.store)
    kubelet.fate = lambda pod: Crash("ImportError: No module named 'foo' (import service)")
    kubelet.settle()                  # until nothing changes any more; or: async with kubelet.running(): ...

A step binds pods to nodes as the scheduler would, moves each bound pod one state on towards its fate, and finishes the
deletions whose pods a kubelet runs. It writes to the store directly: nothing of it is logged or fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.apiserver_objects import NODES, PODS, Json, Refused
from support.apiserver_store import Store


@dataclass(frozen=True)
class Ready:
    """Runs, and answers its readiness probe."""


@dataclass(frozen=True)
class NeverReady:
    """Runs, and never answers its readiness probe."""


@dataclass(frozen=True)
class Crash:
    """Ends with this termination message, again and again."""

    message: str
    exit_code: int = 1
    reason: str = "Error"


@dataclass(frozen=True)
class OOMKilled:
    message: str = ""


@dataclass(frozen=True)
class ImagePullBackOff:
    message: str = 'Back-off pulling image "missing:latest"'


@dataclass(frozen=True)
class CreateContainerConfigError:
    message: str = 'secret "credentials" not found'


@dataclass(frozen=True)
class Unschedulable:
    message: str = "0/1 nodes are available: 1 Insufficient memory. preemption: not eligible."


@dataclass(frozen=True)
class Evicted:
    """Runs, and is then failed by the kubelet."""

    message: str = "The node was low on resource: memory."


Fate = Ready | NeverReady | Crash | OOMKilled | ImagePullBackOff | CreateContainerConfigError | Unschedulable | Evicted


def make_node(
    name: str,
    labels: dict[str, str] | None = None,
    taints: Sequence[Json] = (),
    ready: bool = True,
    unschedulable: bool = False,
) -> Json:
    """A node as kubeadm makes it. `ready=False`: its kubelet is lost."""
    taints = list(taints)
    if unschedulable:
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    if not ready:
        for effect in ("NoSchedule", "NoExecute"):
            taints.append({"key": "node.kubernetes.io/unreachable", "effect": effect})
    spec: Json = {"podCIDR": "10.244.0.0/24"}
    if taints:
        spec["taints"] = taints
    if unschedulable:
        spec["unschedulable"] = True
    resources = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
        },
        "spec": spec,
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "Unknown",
                    "reason": "KubeletReady" if ready else "NodeStatusUnknown",
                    "message": "kubelet is posting ready status" if ready else "Kubelet stopped posting node status.",
                }
            ],
            "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux"},
        },
    }


@dataclass
class Kubelet:
    store: Store
    fate: Callable[[Json], Fate] = field(default=lambda pod: Ready())
    finish_deletions: bool = True
    _addresses: int = 0

    def step(self) -> int:
        """One step for every pod; how many changed."""
        nodes = {node["metadata"]["name"]: node for node in self.store.all(NODES)}
        changed = 0
        for pod in self.store.all(PODS):
            before = self.store.version
            try:
                self._step(pod, nodes)
            except Refused as error:
                if error.code != 404:  # gone with another: the last pod of a pool that is deleted in the foreground
                    raise
            changed += self.store.version != before
        return changed

    def settle(self, at_most: int = 50) -> None:
        for _ in range(at_most):
            if not self.step():
                return
        raise AssertionError(f"pods still change after {at_most} steps")

    @contextlib.asynccontextmanager
    async def running(self, interval_seconds: float = 0.01) -> AsyncIterator[None]:
        """Steps in the background."""

        async def run() -> None:
            while True:
                self.step()
                await asyncio.sleep(interval_seconds)

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def lose_node(self, name: str) -> None:
        """Its kubelet says nothing any more: pods there do not change, nor end."""
        lost = make_node(name, ready=False)
        self.store.edit(NODES, name, {"spec": {"taints": lost["spec"]["taints"]}, "status": lost["status"]})
        for pod in self.store.all(PODS, fields=f"spec.nodeName={name}"):
            self._write(pod, {"conditions": _conditions(pod, Ready="False")})

    def return_node(self, name: str) -> None:
        back = make_node(name)
        self.store.edit(NODES, name, {"spec": {"taints": None}, "status": back["status"]})

    # --- one pod ------------------------------------------------------------------------------------------------------

    def _step(self, pod: Json, nodes: dict[str, Json]) -> None:
        meta, bound = pod["metadata"], pod["spec"].get("nodeName")
        if not bound:
            if "deletionTimestamp" not in meta:
                self._schedule(pod, nodes)
            return
        node = nodes.get(bound)
        if node is None:  # the pod garbage collector
            self.store.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace=0)
        elif not _is_ready(node):
            return
        elif "deletionTimestamp" in meta:
            if self.finish_deletions:
                self.store.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace=0)
        elif pod["status"].get("phase") in ("Failed", "Succeeded"):
            return  # it is not run again, whatever becomes of its fate
        elif any(taint["effect"] == "NoExecute" and not _tolerated(taint, pod) for taint in _taints(node)):
            self.store.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        else:
            self._write(pod, self._next_status(pod))

    def _schedule(self, pod: Json, nodes: dict[str, Json]) -> None:
        fate = self.fate(pod)
        fitting = [name for name, node in sorted(nodes.items()) if _fits(pod, node)]
        if fitting and not isinstance(fate, Unschedulable):
            meta = pod["metadata"]
            patch = {"spec": {"nodeName": fitting[0]}, "status": {"conditions": _conditions(pod, PodScheduled="True")}}
            self.store.edit(PODS, meta["name"], patch, meta["namespace"])
            return
        message = fate.message if isinstance(fate, Unschedulable) else (
            f"0/{len(nodes)} nodes are available: {len(nodes)} node(s) didn't match Pod's node affinity/selector."
        )  # fmt: skip
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._write(pod, {"conditions": [scheduled]})

    def _write(self, pod: Json, status: Json) -> None:
        meta = pod["metadata"]
        self.store.edit(PODS, meta["name"], {"status": status}, meta["namespace"])

    def _next_status(self, pod: Json) -> Json:
        """One state on: ContainerCreating, then towards the fate."""
        status, fate = pod["status"], self.fate(pod)
        if "startTime" not in status:
            return {
                "startTime": self.store.now(),
                "hostIP": "172.18.0.2",
                "conditions": _conditions(pod, Initialized="True", Ready="False", ContainersReady="False"),
                "containerStatuses": _containers(pod, {"waiting": {"reason": "ContainerCreating"}}),
            }
        match fate:
            case ImagePullBackOff(message):
                waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
                return {"containerStatuses": _containers(pod, waiting)}
            case CreateContainerConfigError(message):
                waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
                return {"containerStatuses": _containers(pod, waiting)}
            case Evicted(message):
                ended = _conditions(pod, Ready="False", ContainersReady="False")
                return {"phase": "Failed", "reason": "Evicted", "message": message, "conditions": ended}
            case Crash(message, exit_code, reason):
                return self._crash(pod, {"exitCode": exit_code, "reason": reason, "message": message})
            case OOMKilled(message):
                return self._crash(pod, {"exitCode": 137, "reason": "OOMKilled", "message": message})
        ready = isinstance(fate, Ready)
        says = "True" if ready else "False"
        return {
            "phase": "Running",
            "podIP": status.get("podIP") or self._address(),
            "conditions": _conditions(pod, Initialized="True", Ready=says, ContainersReady=says),
            "containerStatuses": self._run(pod, ready),
        }

    def _run(self, pod: Json, ready: bool) -> list[Json]:
        """The running state that it has, or a new one: its start must not move with every step."""
        held = (pod["status"].get("containerStatuses") or [{}])[0]
        running = held.get("state", {}).get("running") or {"startedAt": self.store.now()}
        restarts, last = held.get("restartCount", 0), held.get("lastState")
        return _containers(pod, {"running": running}, ready=ready, restarts=restarts, last=last)

    def _crash(self, pod: Json, terminated: Json) -> Json:
        """Terminated, then waiting to be started again, with what happened in lastState."""
        held = (pod["status"].get("containerStatuses") or [{}])[0]
        common = {"phase": "Running", "podIP": pod["status"].get("podIP") or self._address(),
                  "conditions": _conditions(pod, Ready="False", ContainersReady="False")}  # fmt: skip
        if held.get("restartCount"):
            return {}
        if "terminated" not in held.get("state", {}):
            return common | {"containerStatuses": _containers(pod, {"terminated": terminated})}
        name = pod["spec"]["containers"][0]["name"]
        message = f"back-off 10s restarting failed container={name} pod={pod['metadata']['name']}"
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        last = {"terminated": terminated}
        return common | {"containerStatuses": _containers(pod, waiting, restarts=1, last=last)}

    def _address(self) -> str:
        self._addresses += 1
        return f"10.244.{self._addresses // 250 % 250}.{self._addresses % 250 + 1}"


def _containers(
    pod: Json, state: Json, *, ready: bool = False, restarts: int = 0, last: Json | None = None
) -> list[Json]:
    return [
        {
            "name": each["name"],
            "image": each.get("image", ""),
            "ready": ready,
            "started": "running" in state,
            "restartCount": restarts,
            "state": state,
            "lastState": last or {},
        }
        for each in pod["spec"].get("containers", ())
    ]


def _conditions(pod: Json, **states: str) -> list[Json]:
    """The pod's conditions with these changed."""
    held: dict[str, Json] = {each["type"]: each for each in pod["status"].get("conditions", ())}
    for kind, state in states.items():
        if held.get(kind, {}).get("status") != state:
            held[kind] = {"type": kind, "status": state}
    return list(held.values())


# --- the scheduler ----------------------------------------------------------------------------------------------------


def _fits(pod: Json, node: Json) -> bool:
    spec, labels = pod["spec"], node["metadata"].get("labels", {})
    required: Any = (
        spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    )
    if required and not any(_term_matches(term, node) for term in required["nodeSelectorTerms"]):
        return False
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    return all(taint["effect"] == "PreferNoSchedule" or _tolerated(taint, pod) for taint in _taints(node))


def _term_matches(term: Json, node: Json) -> bool:
    labels, name = node["metadata"].get("labels", {}), node["metadata"]["name"]
    fields = [_holds(each, {"metadata.name": name}) for each in term.get("matchFields") or ()]
    expressions = [_holds(each, labels) for each in term.get("matchExpressions") or ()]
    return bool(fields or expressions) and all(fields) and all(expressions)


def _holds(requirement: Json, values: dict[str, str]) -> bool:
    key, wanted = requirement["key"], requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return values.get(key) in wanted
        case "NotIn":
            return values.get(key) not in wanted
        case "Exists":
            return key in values
        case "DoesNotExist":
            return key not in values
    raise AssertionError(f"operator {requirement['operator']} is not known here")


def _taints(node: Json) -> list[Json]:
    return node["spec"].get("taints") or []


def _tolerated(taint: Json, pod: Json) -> bool:
    return any(_tolerates(each, taint) for each in pod["spec"].get("tolerations") or ())


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return bool(toleration.get("operator") == "Exists")
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _is_ready(node: Json) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", ()))
