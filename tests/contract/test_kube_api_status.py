"""Status and generation, proved of the in-process API server and of a real one by the same tests."""

from __future__ import annotations

import uuid

import pytest

from sessionpools.kube.protocol import (
    Json,
    NotFound,
)
from support.kube_contract import Cluster


def condition(kind: str, status: str = "True") -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": "Test",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


async def test_a_status_sent_with_a_create_is_dropped(cluster: Cluster, name: str) -> None:
    """What stands there instead is the CRD's default: nobody has looked at the object."""
    assert (await cluster.pool(name))["status"] == {"observedGeneration": -1}


async def test_generation_counts_changes_of_the_spec_only(cluster: Cluster, name: str) -> None:
    generations = [(await cluster.pool(name))["metadata"]["generation"]]
    await cluster.apply_status(name, {"state": "Pending"}, "contract")
    await cluster.patch(name, {"metadata": {"annotations": {"a": "b"}}}, cluster.pools)
    await cluster.patch(name, {"status": {"state": "Success"}}, cluster.pools)  # ignored
    generations.append((await cluster.get(name, cluster.pools))["metadata"]["generation"])
    patched = await cluster.patch(name, {"spec": {"maxPoolSize": 3}}, cluster.pools)
    generations.append(patched["metadata"]["generation"])
    assert generations == [1, 1, 2]
    assert patched["status"]["state"] == "Pending"


async def test_applying_the_same_status_again_is_no_write(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    status = {"state": "Pending", "conditions": [condition("Ready", "False")]}
    first = await cluster.apply_status(name, status, "contract")
    second = await cluster.apply_status(name, status, "contract")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_what_a_manager_no_longer_applies_is_taken_away(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending", "observedGeneration": 1}, "contract")
    applied = await cluster.apply_status(name, {"state": "Success"}, "contract")
    assert applied["status"] == {"state": "Success"}


async def test_managers_share_a_status_and_its_conditions(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending", "conditions": [condition("Ready")]}, "one")
    await cluster.apply_status(name, {"conditions": [condition("Stalled", "False")]}, "two")
    applied = await cluster.apply_status(name, {"state": "Success", "conditions": [condition("Ready", "False")]}, "one")
    states = {each["type"]: each["status"] for each in applied["status"]["conditions"]}
    assert states == {"Ready": "False", "Stalled": "False"}
    managers = {each["manager"] for each in applied["metadata"]["managedFields"] if each.get("subresource") == "status"}
    assert managers == {"one", "two"}
    applied = await cluster.apply_status(name, {}, "one")
    assert [each["type"] for each in applied["status"]["conditions"]] == ["Stalled"]
    assert "state" not in applied["status"]


async def test_force_takes_a_field_from_another_manager(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending"}, "one")
    await cluster.apply_status(name, {"state": "Success"}, "two")
    applied = await cluster.apply_status(name, {}, "one")
    assert applied["status"]["state"] == "Success"


async def test_lists_in_a_status_are_replaced_whole(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    rows = [{"name": node, "state": "Pending", "desired": 1, "ready": 0} for node in ("a", "b")]
    await cluster.apply_status(name, {"nodes": rows}, "contract")
    applied = await cluster.apply_status(name, {"nodes": rows[1:]}, "contract")
    assert [row["name"] for row in applied["status"]["nodes"]] == ["b"]


async def test_no_precondition_keeps_a_status_from_an_object_made_anew(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    body = {"metadata": {"name": name, "uid": str(uuid.uuid4())}, "status": {"state": "Pending"}}
    applied = await cluster.api.apply_status(
        cluster.pools, name, body, namespace=cluster.namespace, field_manager="contract"
    )
    assert applied["status"]["state"] == "Pending"  # so whoever writes it must look again


async def test_the_status_of_an_absent_object_is_not_found(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound):
        await cluster.apply_status(name, {"state": "Pending"}, "contract")
