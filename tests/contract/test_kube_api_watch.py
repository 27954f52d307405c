"""Watches, proved of the in-process API server and of a real one by the same tests."""

from __future__ import annotations

import asyncio

import pytest

from sessionpools.kube.protocol import CONFIG_MAPS, Gone
from support.kube_contract import Cluster


async def test_a_watch_sees_what_happened_after_its_version_in_order(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    await cluster.patch(name, {"data": {"key": "other"}})
    await cluster.delete(name)
    events = await cluster.events(version, 3, label_selector=f"test={name}")
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event.resource_version) for event in events]
    assert versions == sorted(set(versions))
    assert events[2].object["data"] == {"key": "other"}


async def test_a_watch_sees_what_happens_while_it_is_open(cluster: Cluster, name: str) -> None:
    watching = asyncio.create_task(cluster.events(await cluster.version(), 1, label_selector=f"test={name}"))
    await cluster.create(name, {"test": name})
    assert [event.type for event in await watching] == ["ADDED"]


async def test_a_watch_continues_after_the_version_of_an_event(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    first = (await cluster.events(version, 1, label_selector=f"test={name}"))[0]
    await cluster.patch(name, {"data": {"key": "other"}})
    second = (await cluster.events(first.resource_version, 1, label_selector=f"test={name}"))[0]
    assert (second.type, second.object["data"]) == ("MODIFIED", {"key": "other"})


async def test_an_object_that_leaves_the_selection_is_deleted_for_the_watch(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    await cluster.patch(name, {"metadata": {"labels": {"test": "other"}}})
    await cluster.patch(name, {"metadata": {"labels": {"test": name}}})
    events = await cluster.events(version, 3, label_selector=f"test={name}")
    assert [event.type for event in events] == ["ADDED", "DELETED", "ADDED"]


async def test_an_object_of_half_a_mebibyte_comes_through_a_watch(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    body = cluster.config_map(name, {"test": name}) | {"data": {"key": "x" * 2**19}}
    await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace)
    events = await cluster.events(version, 1, label_selector=f"test={name}")
    assert len(events[0].object["data"]["key"]) == 2**19


async def test_bookmarks_move_a_watch_on_that_sees_no_events(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name)
    for _ in range(5):  # towards a watch's end the server sends one if it can: none is promised
        async with asyncio.timeout(20):
            watch = cluster.watch(version, label_selector=f"test={name}", timeout_seconds=6)
            events = [event async for event in watch]
        assert {event.type for event in events} <= {"BOOKMARK"}
        if events:
            break
    assert int(events[-1].resource_version) > int(version)
    assert not events[-1].object["metadata"].get("name")


async def test_a_watch_from_too_long_ago_is_gone(cluster: Cluster) -> None:
    with pytest.raises(Gone):  # at version 1 there was no CRD yet
        await cluster.events("1", 1, cluster.pools)
