"""The requests of Microsoft's Python client (azureml-model-management-sdk 1.0.1b6.post1), byte for byte, and what it
reads of the answers.

The bytes are those that `requests` makes of what the client hands it, in the order of its deploy, consume and redeploy:
session, workspace objects, snapshot, publish, close, delete, get. Its published unit tests ask no server: mocks answer
all their requests. What those mocks answer is what these tests hold of our answers; the tests themselves are run
against our client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionpools.web.bundlefiles import unpacked
from support.batch_gateway import BatchGateway
from support.web import ADMIN_PASSWORD, WebWorld

# What its HttpClient sets for all requests, and requests itself.
HEADERS = {
    "User-Agent": "azureml-model-management-sdk/1.0.1b6.post1/python",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "application/json",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
}
CODE = b"def manualTransmission(hp, wt):\\n    return model.predict(hp, wt)\\n\\nanswer = manualTransmission(hp, wt)"
INIT = b"def init():\\n    import pandas as pd\\n\\ninit()"
PUBLISH = (
    b'{"snapshotId": "%s", "code": "' + CODE + b'", "description": "cars model", "operationId": "manualTransmission", '
    b'"inputParameterDefinitions": [{"name": "hp", "type": "numeric"}, {"name": "wt", "type": "numeric"}], '
    b'"outputParameterDefinitions": [{"name": "answer", "type": "numeric"}], "runtimeType": "Python", '
    b'"initCode": "' + INIT + b'", "outputFileNames": ["histogram.png"]}'
)
# Of an update, what is not named is left out; the snapshot never is.
PATCH = b'{"snapshotId": "%s", "description": "new text", "runtimeType": "Python"}'


@pytest.fixture
async def gateway() -> AsyncIterator[BatchGateway]:
    async with BatchGateway() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, gateway: BatchGateway) -> AsyncIterator[WebWorld]:
    async with WebWorld(tmp_path, gateway_url=gateway.url) as made:
        yield made


@pytest.fixture
async def client(world: WebWorld) -> httpx.AsyncClient:
    """As `DeployClient(host, use=MLServer, auth=("admin", "..."))` is when it is made."""
    made = world.client(role=None)
    made.headers.update(HEADERS)
    body = b'{"username": "admin", "password": "%s"}' % ADMIN_PASSWORD.encode()
    answer = await made.post("/login", content=body)
    made.headers["Authorization"] = "Bearer " + answer.json()["access_token"]
    return made


async def authored(client: httpx.AsyncClient, **objects: bytes) -> tuple[str, str]:
    """Session and snapshot."""
    session = (await client.post("/sessions", content=b'{"runtimeType": "Python"}')).json().get("sessionId")
    for name, content in objects.items():
        headers = {"Content-Type": "application/octet-stream"}
        answer = await client.post(f"/sessions/{session}/workspace/{name}", content=content, headers=headers)
        assert answer.status_code < 400
    answer = await client.post(f"/sessions/{session}/snapshot", content=b'{"name": null}')
    return session, answer.json()["snapshotId"]


async def destroyed(client: httpx.AsyncClient, session: str, snapshot: str) -> None:
    assert (await client.delete(f"/sessions/{session}")).status_code < 400
    assert (await client.delete(f"/snapshots/{snapshot}")).status_code < 400


async def deployed(client: httpx.AsyncClient) -> dict[str, Any]:
    session, snapshot = await authored(client, model=b"\x80\x03dill of the model", local_obj=b"\x80\x03K2.")
    path = "/services/TransmissionService/v1.0.0"
    published = await client.post(path, content=PUBLISH % snapshot.encode())
    assert published.status_code == 201
    await destroyed(client, session, snapshot)
    found = (await client.get(path)).json()
    service: dict[str, Any] = found[0] if isinstance(found, list) else found
    return service


async def test_deploy_gives_what_the_client_makes_its_service_object_of(client: httpx.AsyncClient) -> None:
    service = await deployed(client)
    # Service.__new__, capabilities() and the docstring that it makes read these; lists are iterated, so are no null
    assert service["name"] == "TransmissionService"
    assert service["version"] == "v1.0.0"
    assert service["description"] == "cars model"
    assert service["operationId"] == "manualTransmission"
    assert [each["name"] for each in service["inputParameterDefinitions"]] == ["hp", "wt"]  # in this order
    assert service["outputParameterDefinitions"] == [{"name": "answer", "type": "numeric"}]
    assert service["outputFileNames"] == ["histogram.png"]
    assert service["versionPublishedBy"] == "admin"
    assert service["runtimeType"] == "Python"
    assert service["snapshotId"]
    assert service["creationTime"]


async def test_a_service_without_alias_description_and_io_is_readable_too(client: httpx.AsyncClient) -> None:
    body = (
        b'{"code": "x = 1", "inputParameterDefinitions": [], "outputParameterDefinitions": [], "outputFileNames": []}'
    )
    assert (await client.post("/services/Void", content=body)).json().startswith("/api/Void/")
    service = (await client.get("/services/Void")).json()[-1]
    assert service["operationId"] is None  # the client calls it `consume` then
    assert service["description"] == ""
    assert service["inputParameterDefinitions"] == service["outputParameterDefinitions"] == []


async def test_redeploy_keeps_the_model_though_its_snapshot_is_empty(
    world: WebWorld, client: httpx.AsyncClient
) -> None:
    before = await deployed(client)
    session, snapshot = await authored(client)
    answer = await client.patch("/services/TransmissionService/v1.0.0", content=PATCH % snapshot.encode())
    assert answer.status_code == 200
    answer.json()  # the client parses it
    await destroyed(client, session, snapshot)
    (after,) = (await client.get("/services/TransmissionService/v1.0.0")).json()
    assert after["description"] == "new text"
    unchanged = ("code", "initCode", "operationId", "inputParameterDefinitions", "outputFileNames", "creationTime")
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}
    sha256 = world.service("TransmissionService", "v1.0.0")["spec"]["code"]["bundle"]["sha256"]
    async with unpacked(world.parts.bundles, sha256) as files:
        assert files["objects/model.dill"].read_bytes() == b"\x80\x03dill of the model"


async def test_a_batch_is_started_polled_and_its_artifacts_listed(client: httpx.AsyncClient) -> None:
    await deployed(client)
    api = "/api/TransmissionService/v1.0.0/batch"
    started = await client.post(api + "?parallelCount=10", content=b'[{"n": 1}, {"n": 2}]')
    execution = started.json()["BatchExecutionId"]
    for _ in range(2000):
        response = (await client.get(f"{api}/{execution}?showPartialResult=true")).json()
        if response["state"] == "complete":
            break
    assert (response["completedItemCount"], response["totalItemCount"]) == (2, 2)
    first = response.get("batchExecutionResults", [])[0]
    assert first.get("errorMessage", "") == ""
    assert isinstance(first.get("outputParameters", {}), dict)
    assert (await client.get(f"{api}/{execution}/0/files")).json() == []
    assert (await client.get(api)).json() == [execution]
    assert (await client.delete(f"{api}/{execution}")).status_code == 200


async def test_delete_and_the_three_pool_functions(client: httpx.AsyncClient) -> None:
    await deployed(client)
    pool = "/services/TransmissionService/v1.0.0/pool"
    # create_or_update_service_pool, get_service_pool_status, delete_service_pool (1.0.1b7)
    answer = await client.post(pool, content=b'{"initialPoolSize": 5, "maxPoolSize": 10}')
    assert answer.status_code == 200
    status = (await client.get(pool)).json()
    assert status[0] == {"computeNodeEndpoint": "http://worker-1:12805/", "status": "Pending"}
    assert (await client.delete(pool)).status_code == 200
    assert {row["status"] for row in (await client.get(pool)).json()} == {"NotFound"}
    assert (await client.delete("/services/TransmissionService/v1.0.0")).status_code == 200
    gone = await client.get("/services/TransmissionService/v1.0.0")
    assert (gone.status_code, gone.reason_phrase) == (404, "Not Found")


async def test_a_realtime_model_is_refused_as_the_client_sends_it(client: httpx.AsyncClient) -> None:
    client.headers.pop("Content-Type")
    answer = await client.post("/realtime-services/M/v1", files={"model": b"blob..."}, data={"description": "x"})
    assert answer.status_code == 501
