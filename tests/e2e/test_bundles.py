"""Web services whose code is a bundle, given out by a web server in the cluster that counts what it is asked for."""

import base64
import json
from collections.abc import Iterator

import pytest

from support.archives import Archive, bundle
from support.cluster import SESSION_IMAGE, apply, get, kubectl, temporary_namespace, wait_for
from support.healing import AT_ONCE_SECONDS, well_again
from support.pools import Json, PodProxy, Pool, publish, session_pool, web_service

GOOD = bundle(
    "from lib.model import FACTOR\n\n\ndef predict(x: float) -> float:\n    return FACTOR * x\n",
    lib__model="FACTOR = 3\n",
)
OTHER = bundle("def predict(x: float) -> float:\n    return 4 * x\n")
KILL_TEMPLATE = """
import os, pathlib, signal
for name in pathlib.Path("/proc").glob("[0-9]*/comm"):
    if name.read_text().strip() == "template":
        os.kill(int(name.parent.name), signal.SIGKILL)
"""


class Server:
    """Gives out GOOD and OTHER under any query; its log tells what was asked for."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def url(self, query: str, file: str = "good.tar.gz") -> str:
        return f"http://bundles.{self.namespace}.svc:8080/{file}?{query}"

    def asked(self, query: str) -> int:
        return kubectl("logs", "deployment/bundles", "-n", self.namespace).stdout.count(f"?{query} ")

    def scale(self, replicas: int) -> None:
        kubectl("scale", "deployment/bundles", "-n", self.namespace, f"--replicas={replicas}")

    def until_there(self) -> None:
        kubectl("rollout", "status", "deployment/bundles", "-n", self.namespace, "--timeout=100s")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    labels = {"app": "bundles"}
    data = {"good.tar.gz": GOOD, "other.tar.gz": OTHER, "copy.tar.gz": GOOD}
    container = {
        "name": "server",
        "image": SESSION_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "http.server", "8080", "--directory", "/bundles"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "bundles", "mountPath": "/bundles"}],
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "bundles", "configMap": {"name": "bundles"}}],
        "terminationGracePeriodSeconds": 0,
    }
    with temporary_namespace("bundles") as namespace:
        apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "bundles"},
                "binaryData": {name: base64.b64encode(archive.data).decode() for name, archive in data.items()},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "bundles"},
                "spec": {"selector": labels, "ports": [{"port": 8080}]},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "bundles"},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
            namespace=namespace,
        )
        made = Server(namespace)
        made.until_there()
        yield made


def of_bundle(name: str, url: str, archive: Archive = GOOD) -> Json:
    service = web_service(name)
    service["spec"]["code"] = {"bundle": {"url": url, "sha256": archive.sha256}}
    return service


def uids(pool: Pool) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pool.pods()}


@pytest.mark.parametrize("isolation", ["Pod", "Process"])
def test_the_code_of_a_bundle_is_served(restricted: str, server: Server, proxy: PodProxy, isolation: str) -> None:
    name = f"served-{isolation.lower()}"
    sizes = session_pool(name, 2, 2, isolation=isolation)
    pool = publish(restricted, of_bundle(name, server.url(name)), sizes)
    assert pool.until_success()["sessions"]["ready"] == 4
    answer = proxy.call(pool.ready_pods()[0], {"x": 2})
    assert answer.body["outputParameters"] == {"answer": 6}
    assert server.asked(name) == len(pool.pods())  # once each


def test_another_digest_is_said_with_both_and_corrected_it_is_well_at_once(restricted: str, server: Server) -> None:
    name = "mismatch"
    pool = publish(restricted, of_bundle(name, server.url(name), OTHER), session_pool(name))
    pool.until_stalled("BundleDigestMismatch", 60)
    message = pool.condition("Stalled")["message"]
    assert GOOD.sha256 in message
    assert OTHER.sha256 in message
    apply(of_bundle(name, server.url(name)), namespace=restricted)
    well_again(pool, AT_ONCE_SECONDS)


def test_a_rollout_to_a_bundle_that_is_not_there_leaves_the_old_sessions_and_an_address_corrected_goes_on(
    restricted: str, server: Server, proxy: PodProxy
) -> None:
    name = "rollout"
    pool = publish(restricted, of_bundle(name, server.url(name)), session_pool(name))
    pool.until_success()
    before = uids(pool)
    apply(of_bundle(name, server.url(name, "gone.tar.gz"), OTHER), namespace=restricted)
    pool.until_stalled("RevisionFailed", 60)
    assert "answered 404" in pool.condition("Stalled")["message"]
    assert before <= uids(pool)
    assert proxy.call(pool.ready_pods()[0], {"x": 2}).body["outputParameters"] == {"answer": 6}
    apply(of_bundle(name, server.url(name, "other.tar.gz"), OTHER), namespace=restricted)
    well_again(pool, AT_ONCE_SECONDS)
    assert proxy.call(pool.ready_pods()[0], {"x": 2}).body["outputParameters"] == {"answer": 8}


def test_a_server_that_is_away_is_shown_and_found_when_it_is_back(restricted: str, server: Server) -> None:
    name = "away"
    server.scale(0)
    wait_for(lambda: not running(server), 60, "the server is away")
    pool = publish(restricted, of_bundle(name, server.url(name)), session_pool(name))
    try:
        wait_for(lambda: any(m.startswith("fetch bundle (") for m in pool.messages()), 60, "it is shown")
    finally:
        server.scale(1)
        server.until_there()
    pool.until_success()
    assert sum(pool.lives().values()) == 0  # no container had to start again for it


def running(server: Server) -> list[Json]:
    selector = ("-l", "app=bundles", "-o", "json")
    items: list[Json] = json.loads(kubectl("get", "pods", "-n", server.namespace, *selector).stdout)["items"]
    return items


def test_neither_a_template_nor_a_container_that_starts_again_fetches_anything(
    restricted: str, server: Server, proxy: PodProxy
) -> None:
    name = "again"
    sizes = session_pool(name, isolation="Process")
    pool = publish(restricted, of_bundle(name, server.url(name)), sizes)
    pool.until_success()
    asked = server.asked(name)
    assert asked == 2  # once on each worker
    (pod, _) = pool.ready_pods()
    exec_in(pod, KILL_TEMPLATE)
    wait_for(lambda: "template-ended" in logs(pod) and logs(pod).count("template-loaded") == 2, 30, "another template")
    assert proxy.call(pod, {"x": 2}).body["outputParameters"] == {"answer": 6}
    exec_in(pod, "import os, signal; os.kill(1, signal.SIGTERM)")
    wait_for(lambda: pool.lives().get(pod["metadata"]["uid"]) == 1, 60, "another container")
    pool.until_success()
    assert proxy.call(pod, {"x": 2}).body["outputParameters"] == {"answer": 6}
    assert server.asked(name) == asked


def exec_in(pod: Json, code: str) -> None:
    metadata = pod["metadata"]
    kubectl("exec", metadata["name"], "-n", metadata["namespace"], "--", "python", "-c", code)


def logs(pod: Json) -> str:
    return kubectl("logs", pod["metadata"]["name"], "-n", pod["metadata"]["namespace"]).stdout


def test_a_bundle_that_moves_is_no_rollout(restricted: str, server: Server) -> None:
    name = "moved"
    pool = publish(restricted, of_bundle(name, server.url(name)), session_pool(name, 1, 2))
    revision = pool.until_success()["revision"]
    before, asked = uids(pool), server.asked(name)
    apply(of_bundle(name, server.url("moved-to", "copy.tar.gz")), namespace=restricted)
    generation = get("webservices.sessionpools.dev", name, restricted)["metadata"]["generation"]

    def seen() -> bool:
        status = get("webservices.sessionpools.dev", name, restricted)["status"]
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        return bool(ready["observedGeneration"] == generation and ready["status"] == "True")

    wait_for(seen, 30, "the new address has been seen")
    assert uids(pool) == before
    pool.patch(initialPoolSize=2)
    status = pool.until_success()
    assert (status["revision"], status["sessions"]["ready"]) == (revision, 4)
    assert before < uids(pool)
    assert (server.asked(name), server.asked("moved-to")) == (asked, 2)
