"""Authoring sessions, workspaces and snapshots: kept for their owner, within limits, until they expire."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sessionpools.web.store import authoring
from sessionpools.web.store.authoring import BLOB_GRACE_SECONDS, Authoring
from sessionpools.web.store.documents import (
    SESSION_SECONDS,
    SNAPSHOT_SECONDS,
    Blob,
    Session,
    Snapshot,
    session_expired,
    snapshot_expired,
    with_content,
    without_content,
)
from sessionpools.web.store.errors import NotFound, Refused, TooLarge, Unreadable
from sessionpools.web.store.objects import Entry, ObjectStore

EMPTY = Session("s", "ann", "Python", "", created=0.0, used=0.0)


class Clock:
    """The time, some of it yet to come."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


async def sent(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def blobs(store: ObjectStore) -> list[str]:
    return [entry.key async for entry in store.list("blobs")]


# --- decisions --------------------------------------------------------------------------------------------------------


def test_an_object_takes_the_place_of_one_of_its_name() -> None:
    once = with_content(EMPTY, "objects", "model", Blob("a", 1))
    twice = with_content(once, "objects", "model", Blob("b", 2))
    assert twice.objects == {"model": Blob("b", 2)}
    assert with_content(once, "files", "model", Blob("c", 3)).size == 4


def test_one_object_too_many_is_refused_and_one_in_anothers_place_is_not() -> None:
    full = replace(
        EMPTY, objects={f"o{n}": Blob("a", 1) for n in range(600)}, files={f"f{n}": Blob("a", 1) for n in range(400)}
    )
    with pytest.raises(TooLarge, match="object 'x': session s has 1000 objects and files"):
        with_content(full, "objects", "x", Blob("b", 1))
    assert with_content(full, "objects", "o1", Blob("b", 1)).objects["o1"].sha256 == "b"


def test_a_session_that_would_be_too_large_is_refused() -> None:
    half = with_content(EMPTY, "objects", "a", Blob("a", 1 << 30))
    full = with_content(half, "files", "b", Blob("b", 1 << 30))
    with pytest.raises(TooLarge, match="file 'c': session s would hold more than 2048 MiB"):
        with_content(full, "files", "c", Blob("c", 1))


def test_what_is_not_there_can_not_be_removed() -> None:
    with pytest.raises(NotFound, match="object 'model': session s has none of this name"):
        without_content(EMPTY, "objects", "model")


def test_sessions_expire_by_their_use_and_snapshots_by_their_age_unless_a_service_has_them() -> None:
    assert not session_expired(replace(EMPTY, used=100.0), 100.0 + SESSION_SECONDS)
    assert session_expired(replace(EMPTY, used=100.0), 101.0 + SESSION_SECONDS)
    snapshot = Snapshot("n", "ann", "Python", "", created=100.0)
    assert not snapshot_expired(snapshot, (), 100.0 + SNAPSHOT_SECONDS)
    assert snapshot_expired(snapshot, (), 101.0 + SNAPSHOT_SECONDS)
    assert not snapshot_expired(snapshot, {"n"}, 101.0 + SNAPSHOT_SECONDS)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_what_a_client_does_to_publish(store: ObjectStore) -> None:
    keeper = Authoring(store)
    session = await keeper.create_session("ann", "Python")
    await keeper.put_object(session.id, "ann", "model", sent(b"dill ", b"bytes"))
    await keeper.put_file(session.id, "ann", "data/table.csv", sent(b"a,b\n"))
    assert await whole(keeper.object(session.id, "ann", "model")) == b"dill bytes"
    assert await whole(keeper.file(session.id, "ann", "data/table.csv")) == b"a,b\n"
    snapshot = await keeper.create_snapshot(session.id, "ann", "mine")
    await keeper.delete_session(session.id, "ann")
    assert await keeper.sessions("ann") == []
    async with keeper.checkout(await keeper.snapshot(snapshot.id, "ann")) as (objects, files):
        assert {name: path.read_bytes() for name, path in objects.items()} == {"model": b"dill bytes"}
        assert {name: path.read_bytes() for name, path in files.items()} == {"data/table.csv": b"a,b\n"}
        local = objects["model"]
    assert not local.exists()
    await keeper.delete_snapshot(snapshot.id, "ann")
    assert await keeper.snapshots("ann") == []


async def test_a_snapshot_stays_as_it_was_and_can_be_loaded_again(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "Python")
    await keeper.put_object(session.id, "ann", "x", sent(b"1"))
    snapshot = await keeper.create_snapshot(session.id, "ann")
    await keeper.put_object(session.id, "ann", "x", sent(b"2"))
    await keeper.put_object(session.id, "ann", "y", sent(b"3"))
    await keeper.delete_object(session.id, "ann", "y")
    assert await keeper.snapshot(snapshot.id, "ann") == snapshot
    restored = await keeper.load_snapshot(session.id, "ann", snapshot.id)
    assert restored.objects == snapshot.objects
    assert await whole(keeper.object(session.id, "ann", "x")) == b"1"


async def test_equal_content_is_stored_once(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    for owner in ("ann", "bob"):
        session = await keeper.create_session(owner, "Python")
        await keeper.put_object(session.id, owner, "x", sent(b"the same"))
        await keeper.put_file(session.id, owner, "x.bin", sent(b"the ", b"same"))
    assert len(await blobs(volume)) == 1


async def test_objects_that_are_put_at_once_are_all_there(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "Python")
    await asyncio.gather(*(keeper.put_object(session.id, "ann", f"x{n}", sent(b"%d" % n)) for n in range(8)))
    assert sorted((await keeper.session(session.id, "ann")).objects) == [f"x{n}" for n in range(8)]


async def test_a_large_object_comes_back_as_it_was(store: ObjectStore) -> None:
    keeper = Authoring(store)
    session = await keeper.create_session("ann", "Python")
    pieces = [os.urandom(3 << 20) for _ in range(4)]
    await keeper.put_object(session.id, "ann", "x", sent(*pieces))
    assert await whole(keeper.object(session.id, "ann", "x")) == b"".join(pieces)


async def test_an_object_that_is_too_large_is_refused_before_it_is_all_here(
    volume: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authoring, "MAX_OBJECT_BYTES", 2 << 20)
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "Python")
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(1 << 20)

    with pytest.raises(TooLarge, match="object 'x': is larger than 2 MiB"):
        await keeper.put_object(session.id, "ann", "x", endless())
    assert asked == 3
    assert await blobs(volume) == []


async def test_names_that_services_can_not_have_are_refused(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "Python")
    with pytest.raises(Refused, match="must be a Python identifier"):
        await keeper.put_object(session.id, "ann", "a-b", sent(b""))
    with pytest.raises(Refused, match="must be a relative path"):
        await keeper.put_file(session.id, "ann", "../x", sent(b""))
    with pytest.raises(Refused, match="runtimeType 'R': must be Python"):
        await keeper.create_session("ann", "R")


async def test_what_is_anothers_is_not_there_but_for_who_may_see_everybodys(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "python")
    await keeper.put_object(session.id, None, "x", sent(b"1"))
    snapshot = await keeper.create_snapshot(session.id, None)
    assert snapshot.owner == "ann"
    for attempt in (
        keeper.session(session.id, "bob"),
        keeper.put_object(session.id, "bob", "x", sent(b"")),
        anext(keeper.object(session.id, "bob", "x")),
        keeper.create_snapshot(session.id, "bob"),
        keeper.delete_session(session.id, "bob"),
        keeper.snapshot(snapshot.id, "bob"),
        keeper.delete_snapshot(snapshot.id, "bob"),
    ):
        with pytest.raises(NotFound, match="there is none, it is another's, or it has expired"):
            await attempt
    assert await keeper.sessions("bob") == []
    assert [found.id for found in await keeper.sessions(None)] == [session.id]
    assert [found.id for found in await keeper.snapshots("ann")] == [snapshot.id]


@pytest.mark.parametrize("wrong", ["", "x", "../sessions", "{12345678-1234-1234-1234-123456789012}", "A" * 36])
async def test_an_id_that_is_none_is_not_there(wrong: str, volume: ObjectStore) -> None:
    with pytest.raises(NotFound, match="session"):
        await Authoring(volume).session(wrong, None)


# --- expiry -----------------------------------------------------------------------------------------------------------


def age(store: ObjectStore, seconds: float) -> None:
    """Make all content of a volume as old."""
    for path in (Path(store.url.removeprefix("file://")) / "blobs").iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


async def test_a_session_in_use_stays_and_one_that_is_left_goes_with_its_content(volume: ObjectStore) -> None:
    clock = Clock()
    keeper = Authoring(volume, clock)
    used, left = [await keeper.create_session("ann", "Python") for _ in range(2)]
    await keeper.put_object(used.id, "ann", "x", sent(b"used"))
    await keeper.put_object(left.id, "ann", "x", sent(b"left"))
    clock.ahead = 2000.0
    await keeper.session(used.id, "ann")
    clock.ahead = 4000.0
    await keeper.expire()
    assert [session.id for session in await keeper.sessions("ann")] == [used.id]
    assert await whole(keeper.object(used.id, "ann", "x")) == b"used"
    clock.ahead = 0.0
    age(volume, 4000.0)
    await keeper.expire()
    assert await whole(keeper.object(used.id, "ann", "x")) == b"used"
    assert len(await blobs(volume)) == 1


async def test_a_snapshot_keeps_its_content_until_it_expires_itself(volume: ObjectStore) -> None:
    clock = Clock()
    keeper = Authoring(volume, clock)
    session = await keeper.create_session("ann", "Python")
    await keeper.put_object(session.id, "ann", "x", sent(b"1"))
    snapshot = await keeper.create_snapshot(session.id, "ann")
    clock.ahead = SNAPSHOT_SECONDS - 60
    await keeper.expire()
    assert await keeper.sessions(None) == []
    async with keeper.checkout(await keeper.snapshot(snapshot.id, "ann")) as (objects, _):
        assert objects["x"].read_bytes() == b"1"
    clock.ahead = SNAPSHOT_SECONDS + 60
    await keeper.expire(used={snapshot.id})
    assert [found.id for found in await keeper.snapshots(None)] == [snapshot.id]
    await keeper.expire()
    assert await keeper.snapshots(None) == []
    assert await blobs(volume) == []


async def test_content_that_was_just_put_is_not_collected_before_it_is_named(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    await volume.put("blobs/" + "0" * 64, b"on its way")
    await keeper.expire()
    assert len(await blobs(volume)) == 1
    age(volume, 4000.0)
    await keeper.expire()
    assert await blobs(volume) == []


async def test_content_that_is_put_again_is_young_again(volume: ObjectStore) -> None:
    keeper = Authoring(volume)
    session = await keeper.create_session("ann", "Python")
    await keeper.put_object(session.id, "ann", "x", sent(b"1"))
    await keeper.delete_object(session.id, "ann", "x")
    age(volume, 3500.0)
    await keeper.put_object(session.id, "ann", "y", sent(b"1"))
    await keeper.delete_object(session.id, "ann", "y")
    await keeper.expire()
    assert len(await blobs(volume)) == 1


async def test_a_document_that_can_not_be_read_hides_no_other_and_keeps_all_content(
    volume: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keeper = Authoring(volume, clock)
    session = (await keeper.create_session("ann")).id
    await keeper.put_object(session, "ann", "m", sent(b"kept"))
    snapshot = await keeper.create_snapshot(session, "ann")
    broken = f"authoring/snapshots/{uuid.uuid4()}"
    for damage in (b"{", b"[]", b'{"id": "x", "objects": {}, "files": {}}', b'{"objects": {"a": 1}, "files": {}}'):
        await volume.put(broken, damage)
        for _ in range(2):
            assert [each.id for each in await keeper.snapshots(None)] == [snapshot.id]
    with pytest.raises(Unreadable, match=f"its document can't be read .* delete {broken} in store file:"):
        await keeper.snapshot(broken.rpartition("/")[2], "ann")
    assert [record.object for record in caplog.records if record.levelname == "ERROR"] == [broken]  # type: ignore[attr-defined]

    await keeper.delete_session(session, "ann")
    await keeper.delete_snapshot(snapshot.id, "ann")
    clock.ahead = 2 * SNAPSHOT_SECONDS
    await keeper.expire()
    assert len([entry async for entry in volume.list("blobs")]) == 1  # it may be what that document names
    await volume.delete(broken)
    await keeper.expire()
    assert [entry async for entry in volume.list("blobs")] == []


async def test_content_that_goes_from_a_snapshot_into_a_session_while_garbage_is_looked_for_stays(
    volume: ObjectStore,
) -> None:
    clock = Clock()
    keeper = Authoring(volume, clock)
    first, second = [(await keeper.create_session("ann")).id for _ in range(2)]
    await keeper.put_object(first, "ann", "m", sent(b"model"))
    snapshot = (await keeper.create_snapshot(first, "ann")).id
    await keeper.delete_session(first, "ann")
    clock.ahead = 5000.0

    class Meanwhile(ObjectStore):
        """Loads the snapshot and deletes it, when content and sessions were listed and snapshots are about to be."""

        listed: tuple[str, ...] = ()

        async def list(self, prefix: str) -> AsyncIterator[Entry]:
            self.listed += (prefix,)
            if self.listed[-3:] == ("blobs", "authoring/sessions", "authoring/snapshots"):
                await keeper.load_snapshot(second, "ann", snapshot)
                await keeper.delete_snapshot(snapshot, "ann")
            async for entry in super().list(prefix):
                yield entry

    collecting = Meanwhile(volume.url, volume._remote, volume._volume)
    assert await keeper.session(second, "ann")  # used, so that it has not expired
    await Authoring(collecting, clock).expire()
    assert await whole(keeper.object(second, "ann", "m")) == b"model"


async def test_a_snapshot_that_is_taken_in_the_moment_in_which_its_session_expires_is_whole(
    volume: ObjectStore,
) -> None:
    clock = Clock()
    keeper = Authoring(volume, clock)
    session = (await keeper.create_session("ann")).id
    await keeper.put_object(session, "ann", "m", sent(b"model"))
    clock.ahead = SESSION_SECONDS + BLOB_GRACE_SECONDS

    class Meanwhile(ObjectStore):
        async def delete(self, key: str) -> None:
            if key == f"authoring/sessions/{session}":
                await keeper.create_snapshot(session, "ann")
            await super().delete(key)

    await Authoring(Meanwhile(volume.url, volume._remote, volume._volume), clock).expire()
    (snapshot,) = await keeper.snapshots("ann")
    assert await whole(keeper.content(snapshot, "objects", "m")) == b"model"
