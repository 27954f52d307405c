"""/api/N/V/swagger.json, /status, /computenodes, /realtime-services, /health."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest

from sessionpools.kube.protocol import NODES, PODS, WEB_SERVICES
from sessionpools.web.swagger import service_swagger
from support.kubelet import make_node
from support.waiting import until
from support.web import RELEASE, SCRIPT, WebWorld, error_of

GATEWAY_LABELS = {"app.kubernetes.io/name": "session-pools", "app.kubernetes.io/component": "gateway"}


async def test_the_swagger_of_a_service_has_machine_learning_servers_shape(admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    answer = await admin.get("/api/Score/v1/swagger.json")
    assert answer.status_code == 200
    document = answer.json()
    assert document["swagger"] == "2.0"
    assert document["info"] == {"description": "adds", "title": "Score", "version": "v1"}
    assert document["securityDefinitions"] == {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}}
    operations = {
        (path, method): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert operations == {
        ("/login", "post"): "login",
        ("/login/refreshToken", "post"): "renewToken",
        ("/login/refreshToken", "delete"): "revokeRefreshToken",
        ("/api/Score/v1", "post"): "add",
        ("/api/Score/v1/batch", "post"): "StartBatchExecution",
        ("/api/Score/v1/batch", "get"): "GetBatchExecutions",
        ("/api/Score/v1/batch/{executionId}", "get"): "GetBatchExecutionStatus",
        ("/api/Score/v1/batch/{executionId}", "delete"): "CancelAndDeleteBatchExecution",
        ("/api/Score/v1/batch/{executionId}/{index}/files", "get"): "GetBatchExecutionFiles",
        ("/api/Score/v1/batch/{executionId}/{index}/files/{fileName}", "get"): "GetBatchExecutionFile",
    }
    numeric = {"type": "number", "format": "double", "description": "numeric"}
    assert document["definitions"]["InputParameters"] == {"type": "object", "properties": {"x": numeric}}
    assert document["definitions"]["OutputParameters"] == {"type": "object", "properties": {"answer": numeric}}
    references = [part.split('"')[0] for part in json.dumps(document).split('"#/definitions/')[1:]]
    assert set(references) <= document["definitions"].keys()


async def test_the_swagger_of_no_service_is_not_found(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/api/Score/v1/swagger.json")
    assert answer.status_code == 404
    error_of(answer)


def test_names_in_the_paths_of_a_swagger_are_encoded() -> None:
    document = service_swagger("a b", "1/2", "", None, [], [])
    assert "/api/a%20b/1%2F2" in document["paths"]
    assert document["paths"]["/api/a%20b/1%2F2"]["post"]["operationId"] == "consume"


async def test_the_status_is_a_tree_of_parts(world: WebWorld, admin: httpx.AsyncClient) -> None:
    world.server.store.create(PODS, {"metadata": {"name": "gateway-1", "labels": GATEWAY_LABELS}, "spec": {}}, RELEASE)
    world.server.store.edit(PODS, "gateway-1", {"status": {"podIP": "127.0.0.1"}}, RELEASE)
    await until(lambda: world.parts.gateways.count, "the gateway is known")
    status = (await admin.get("/status")).json()
    assert status["statusCode"] == "pass"
    assert status["components"].keys() == {"backends", "authentication", "database", "kubernetes", "gateways"}
    node = status["components"]["backends"]["components"]["http://worker-1:12805/"]
    assert node["statusCode"] == "pass"
    assert node["components"] is None
    assert node["details"]["pythonCanOpenShell"] == "False"  # there is no generic pool; a string, as it was one
    assert status["components"]["database"]["details"]["state"] == "Open"


async def test_the_status_says_what_is_wrong(world: WebWorld, admin: httpx.AsyncClient) -> None:
    world.server.store.edit(NODES, "worker-1", {"spec": {"unschedulable": True}})
    world.server.store.create(NODES, make_node("worker-3", ready=False))
    await until(lambda: len(world.parts.cluster.nodes()) == 3, "the nodes are known")
    await until(lambda: not all(node.schedulable for node in world.parts.cluster.nodes()), "the cordon is known")
    shutil.rmtree(world.folder / "store")
    (world.folder / "store").write_text("no directory")
    status = (await admin.get("/status")).json()
    assert status["statusCode"] == "fail"
    parts = status["components"]
    nodes = {endpoint: part["statusCode"] for endpoint, part in parts["backends"]["components"].items()}
    assert nodes == {
        "http://worker-1:12805/": "warn",
        "http://worker-2:12805/": "pass",
        "http://worker-3:12805/": "fail",
    }
    assert parts["backends"]["statusCode"] == "warn"  # others serve
    assert "cordoned" in parts["backends"]["components"]["http://worker-1:12805/"]["details"]["message"]
    assert parts["database"]["statusCode"] == "fail"
    assert parts["gateways"]["statusCode"] == "warn"
    (world.folder / "store").unlink()


async def test_compute_nodes_are_shown_and_not_kept(world: WebWorld, admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/computenodes")).json() == {
        "computeNodes": ["http://worker-1:12805/", "http://worker-2:12805/"]
    }
    for method in ("POST", "PUT", "DELETE"):
        answer = await admin.request(method, "/computenodes", json={"entries": ["http://1.1.1.1"]})
        assert answer.status_code == 405
        assert "kubectl cordon" in error_of(answer)


async def test_named_compute_nodes_are_taken_where_nodes_may_not_be_read(tmp_path: Path) -> None:
    async with WebWorld(tmp_path, nodes=("not-named",)) as world:
        replica = await world.replica(nodes=("worker-7",))
        answer = await world.of(replica).get("/computenodes")
        assert answer.json() == {"computeNodes": ["http://worker-7:12805/"]}


@pytest.mark.parametrize(("method", "path"), [("POST", "M"), ("POST", "M/v1"), ("PATCH", "M/v1")])
async def test_realtime_services_are_not_offered_and_what_to_do_instead_is_said(
    admin: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await admin.request(
        method, f"/realtime-services/{path}", files={"model": b"blob"}, data={"description": "x"}
    )
    assert answer.status_code == 501
    assert "publish Python code that loads the model once" in error_of(answer)


async def test_health_needs_no_token_and_no_cluster(world: WebWorld) -> None:
    await world.server.stop()
    try:
        answer = await world.client(role=None).get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    finally:
        await world.server.start()


async def test_objects_of_other_namespaces_are_not_this_apis(world: WebWorld, admin: httpx.AsyncClient) -> None:
    spec = {"name": "Score", "version": "v1", "code": {"imagePath": "/app"}, "entrypoint": "a:b"}
    world.server.store.create(WEB_SERVICES, {"metadata": {"name": "elsewhere"}, "spec": spec}, "another")
    await world.kubectl_service("Here")
    assert [service["name"] for service in (await admin.get("/services")).json()] == ["Here"]
