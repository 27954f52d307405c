"""What end-to-end tests do with pools on the real cluster: publish, wait, look, call."""

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from support.cluster import CONTEXT, apply, get, kubectl, wait_for
from support.tools import tool

API_VERSION: Final = "sessionpools.dev/v1alpha1"
WORKERS: Final = ("sessionpools-test-worker", "sessionpools-test-worker2")
DOUBLE: Final = "def predict(x: float) -> float:\n    return 2 * x\n"
# Says on which pod it ran, after as long as it is told to take.
WHERE: Final = """
import socket
import time


def predict(seconds: float = 0) -> str:
    time.sleep(seconds)
    return socket.gethostname()
"""
# Small enough that dozens of sessions fit on two workers.
RESOURCES: Final = {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}
READY_SECONDS: Final = 120  # two cores start about three pods a second

# In full: other CRDs may have the same short names.
POOLS: Final = "sessionpools.sessionpools.dev"
SERVICES: Final = "webservices.sessionpools.dev"

Json = dict[str, Any]


def web_service(object_name: str, code: str | Mapping[str, str] = DOUBLE, **spec: Any) -> Json:
    """A WebService whose key is (`object_name`, v1), unless `spec` says otherwise."""
    files = {"service.py": code} if isinstance(code, str) else dict(code)
    fields = {
        "name": object_name,
        "version": "v1",
        "code": {"inline": files},
        "entrypoint": "service:predict",
        "warmup": {"x": 1},
        "resources": RESOURCES,
    }
    given = {key: value for key, value in (fields | spec).items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": "WebService", "metadata": {"name": object_name}, "spec": given}


def session_pool(name: str, initial: int = 1, maximum: int = 2, **spec: Any) -> Json:
    fields = {
        "serviceName": name,
        "serviceVersion": "v1",
        "initialPoolSize": initial,
        "maxPoolSize": maximum,
        "requestTimeoutSeconds": 10,
        "drainTimeoutSeconds": 10,
    }
    return {"apiVersion": API_VERSION, "kind": "SessionPool", "metadata": {"name": name}, "spec": fields | spec}


@dataclass(frozen=True)
class Pool:
    """A SessionPool of the test cluster, as its user sees it."""

    name: str
    namespace: str

    def exists(self) -> bool:
        name = kubectl("get", POOLS, self.name, "-n", self.namespace, "--ignore-not-found", "-o", "name").stdout
        return bool(name)

    def status(self) -> Json:
        found: Json = get(POOLS, self.name, self.namespace).get("status") or {}
        return found

    def condition(self, type_: str) -> Json:
        return next((c for c in self.status().get("conditions", []) if c["type"] == type_), {})

    def messages(self) -> list[str]:
        return [node["message"] for node in self.status().get("nodes", [])]

    def patch(self, **spec: Any) -> None:
        body = json.dumps({"spec": spec})
        kubectl("patch", POOLS, self.name, "-n", self.namespace, "--type=merge", "-p", body)

    def pods(self, node: str = "") -> list[Json]:
        """Session pods that are not on their way out."""
        selector = f"sessionpools.dev/pool={self.name}"
        found = json.loads(kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "json").stdout)["items"]
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in alive if not node or pod["spec"].get("nodeName") == node]

    def ready_pods(self, node: str = "") -> list[Json]:
        return [pod for pod in self.pods(node) if _is_ready(pod)]

    def lives(self) -> dict[str, int]:
        """How often the containers of each session pod (by uid) have started again."""
        return {
            pod["metadata"]["uid"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
            for pod in self.pods()
        }

    def until_success(self, seconds: float = READY_SECONDS) -> Json:
        """Waits for Success of the pool as its spec stands now; returns the status."""

        def succeeded() -> Json | None:
            body = get(POOLS, self.name, self.namespace)
            status: Json = body.get("status") or {}
            current = status.get("observedGeneration") == body["metadata"]["generation"]
            settled = current and status["state"] == "Success" and self._is(status, "Reconciling", "False")
            return status if settled else None

        found = wait_for(succeeded, seconds, f"pool {self.name} is Success")
        assert found is not None
        return found

    def until_stalled(self, reason: str | tuple[str, ...], seconds: float = READY_SECONDS) -> Json:
        """Waits for the condition Stalled with this reason, or one of these; returns the status."""
        reasons = (reason,) if isinstance(reason, str) else reason

        def stalled() -> Json | None:
            status = self.status()
            match = [c for c in status.get("conditions", []) if c["type"] == "Stalled" and c["reason"] in reasons]
            return status if match and match[0]["status"] == "True" else None

        found = wait_for(stalled, seconds, f"pool {self.name} is Stalled/{'|'.join(reasons)}")
        assert found is not None
        return found

    def warnings(self) -> dict[str, int]:
        """Warning Events about the pool: count by reason."""
        selector = f"involvedObject.name={self.name},involvedObject.kind=SessionPool,type=Warning"
        found = kubectl("get", "events", "-n", self.namespace, "--field-selector", selector, "-o", "json").stdout
        return {event["reason"]: event["count"] for event in json.loads(found)["items"]}

    @staticmethod
    def _is(status: Json, type_: str, value: str) -> bool:
        return any(c["type"] == type_ and c["status"] == value for c in status.get("conditions", []))


def publish(namespace: str, service: Json, pool: Json) -> Pool:
    apply(service, pool, namespace=namespace)
    return Pool(pool["metadata"]["name"], namespace)


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json


class PodProxy:
    """HTTP to pods by way of the API server (`kubectl proxy` on loopback): pods have no address on this machine."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, pod: Json, inputs: Any, *, port: int = 9000, path: str = "/", timeout: float = 60) -> Answer:
        body = inputs if isinstance(inputs, bytes) else json.dumps(inputs).encode()
        return self._request(pod, port, path, timeout, body)

    def control(self, pod: Json, path: str = "/sessions") -> Json:
        return self._request(pod, 8999, path, 10, None).body

    def _request(self, pod: Json, port: int, path: str, timeout: float, body: bytes | None) -> Answer:
        metadata = pod["metadata"]
        url = f"{self.url}/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{port}/proxy{path}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Answer(answer.status, json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read()))


@contextlib.contextmanager
def pod_proxy() -> Iterator[PodProxy]:
    command = [tool("kubectl"), "--context", CONTEXT, "proxy", "--port=0", "--reject-methods=^$", "--reject-paths=^$"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:\d+", line)
        assert match, f"kubectl proxy said {line!r}"
        yield PodProxy(f"http://{match[0]}")
    finally:
        process.terminate()
        process.wait()


def _is_ready(pod: Json) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
