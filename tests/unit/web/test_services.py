"""/services: what is published is a WebService, and what others made is seen alike."""

from __future__ import annotations

import base64
import io
import tarfile
import uuid
from typing import Any

import httpx
import pytest

from sessionpools.kube.protocol import WEB_SERVICES
from sessionpools.web.auth.identity import Role
from support.web import NAMESPACE, SCRIPT, WebWorld, error_of

NATIVE = {
    "entrypoint": "service:predict",
    "files": {"service.py": base64.b64encode(b"def predict(x: float) -> float:\n    return x\n").decode()},
    "warmup": {"x": None},
    "modules": ["math"],
}


async def bundle_of(world: WebWorld, name: str = "Score", version: str = "v1") -> dict[str, bytes]:
    """The files of a published service's bundle."""
    code = world.service(name, version)["spec"]["code"]["bundle"]
    content = b"".join([piece async for piece in world.parts.bundles.stream(code["sha256"])])
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


async def test_a_block_of_code_is_published_as_a_script_in_a_bundle(world: WebWorld, admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/services/Score/v1", json=SCRIPT)
    assert (answer.status_code, answer.json()) == (201, "/api/Score/v1")
    assert answer.headers["location"] == "/services/Score/v1"
    spec = world.service()["spec"]
    sha256 = spec["code"]["bundle"]["sha256"]
    assert spec == {
        "name": "Score",
        "version": "v1",
        "description": "adds",
        "script": "service_script.py",
        "init": "service_init:load",
        "code": {
            "bundle": {
                "url": f"http://session-pools-web.session-pools:12803/bundles/{sha256}.tar.gz",
                "sha256": sha256,
            }
        },
        "inputs": [{"name": "x", "type": "numeric"}],
        "outputs": [{"name": "answer", "type": "numeric"}],
        "outputFiles": [],
    }
    files = await bundle_of(world)
    assert files["service_script.py"] == b"answer = x + offset"
    assert files["init_block.py"] == b"offset = 1"


async def test_what_was_published_is_listed_at_once_as_old_clients_read_it(admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    (listed,) = (await admin.get("/services")).json()
    creation_time = listed.pop("creationTime")
    assert creation_time.startswith("20")
    assert listed == {
        "name": "Score",
        "version": "v1",
        "versionPublishedBy": "admin",
        "owner": "admin",
        "snapshotId": None,
        "runtimeType": "Python",
        "initCode": "offset = 1",
        "code": "answer = x + offset",
        "description": "adds",
        "operationId": "add",
        "inputParameterDefinitions": [{"name": "x", "type": "numeric"}],
        "outputParameterDefinitions": [{"name": "answer", "type": "numeric"}],
        "outputFileNames": [],
        "myPermissionOnService": "read/write",
    }
    assert (await admin.get("/services/Score")).json()[0]["version"] == "v1"
    (one,) = (await admin.get("/services/Score/v1")).json()
    assert one["code"] == "answer = x + offset"


async def test_a_function_in_files_is_published_with_its_entrypoint(world: WebWorld, admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/services/Score/v1", json=NATIVE)).status_code == 201
    spec = world.service()["spec"]
    assert spec["entrypoint"] == "service:predict"
    assert spec["warmup"] == {"x": None}
    assert spec["modules"] == ["math"]
    assert not spec.keys() & {"script", "init", "inputs", "outputs"}
    assert (await bundle_of(world)).keys() == {"service.py"}


async def test_an_update_keeps_the_init_unless_it_names_another_or_an_empty_one(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    await admin.post("/services/Score/v1", json=NATIVE | {"init": "service:load"})
    assert (await admin.patch("/services/Score/v1", json={"entrypoint": "service:predict"})).status_code == 200
    assert world.service()["spec"]["init"] == "service:load"
    assert (await admin.patch("/services/Score/v1", json={"init": "service:warm"})).status_code == 200
    assert world.service()["spec"]["init"] == "service:warm"
    assert (await admin.patch("/services/Score/v1", json={"init": ""})).status_code == 200
    assert "init" not in world.service()["spec"]
    assert (await bundle_of(world)).keys() == {"service.py"}


async def test_large_files_of_a_function_come_by_way_of_a_snapshot(world: WebWorld, admin: httpx.AsyncClient) -> None:
    session = (await admin.post("/sessions", json={})).json()["sessionId"]
    await admin.put(f"/sessions/{session}/files/lib/model.bin", content=b"weights")
    snapshot = (await admin.post(f"/sessions/{session}/snapshot", json={})).json()["snapshotId"]
    answer = await admin.post("/services/Score/v1", json=NATIVE | {"snapshotId": snapshot})
    assert answer.status_code == 201
    assert (await bundle_of(world)).keys() == {"service.py", "lib/model.bin"}


async def test_without_a_version_it_is_a_guid_and_the_last_of_the_list(admin: httpx.AsyncClient) -> None:
    for _ in range(3):  # within a second: the API server's times have no more than seconds
        answer = await admin.post("/services/Score", json=SCRIPT)
        assert answer.status_code == 201
        version = answer.json().rpartition("/")[2]
        assert str(uuid.UUID(version)) == version
        assert (await admin.get("/services/Score")).json()[-1]["version"] == version


async def test_names_are_case_sensitive_and_free(world: WebWorld, admin: httpx.AsyncClient) -> None:
    for name in ("score", "Score", "Größe 1", "a.b", "日本"):
        assert (await admin.post(f"/services/{name}/v1", json=SCRIPT)).status_code == 201
        assert [each["name"] for each in (await admin.get(f"/services/{name}")).json()] == [name]
    assert len({service["metadata"]["name"] for service in world.services()}) == 5


@pytest.mark.parametrize("name", ["a%0Ab", " a", "x" * 129, "%2e%2e"])
async def test_a_name_that_is_no_segment_of_a_path_is_refused(admin: httpx.AsyncClient, name: str) -> None:
    answer = await admin.post(f"/services/{name}/v1", json=SCRIPT)
    assert answer.status_code in (400, 404)
    error_of(answer)


async def test_a_service_that_exists_is_not_published_again(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    answer = await admin.post("/services/Score/v1", json=SCRIPT | {"description": "another"})
    assert answer.status_code == 403  # Machine Learning Server's
    assert "PATCH it to change it" in error_of(answer)
    assert world.service()["spec"]["description"] == "adds"


async def test_one_that_kubectl_made_is_listed_and_in_the_way(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await world.kubectl_service()
    (listed,) = (await admin.get("/services/Score/v1")).json()
    assert listed["versionPublishedBy"] == ""
    assert listed["code"].startswith("def predict")
    assert (await admin.post("/services/Score/v1", json=SCRIPT)).status_code == 403
    assert (await admin.delete("/services/Score/v1")).status_code == 200
    assert world.services() == []


async def test_an_absent_version_is_not_found_and_an_absent_name_an_empty_list(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/services/Score/v1")
    assert answer.status_code == 404
    assert "'Score' version 'v1'" in error_of(answer)
    answer = await admin.get("/services/Score")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_an_update_keeps_what_it_leaves_out(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    before = world.service()
    answer = await admin.patch("/services/Score/v1", json={"description": "adds one", "code": None})
    assert answer.status_code == 200
    after = world.service()
    assert after["spec"] == before["spec"] | {"description": "adds one"}
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    await admin.patch("/services/Score/v1", json={"initCode": "offset = 2"})
    files = await bundle_of(world)
    assert (files["service_script.py"], files["init_block.py"]) == (b"answer = x + offset", b"offset = 2")
    (listed,) = (await admin.get("/services/Score/v1")).json()
    assert (listed["initCode"], listed["operationId"]) == ("offset = 2", "add")


async def test_an_update_with_an_empty_snapshot_keeps_the_objects(world: WebWorld, admin: httpx.AsyncClient) -> None:
    async def snapshot(**objects: bytes) -> str:
        session = (await admin.post("/sessions", json={"runtimeType": "Python"})).json()["sessionId"]
        for name, content in objects.items():
            put = await admin.post(f"/sessions/{session}/workspace/{name}", content=content)
            assert put.status_code == 200
        return str((await admin.post(f"/sessions/{session}/snapshot", json={})).json()["snapshotId"])

    first = await snapshot(model=b"dill of a model")
    await admin.post("/services/Score/v1", json=SCRIPT | {"snapshotId": first})
    assert (await admin.get("/services/Score/v1")).json()[0]["snapshotId"] == first
    await admin.patch("/services/Score/v1", json={"snapshotId": await snapshot(), "description": "new"})
    assert (await bundle_of(world))["objects/model.dill"] == b"dill of a model"
    await admin.patch("/services/Score/v1", json={"snapshotId": await snapshot(other=b"dill of another")})
    files = await bundle_of(world)
    assert files.keys() & {"objects/model.dill", "objects/other.dill"} == {"objects/other.dill"}
    assert files["service_script.py"] == b"answer = x + offset"


async def test_an_update_may_turn_a_block_into_a_function_and_back(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    assert (await admin.patch("/services/Score/v1", json=NATIVE)).status_code == 200
    spec = world.service()["spec"]
    assert spec["entrypoint"] == "service:predict"
    assert not spec.keys() & {"script", "init", "inputs", "outputs"}
    assert (await admin.patch("/services/Score/v1", json={"code": "y = 1"})).status_code == 200
    spec = world.service()["spec"]
    assert (spec["script"], spec["init"], spec["outputs"]) == ("service_script.py", "service_init:load", [])
    assert not spec.keys() & {"entrypoint", "inputs"}


async def test_an_update_of_a_service_of_kubectls_changes_only_what_it_names(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    before = await world.kubectl_service(labels={"team": "a"})
    assert (await admin.patch("/services/Score/v1", json={"warmup": {"x": None}})).status_code == 200
    after = world.service()
    assert after["spec"] == before["spec"] | {"warmup": {"x": None}}
    assert after["metadata"]["labels"] == {"team": "a"}
    answer = await admin.patch("/services/Score/v1", json={"initCode": "a = 1"})
    assert answer.status_code == 400
    assert "was not published as a block of code" in error_of(answer)


async def test_a_deleted_service_takes_the_pool_that_was_made_for_it_here(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    await admin.post("/services/Score/v1/pool", json={"InitialPoolSize": 1, "MaxPoolSize": 2})
    assert len(world.pools()) == 1
    answer = await admin.delete("/services/Score/v1")
    assert answer.status_code == 200
    assert (world.services(), world.pools()) == ([], [])
    assert (await admin.delete("/services/Score/v1")).status_code == 404


async def test_a_deleted_service_leaves_a_pool_that_others_made(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    await world.kubectl_pool()
    assert (await admin.delete("/services/Score/v1")).status_code == 200
    assert len(world.pools()) == 1


async def test_inputs_and_outputs_are_the_running_services_where_none_are_declared(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    await admin.post("/services/Score/v1", json=NATIVE)
    name = world.service()["metadata"]["name"]
    status: dict[str, Any] = {
        "inputs": [{"name": "x", "type": "numeric"}, {"name": "more", "type": "any"}],
        "outputs": [{"name": "answer", "type": "numeric"}],
    }
    api = await world.server.connect()
    await api.apply_status(WEB_SERVICES, name, {"status": status}, namespace=NAMESPACE, field_manager="controller")

    async def shown() -> list[dict[str, str]]:
        return (await admin.get("/services/Score/v1")).json()[0]["inputParameterDefinitions"]  # type: ignore[no-any-return]

    for _ in range(500):
        if await shown():
            break
    # a type that Machine Learning Server does not know would be an error to its client
    assert await shown() == [{"name": "x", "type": "numeric"}, {"name": "more", "type": "character"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": None}, "code: give the block of code"),
        ({"entrypoint": "a:b"}, "code and entrypoint: give one of them"),
        ({"runtimeType": "R"}, "runtimeType: 'R' is not supported"),
        ({"inputParameterDefinitions": [{"name": "x", "type": "complex"}]}, "inputParameterDefinitions.0.type"),
        ({"inputParameterDefinitions": [{"name": "x", "type": "any"}]}, "no type that can be declared"),
        ({"inputParameterDefinitions": [{"name": "x", "type": "int"}] * 2}, "x is there twice"),
        ({"snapshotId": str(uuid.uuid4())}, "there is none"),
        ({"description": "d" * 5000}, "body.description"),
        ({"code": 7}, "body.code"),
        ({"Code": "a", "code": "b"}, "given twice"),
    ],
)
async def test_what_is_wrong_with_a_publication_is_named(
    world: WebWorld, admin: httpx.AsyncClient, change: dict[str, Any], said: str
) -> None:
    answer = await admin.post("/services/Score/v1", json=SCRIPT | change)
    assert answer.status_code in (400, 404)
    assert said in error_of(answer)
    assert world.services() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {}}, "files: give the code"),
        ({"files": {"service.py": "no base64!"}}, "files.service.py: is not base64"),
        ({"files": {"../service.py": ""}}, "../service.py"),
        ({"initCode": "a = 1"}, "initCode: goes with code"),
    ],
)
async def test_what_is_wrong_with_a_function_is_named(
    world: WebWorld, admin: httpx.AsyncClient, change: dict[str, Any], said: str
) -> None:
    answer = await admin.post("/services/Score/v1", json=NATIVE | change)
    assert answer.status_code == 400
    assert said in error_of(answer)
    assert world.services() == []


async def test_a_contributor_has_their_services_and_sees_the_others(world: WebWorld) -> None:
    ada, bob = world.client("ada", Role.CONTRIBUTOR), world.client("bob", Role.CONTRIBUTOR)
    assert (await ada.post("/services/Score/v1", json=SCRIPT)).status_code == 201
    (seen,) = (await bob.get("/services")).json()
    assert (seen["owner"], seen["myPermissionOnService"]) == ("ada", "read only")
    for answer in (
        await bob.patch("/services/Score/v1", json={"description": "mine"}),
        await bob.delete("/services/Score/v1"),
        await bob.post("/services/Score/v1", json=SCRIPT),
        await bob.post("/services/Score/v2", json=SCRIPT),  # whoever asks for the latest would get it
        await bob.post("/services/Score", json=SCRIPT),
        await bob.post("/services/Score/v1/pool", json={"maxPoolSize": 1}),
        await bob.delete("/services/Score/v1/pool"),
    ):
        assert answer.status_code == 403
        assert "'ada'" in error_of(answer)
    assert (await ada.patch("/services/Score/v1", json={"description": "mine"})).status_code == 200
    assert (await ada.post("/services/Score/v2", json=SCRIPT)).status_code == 201
    assert (await ada.delete("/services/Score/v1")).status_code == 200
