"""Bundles that no WebService names are removed, by one replica at a time, and never on a guess."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sessionpools.web.store import collect, content
from sessionpools.web.store.bundles import Bundle, Bundles, key_of
from sessionpools.web.store.collect import GRACE, Collector, unused
from sessionpools.web.store.errors import StoreUnavailable
from sessionpools.web.store.lease import LEASE_SECONDS, Lease
from sessionpools.web.store.objects import Entry, ObjectStore

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
OLD = NOW - GRACE - timedelta(seconds=1)
ONE, TWO = "1" * 64, "2" * 64


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# --- the decision -----------------------------------------------------------------------------------------------------


def entry(digest: str, modified: datetime) -> Entry:
    return Entry(key_of(digest), 1, modified)


def test_only_what_nobody_names_and_is_old_is_unused() -> None:
    bundles = [entry(ONE, OLD), entry(TWO, OLD), entry("3" * 64, NOW - GRACE), entry("4" * 64, NOW + GRACE)]
    assert unused(bundles, {TWO}, NOW) == [key_of(ONE)]


def test_what_is_no_bundle_is_nobodys_business() -> None:
    assert unused([Entry("bundles/readme.txt", 1, OLD), Entry("bundles/x.tar.gz", 1, OLD)], (), NOW) == []


# --- the doing --------------------------------------------------------------------------------------------------------


async def published(store: ObjectStore, data: bytes, age: float) -> str:
    """A bundle that was stored so many seconds ago."""
    bundle = await Bundles(store).put({"a": data})
    path = Path(store.url.removeprefix("file://")) / key_of(bundle.sha256)
    os.utime(path, (time.time() - age,) * 2)
    return bundle.sha256


async def kept(store: ObjectStore) -> set[str]:
    return {entry.key async for entry in store.list("bundles")}


async def test_bundles_that_no_service_names_are_removed_when_they_are_old(volume: ObjectStore) -> None:
    used, unnamed = await published(volume, b"1", 7200), await published(volume, b"2", 7200)
    young = await published(volume, b"3", 60)

    async def referenced() -> Collection[str]:
        return {used}

    assert await Collector(volume, "web-1", referenced, {}).turn()
    assert await kept(volume) == {key_of(used), key_of(young)}
    assert unnamed not in await kept(volume)


async def test_nothing_is_removed_while_the_cluster_can_not_be_asked(volume: ObjectStore) -> None:
    await published(volume, b"1", 7200)
    done = []

    async def referenced() -> Collection[str]:
        raise ConnectionError("no API server")

    async def chore() -> None:
        done.append(1)

    assert await Collector(volume, "web-1", referenced, {"authoring": chore}).turn()
    assert len(await kept(volume)) == 1
    assert done == [1]  # what does not depend on it is done all the same


async def test_one_that_is_published_again_while_the_cluster_is_asked_is_kept(volume: ObjectStore) -> None:
    await published(volume, b"1", 7200)

    async def referenced() -> Collection[str]:
        await Bundles(volume).put({"a": b"1"})
        return ()

    assert await Collector(volume, "web-1", referenced, {}).turn()
    assert len(await kept(volume)) == 1


@pytest.mark.parametrize("moment", ["before it is removed", "after it is removed"])
async def test_one_that_is_published_again_in_the_moment_of_its_removal_is_there_afterwards(
    store: ObjectStore, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica that collects has found it old; another one publishes it; then it is removed."""
    monkeypatch.setattr(collect, "GRACE", timedelta(seconds=0))
    monkeypatch.setattr(content, "FRESH", timedelta(seconds=0))
    digest = (await Bundles(store).put({"a": b"1"})).sha256
    publishing: list[asyncio.Task[Bundle]] = []

    async def publish() -> None:
        wrote = asyncio.Event()

        class Watched(ObjectStore):
            async def put(self, key: str, data: bytes | Path) -> None:
                await super().put(key, data)
                wrote.set()

        other = Watched(store.url, store._remote, store._volume)
        publishing.append(asyncio.create_task(Bundles(other).put({"a": b"1"})))
        await wrote.wait()

    class Collecting(ObjectStore):
        async def delete(self, key: str) -> None:
            of_it = key == key_of(digest)
            if of_it and moment == "before it is removed":
                await publish()
            await super().delete(key)
            if of_it and moment == "after it is removed":
                await publish()

    async def referenced() -> Collection[str]:
        return ()

    collecting = Collecting(store.url, store._remote, store._volume)
    assert await Collector(collecting, "web-1", referenced, {}).turn()
    assert (await publishing[0]).sha256 == digest
    assert await kept(store) == {key_of(digest)}
    assert [entry async for entry in store.list("doomed")] == []


async def test_the_word_of_a_replica_that_died_while_it_removed_holds_up_nobody_for_long(
    volume: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await published(volume, b"1", 7200)
    await volume.put(f"doomed/{key_of(digest)}", b"")
    monkeypatch.setattr(content, "_PAUSE_SECONDS", 0.001)
    with pytest.raises(StoreUnavailable, match=f"{key_of(digest)} is being removed as unused just now: try again"):
        await Bundles(volume).put({"a": b"1"})
    word = Path(volume.url.removeprefix("file://")) / "doomed" / key_of(digest)
    os.utime(word, (time.time() - content.DOOMED_SECONDS - 1,) * 2)
    assert (await Bundles(volume).put({"a": b"1"})).sha256 == digest


async def test_one_replica_collects_at_a_time(volume: ObjectStore) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def referenced() -> Collection[str]:
        return ()

    async def slow() -> None:
        entered.set()
        await leave.wait()

    first = asyncio.create_task(Collector(volume, "web-1", referenced, {"slow": slow}).turn())
    await entered.wait()
    second = Collector(volume, "web-2", referenced, {})
    assert not await second.turn()
    leave.set()
    assert await first
    assert await second.turn()  # given back, and so taken at once


# --- the lease --------------------------------------------------------------------------------------------------------


async def test_a_lease_is_one_replicas_until_it_gives_it_back(store: ObjectStore) -> None:
    one, two = Lease(store, "x", "web-1"), Lease(store, "x", "web-2")
    assert await one.acquire()
    assert await one.acquire()
    assert not await two.acquire()
    await two.release()
    assert not await two.acquire()
    await one.release()
    assert await two.acquire()
    assert not await one.acquire()


async def test_a_lease_that_nobody_renews_is_taken_after_its_time_and_no_sooner(volume: ObjectStore) -> None:
    clock = Clock()
    gone, other = Lease(volume, "x", "web-1", clock), Lease(volume, "x", "web-2", clock)
    assert await gone.acquire()
    assert not await other.acquire()
    clock.now += LEASE_SECONDS - 1
    assert not await other.acquire()
    assert await gone.acquire()
    clock.now += LEASE_SECONDS - 1
    assert not await other.acquire()
    clock.now += LEASE_SECONDS + 1
    assert await other.acquire()
    assert not await gone.acquire()


async def test_a_process_that_begins_anew_under_its_name_does_not_hold_what_it_held_before(volume: ObjectStore) -> None:
    assert await Lease(volume, "x", "web-1").acquire()
    assert not await Lease(volume, "x", "web-1").acquire()


async def test_of_many_that_want_a_lease_at_once_one_gets_it(store: ObjectStore) -> None:
    leases = [Lease(store, "x", f"web-{number}") for number in range(6)]
    assert sum(await asyncio.gather(*(lease.acquire() for lease in leases))) == 1
