"""What can happen to Session Pools on the test cluster: processes killed, nodes stopped, the API server frozen."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Final

from support.cluster import CLUSTER, docker, kubectl, wait_for
from support.pools import Json

NAMESPACE: Final = "session-pools"
CONTROL_PLANE: Final = f"{CLUSTER}-control-plane"
# Prints the pids, as the node sees them, of the processes of a pod (of its cgroup) whose name matches.
_PROCESSES: Final = r"""
for cgroup in $(grep -ls "$1" /proc/[0-9]*/cgroup); do
	process=${cgroup%/cgroup}
	grep -qsE "$2" "$process/comm" && echo "${process#/proc/}"
done
true
"""


def release_pods(component: str, *, active: bool | None = None) -> list[Json]:
    """The running pods of the release that are not on their way out; of the gateway, the active one or the others."""
    selector = f"app.kubernetes.io/component={component}"
    if active is not None:
        selector += f",sessionpools.dev/gateway{'=' if active else '!='}active"
    found = json.loads(kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json").stdout)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def active_gateway() -> Json:
    """The one gateway that takes the callers."""

    def only() -> Json | None:
        found = release_pods("gateway", active=True)
        return found[0] if len(found) == 1 else None

    found = wait_for(only, 30, "one gateway is active")
    assert found is not None
    return found


def rollout_settles(component: str) -> None:
    """Waits until every pod of the release's component is ready."""

    def settled() -> bool:
        statuses = [pod["status"].get("containerStatuses", []) for pod in release_pods(component)]
        return all(of_pod and all(container["ready"] for container in of_pod) for of_pod in statuses)

    wait_for(settled, 90, f"every {component} is ready again")


def leader() -> str:
    """The name of the pod that holds the controllers' Lease; "" is none."""
    command = ("get", "lease", "session-pools-controller", "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")
    return kubectl(*command, check=False).stdout


def leading_controller() -> Json:
    """The one controller that works."""

    def holder() -> Json | None:
        name = leader()
        return next((pod for pod in release_pods("controller") if pod["metadata"]["name"] == name), None)

    found = wait_for(holder, 30, "a controller leads")
    assert found is not None
    return found


def processes(pod: Json, pattern: str) -> list[int]:
    """Pids, on the pod's node, of its processes whose name matches, oldest first.

    The names: supervisor, template, session-0, haproxy, session-pools-g (the gateway's agent), session-pools-c (the
    controller)."""
    uid = pod["metadata"]["uid"]
    either = f"{uid}\\|{uid.replace('-', '_')}"  # as the cgroup driver writes it
    command = ["docker", "exec", pod["spec"]["nodeName"], "bash", "-c", _PROCESSES, "-", either, pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return sorted(int(pid) for pid in done.stdout.split())


def kill(pod: Json, pattern: str) -> None:
    """Kills the oldest process of the pod whose name matches."""
    pids = processes(pod, pattern)
    assert pids, f"no process of {pod['metadata']['name']} matches {pattern!r}"
    docker("exec", pod["spec"]["nodeName"], "kill", "-9", str(pids[0]))


def evict(pod: Json) -> subprocess.CompletedProcess[str]:
    """What `kubectl drain` asks the API server for."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    return kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body), check=False)


@contextlib.contextmanager
def frozen(pod: Json, pattern: str) -> Iterator[None]:
    """The oldest process of the pod whose name matches stands still, and goes on if it is there afterwards."""
    pid = str(processes(pod, pattern)[0])
    docker("exec", pod["spec"]["nodeName"], "kill", "-STOP", pid)
    try:
        yield
    finally:
        docker("exec", pod["spec"]["nodeName"], "bash", "-c", f"kill -CONT {pid} || true")


@contextlib.contextmanager
def stopped_node(node: str) -> Iterator[None]:
    """Stopped without a word, and started again; ends when Kubernetes says that it is Ready."""
    docker("stop", "--time", "0", node)
    try:
        yield
    finally:
        before = _renewed(node)
        docker("start", node)
        wait_for(lambda: _renewed(node) != before and _ready(node), 120, f"{node} is back")


@contextlib.contextmanager
def frozen_api_server() -> Iterator[None]:
    """Connections to it stay open and nothing is answered."""
    docker("exec", CONTROL_PLANE, "pkill", "-STOP", "kube-apiserver")
    try:
        yield
    finally:
        docker("exec", CONTROL_PLANE, "pkill", "-CONT", "kube-apiserver")
    wait_for(lambda: kubectl("get", "--raw", "/readyz", check=False).returncode == 0, 120, "the API server answers")


def forget_history() -> None:
    """Has etcd forget what objects were like before now, as the API server has it do every five minutes."""
    now = json.loads(kubectl("get", "--raw", "/api/v1/namespaces?limit=1").stdout)["metadata"]["resourceVersion"]
    pki = "/etc/kubernetes/pki"
    files = ("--cacert", f"{pki}/etcd/ca.crt", "--cert", f"{pki}/apiserver-etcd-client.crt")
    key = ("--key", f"{pki}/apiserver-etcd-client.key")
    url = "https://127.0.0.1:2379/v3/kv/compaction"
    docker(
        "exec", CONTROL_PLANE, "curl", "--silent", "--fail", *files, *key, "--data", json.dumps({"revision": now}), url
    )


def _renewed(node: str) -> str:
    """When its kubelet last said that it lives: what Kubernetes says of a node that was away for seconds is old."""
    return kubectl(
        "get", "lease", node, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}", check=False
    ).stdout


def _ready(node: str) -> bool:
    return kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=10s", check=False).returncode == 0
