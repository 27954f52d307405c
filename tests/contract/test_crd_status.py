"""Status of the kinds, and what kubectl shows of them, on a real API server."""

import json
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import SessionPool, WebService
from support.cluster import KubectlError, apply, kubectl
from support.kinds import pool, service

Object = dict[str, Any]
pytestmark = pytest.mark.usefixtures("crds")

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "AllNodesReady",
    "message": "ready",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
POOL_STATUS = {
    "observedGeneration": 1,
    "state": "Pending",
    "nodes": [{"name": "worker-1", "state": "Pending", "desired": 2, "ready": 0, "message": "ImagePullBackOff"}],
    "nodeCounts": {"total": 1, "success": 0, "pending": 1, "notFound": 0},
    "sessions": {"desired": 2, "ready": 0, "updated": 0, "old": 0},
    "image": "registry/session@sha256:" + "0" * 64,
    "revision": "abcdef",
    "conditions": [READY | {"status": "False", "reason": "SessionsPending"}],
}
SERVICE_STATUS = {
    "observedGeneration": 1,
    "revision": "abcdef",
    "pool": "dedicated",
    "inputs": [{"name": "bmi", "type": "any", "required": True}],
    "outputs": [{"name": "score", "type": "numeric", "required": True}],
    "conditions": [READY],
}


def status_kept(thing: Object, status: Object, namespace: str) -> Object:
    """What the API server would keep of a status, whatever a controller in the cluster says about the same object."""
    done = kubectl(
        *(
            "replace",
            "--subresource=status",
            "--dry-run=server",
            "--namespace",
            namespace,
            "--output=json",
            "--filename=-",
        ),
        input=json.dumps(thing | {"status": status}),
    )
    kept: Object = json.loads(done.stdout)
    return kept


def test_a_complete_status_is_kept_and_read_back(namespace: str) -> None:
    apply(pool(), service(), namespace=namespace)
    kept_of_pool = status_kept(pool(), POOL_STATUS, namespace)
    kept_of_service = status_kept(service(), SERVICE_STATUS, namespace)
    assert kept_of_pool["status"] == POOL_STATUS
    assert kept_of_service["status"] == SERVICE_STATUS
    assert SessionPool.model_validate(kept_of_pool).status.to_json() == POOL_STATUS
    assert WebService.model_validate(kept_of_service).status.to_json() == SERVICE_STATUS


def test_status_gets_no_defaults_that_nobody_observed(namespace: str) -> None:
    apply(pool(), namespace=namespace)
    status = {"observedGeneration": 1, "sessions": {}}
    assert status_kept(pool(), status, namespace)["status"] == status


@pytest.mark.parametrize("thing", [pool(serviceName="NotPublished"), service()], ids=["pool", "service"])
def test_an_object_just_made_says_that_nobody_has_looked_at_it(thing: Object, namespace: str) -> None:
    done = kubectl("create", "--namespace", namespace, "--output=json", "--filename=-", input=json.dumps(thing))
    assert json.loads(done.stdout)["status"] == {"observedGeneration": -1}


def test_five_hundred_nodes_with_long_messages_fit(namespace: str) -> None:
    apply(pool(), namespace=namespace)
    row = {"name": "n" * 253, "state": "Pending", "desired": 1, "ready": 0, "message": "m" * 1024}
    kept = status_kept(pool(), POOL_STATUS | {"nodes": [row] * 500}, namespace)
    assert len(kept["status"]["nodes"]) == 500
    with pytest.raises(KubectlError, match=r"status\.nodes: Too many: 501: must have at most 500 items"):
        status_kept(pool(), POOL_STATUS | {"nodes": [row] * 501}, namespace)


def test_kubectl_get_shows_what_matters(namespace: str) -> None:
    apply(pool(), service(), namespace=namespace)

    def header(kind: str) -> list[str]:
        return kubectl("get", kind, "--namespace", namespace).stdout.splitlines()[0].split()

    assert header("sp") == ["NAME", "SERVICE", "VERSION", "STATE", "READY", "DESIRED", "AGE"]
    assert header("ws") == ["NAME", "SERVICE", "VERSION", "POOL", "READY", "AGE"]
    both = kubectl("get", "session-pools", "--namespace", namespace, "--output=name").stdout.split()
    assert both == ["sessionpool.sessionpools.dev/score", "webservice.sessionpools.dev/score"]


def test_kubectl_explain_reads_as_documentation() -> None:
    explained = " ".join(kubectl("explain", "sp.spec.drainTimeoutSeconds").stdout.split())
    assert "How long a session that shall end may finish its call; at least requestTimeoutSeconds." in explained
    every = kubectl("explain", "sp", "--recursive").stdout + kubectl("explain", "ws", "--recursive").stdout
    assert "scale" not in every
    assert "<no description>" not in kubectl("explain", "ws.spec").stdout


def test_there_is_no_scale_subresource(namespace: str) -> None:
    apply(pool(), namespace=namespace)
    done = kubectl("scale", "sp/score", "--replicas=3", "--namespace", namespace, check=False)
    assert done.returncode != 0
