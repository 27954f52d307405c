"""What the signing keys ask of the API server: of several who make or change a Secret at once, one does it."""

from __future__ import annotations

import asyncio
import base64

import pytest

from sessionpools.kube.protocol import SECRETS, AlreadyExists, Conflict, Json
from support.kube_contract import Cluster


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def made(cluster: Cluster, name: str, **data: str) -> Json:
    body: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
    return await cluster.api.create(SECRETS, body, namespace=cluster.namespace)


async def test_a_secret_is_read_as_it_was_written(cluster: Cluster, name: str) -> None:
    await made(cluster, name, key=encoded("value"))
    read = await cluster.get(name, SECRETS)
    assert read["data"] == {"key": encoded("value")}
    assert read["type"] == "Opaque"


async def test_of_several_who_create_one_secret_at_once_one_does(cluster: Cluster, name: str) -> None:
    results = await asyncio.gather(
        *(made(cluster, name, key=encoded(str(number))) for number in range(5)), return_exceptions=True
    )
    done = [each for each in results if isinstance(each, dict)]
    assert len(done) == 1
    assert all(isinstance(each, AlreadyExists) for each in results if each is not done[0])
    assert (await cluster.get(name, SECRETS))["data"] == done[0]["data"]


async def test_of_several_who_change_what_they_have_read_one_does(cluster: Cluster, name: str) -> None:
    version = (await made(cluster, name))["metadata"]["resourceVersion"]
    patches = [
        {"metadata": {"resourceVersion": version}, "data": {"key": encoded(str(number))}} for number in range(5)
    ]  # fmt: skip
    results = await asyncio.gather(*(cluster.patch(name, each, SECRETS) for each in patches), return_exceptions=True)
    done = [each for each in results if isinstance(each, dict)]
    assert len(done) == 1
    assert all(isinstance(each, Conflict) for each in results if each is not done[0])


async def test_null_takes_an_entry_or_all_of_them_away(cluster: Cluster, name: str) -> None:
    await made(cluster, name, one=encoded("1"), other=encoded("2"))
    assert (await cluster.patch(name, {"data": {"one": None}}, SECRETS))["data"] == {"other": encoded("2")}
    assert not (await cluster.patch(name, {"data": None}, SECRETS)).get("data")


async def test_an_annotation_is_a_change_that_a_write_conflicts_with(cluster: Cluster, name: str) -> None:
    version = (await made(cluster, name))["metadata"]["resourceVersion"]
    await cluster.patch(name, {"metadata": {"annotations": {"sessionpools.dev/rotate-at": "now"}}}, SECRETS)
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.patch(name, {"metadata": {"resourceVersion": version}, "data": {"key": encoded("x")}}, SECRETS)
