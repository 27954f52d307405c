"""What leader election asks of the API server: of two who have read the same version of a Lease, one writes it."""

from __future__ import annotations

import asyncio

import pytest

from sessionpools.kube.lease import Election, Record
from sessionpools.kube.protocol import LEASES, AlreadyExists, Conflict, Json, NotFound
from support.kube_contract import Cluster, eventually

NOW = "2026-01-01T12:00:00.123456Z"


async def held(cluster: Cluster, name: str, record: Record) -> Json:
    body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": name}, "spec": record.spec()}
    return await cluster.api.create(LEASES, body, namespace=cluster.namespace)


def written(version: str, record: Record) -> Json:
    return {"metadata": {"resourceVersion": version}, "spec": record.spec()}


async def test_a_record_is_read_as_it_was_written(cluster: Cluster, name: str) -> None:
    record = Record("a", 6, NOW, NOW, 3)
    created = await held(cluster, name, record)
    assert Record.parse(created) == Record.parse(await cluster.get(name, LEASES)) == record
    with pytest.raises(AlreadyExists):
        await held(cluster, name, record)


async def test_of_two_writes_to_one_version_the_second_is_a_conflict(cluster: Cluster, name: str) -> None:
    version = (await held(cluster, name, Record("a", 6, NOW, NOW)))["metadata"]["resourceVersion"]
    renewed = await cluster.patch(name, written(version, Record("a", 6, NOW, "2026-01-01T12:00:01.000001Z")), LEASES)
    assert Record.parse(renewed).renewed == "2026-01-01T12:00:01.000001Z"
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.patch(name, written(version, Record("b", 6, NOW, NOW, 1)), LEASES)


async def test_a_released_record_has_an_empty_holder(cluster: Cluster, name: str) -> None:
    record = Record("a", 6, NOW, NOW, 2)
    version = (await held(cluster, name, record))["metadata"]["resourceVersion"]
    released = await cluster.patch(name, written(version, record.released(NOW)), LEASES)
    assert Record.parse(released) == Record("", 1, NOW, NOW, 2)


async def test_a_lease_that_was_deleted_cannot_be_renewed(cluster: Cluster, name: str) -> None:
    version = (await held(cluster, name, Record("a", 6, NOW, NOW)))["metadata"]["resourceVersion"]
    await cluster.delete(name, LEASES)
    with pytest.raises(NotFound):
        await cluster.patch(name, written(version, Record("a", 6, NOW, NOW)), LEASES)


async def test_an_election_hands_over_when_its_leader_ends(cluster: Cluster, name: str) -> None:
    def contender(identity: str) -> Election:
        return Election(
            cluster.api, cluster.namespace, name, identity,
            lease_seconds=30, renew_seconds=1, poll_seconds=0.1, keep_when_unreachable=True,
        )  # fmt: skip

    first, second = contender("a"), contender("b")

    async def leads(election: Election) -> None:
        async def holds() -> bool:
            return election.leading

        await eventually(holds, f"{election.identity} to lead", 20)

    leader = asyncio.create_task(first.run(lambda _: None))
    await leads(first)
    other = asyncio.create_task(second.run(lambda _: None))
    try:
        leader.cancel()
        await leads(second)
        assert Record.parse(await cluster.get(name, LEASES)).transitions == 1
    finally:
        other.cancel()
        await asyncio.gather(leader, other, return_exceptions=True)
