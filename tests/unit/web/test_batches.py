"""/api/N/V/batch, over a gateway on loopback that counts the calls it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from sessionpools.web.auth.identity import Role
from support.batch_gateway import BatchGateway
from support.web import SCRIPT, WebWorld, error_of

BATCH = "/api/Score/v1/batch"


@pytest.fixture
async def gateway() -> AsyncIterator[BatchGateway]:
    async with BatchGateway() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, gateway: BatchGateway) -> AsyncIterator[WebWorld]:
    async with WebWorld(tmp_path, gateway_url=gateway.url) as made:
        await made.client("ada", Role.CONTRIBUTOR).post("/services/Score/v1", json=SCRIPT)
        yield made


async def started(client: httpx.AsyncClient, items: list[Any], parallel: int | None = None) -> str:
    answer = await client.post(BATCH, json=items, params={} if parallel is None else {"parallelCount": parallel})
    assert answer.status_code == 202
    body = answer.json()
    # the swagger's name, and the one that Machine Learning Server's own client reads
    assert body == {"batchExecutionId": body["batchExecutionId"], "BatchExecutionId": body["batchExecutionId"]}
    return str(body["batchExecutionId"])


async def complete(client: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            body: dict[str, Any] = (await client.get(f"{BATCH}/{batch_id}")).json()
            if body["state"] == "complete":
                return body
            await asyncio.sleep(0.02)


async def test_a_batch_is_started_listed_polled_and_its_calls_are_made_once(
    world: WebWorld, gateway: BatchGateway
) -> None:
    reader = world.client("rita", Role.READER)
    batch_id = await started(reader, [{"n": number} for number in range(20)], 4)
    assert (await reader.get(BATCH)).json() == [batch_id]
    body = await complete(reader, batch_id)
    assert (body["completedItemCount"], body["totalItemCount"]) == (20, 20)
    results = body["batchExecutionResults"]
    assert [result["index"] for result in results] == list(range(20))
    assert all(result["success"] for result in results)
    assert set(gateway.runs.values()) == {1}
    assert gateway.most <= 4
    assert gateway.paths == {"/namespaces/demo/api/Score/v1"} or gateway.paths == {"/api/Score/v1"}


async def test_calls_carry_a_token_of_whoever_started_the_batch_that_may_only_call(
    world: WebWorld, gateway: BatchGateway
) -> None:
    admin = world.client()
    await complete(admin, await started(admin, [{"n": 1}, {"n": 2}]))
    for headers in gateway.headers:
        claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), options={"verify_signature": False})
        assert (claims["sub"], claims["role"], claims["aud"]) == ("admin", "Reader", "session-pools")


@pytest.mark.parametrize("spelling", ["showPartialResults", "showPartialResult"])
async def test_partial_results_are_given_when_asked_for_in_either_spelling(
    world: WebWorld, gateway: BatchGateway, spelling: str
) -> None:
    reader = world.client("rita", Role.READER)
    batch_id = await started(reader, [{"n": 1}, {"n": 2, "hold": True}], 2)
    async with asyncio.timeout(20):
        while not (await reader.get(f"{BATCH}/{batch_id}", params={spelling: "true"})).json()["completedItemCount"]:
            await asyncio.sleep(0.02)
    body = (await reader.get(f"{BATCH}/{batch_id}", params={spelling: "true"})).json()
    assert (body["state"], [result["index"] for result in body["batchExecutionResults"]]) == ("inProgress", [0])
    body = (await reader.get(f"{BATCH}/{batch_id}", params={spelling: "false"})).json()
    assert body["batchExecutionResults"] == []
    gateway.release()
    assert len((await complete(reader, batch_id))["batchExecutionResults"]) == 2


async def test_a_batch_is_its_owners_and_an_owners(world: WebWorld) -> None:
    rita, eve, admin = world.client("rita", Role.READER), world.client("eve", Role.CONTRIBUTOR), world.client()
    batch_id = await started(rita, [{"n": 1}])
    for path in (f"{BATCH}/{batch_id}", f"{BATCH}/{batch_id}/0/files", f"{BATCH}/{batch_id}/0/files/a"):
        answer = await eve.get(path)
        assert answer.status_code == 404
        error_of(answer)
    assert (await eve.delete(f"{BATCH}/{batch_id}")).status_code == 404
    assert (await eve.get(BATCH)).json() == []
    assert (await admin.get(BATCH)).json() == [batch_id]
    assert (await admin.get(f"{BATCH}/{batch_id}")).status_code == 200
    assert (await rita.get(f"/api/Other/v1/batch/{batch_id}")).status_code == 404


async def test_a_cancelled_batch_is_gone_and_its_calls_that_had_not_begun_are_not_made(
    world: WebWorld, gateway: BatchGateway
) -> None:
    reader = world.client("rita", Role.READER)
    batch_id = await started(reader, [{"n": number, "hold": True} for number in range(5)], 1)
    async with asyncio.timeout(20):
        while not gateway.held:
            await asyncio.sleep(0.02)
    answer = await reader.delete(f"{BATCH}/{batch_id}")
    assert (answer.status_code, answer.json()) == (200, [batch_id])
    assert (await reader.get(f"{BATCH}/{batch_id}")).status_code == 404
    gateway.release()
    assert gateway.held == 1


@pytest.mark.parametrize(
    ("body", "query", "said"),
    [
        ([], "", "body"),
        ([1], "", "body.0"),
        ({"x": 1}, "", "body"),
        ([{"x": 1}], "?parallelCount=0", "query.parallelCount"),
        ([{"x": 1}], "?parallelCount=many", "query.parallelCount"),
        ([{"x": 2**70}], "", "item 0"),
    ],
)
async def test_what_is_wrong_with_a_batch_is_named(world: WebWorld, body: Any, query: str, said: str) -> None:
    answer = await world.client().post(f"{BATCH}{query}", json=body)
    assert answer.status_code == 400
    assert said in error_of(answer)


async def test_a_batch_of_no_service_is_not_found(world: WebWorld) -> None:
    answer = await world.client().post("/api/Score/v2/batch", json=[{"x": 1}])
    assert answer.status_code == 404
    assert "'Score' version 'v2'" in error_of(answer)


@pytest.mark.parametrize("batch_id", ["x", "00000000-0000-4000-8000-000000000000"])
async def test_a_batch_that_is_not_there_is_not_found(world: WebWorld, batch_id: str) -> None:
    for path in (f"{BATCH}/{batch_id}", f"{BATCH}/{batch_id}/0/files", f"{BATCH}/{batch_id}/0/files/a/b"):
        answer = await world.client().get(path)
        assert answer.status_code == 404
        error_of(answer)
    assert (await world.client().delete(f"{BATCH}/{batch_id}")).status_code == 404
