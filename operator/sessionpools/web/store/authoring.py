"""Machine Learning Server's authoring state: sessions, the objects and files of their workspaces, and snapshots.

A client that publishes makes a session, puts objects into its workspace, takes a snapshot, publishes that, and removes
both. No interpreter runs behind such a session: it is a list of names, each with the digest of its content, in one
document that is compared and swapped; a snapshot is a copy of that list. Content is stored once under its digest
(`blobs/`), and removed when no session and no snapshot has named it for a while. What is forgotten expires.

An `owner` of None may see everybody's; what is another's is NotFound, as if it did not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from sessionpools.web.store.bundles import check_path, check_variable
from sessionpools.web.store.content import delete_if_old, put_fresh
from sessionpools.web.store.documents import (
    Blob,
    Kind,
    Session,
    Snapshot,
    dumped,
    label,
    no_content,
    parsed,
    session_expired,
    snapshot_expired,
    snapshot_of,
    with_content,
    without_content,
)
from sessionpools.web.store.errors import Changed, NotFound, Refused, Unreadable
from sessionpools.web.store.objects import ObjectStore, Version
from sessionpools.web.store.received import receive
from sessionpools.web.store.room import Room, temporary_folder, to_end

__all__ = ["BLOB_GRACE_SECONDS", "MAX_OBJECT_BYTES", "Authoring"]

_log = logging.getLogger(__name__)

MAX_OBJECT_BYTES: Final = 512 << 20
BLOB_GRACE_SECONDS: Final = 3600.0  # content is stored before the document that names it

_SESSIONS: Final = "authoring/sessions"
_SNAPSHOTS: Final = "authoring/snapshots"
_BLOBS: Final = "blobs"
_TOUCH_SECONDS: Final = 300.0  # reading notes the use of a session no more often, as each note is a write
_TRIES: Final = 20  # of a swap: so many others at once write to one session only on purpose
_RUNTIMES: Final = {"python": "Python"}

T = TypeVar("T", Session, Snapshot)


class Authoring:
    """Sessions and snapshots. Raises StoreUnavailable and, for an id that is none of the owner's, NotFound."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.time, room: Room | None = None) -> None:
        self._store = store
        self._clock = clock
        self._unreadable = set[str]()  # keys of documents that the log has named
        self.room = room or Room()  # for what is uploaded, and for who checks a snapshot out

    # --- sessions ---------------------------------------------------------------------------------------------------

    async def create_session(self, owner: str, runtime_type: str = "Python", name: str = "") -> Session:
        """A new, empty workspace. Raises Refused for another runtime than Python."""
        runtime = _RUNTIMES.get(runtime_type.lower())
        if runtime is None:
            raise Refused(f"runtimeType {runtime_type!r}: must be Python, the only runtime there is")
        now = self._clock()
        session = Session(str(uuid.uuid4()), owner, runtime, name, now, now, write_id=uuid.uuid4().hex)
        await self._store.put_if_absent(_key(_SESSIONS, session.id), dumped(session))
        return session

    async def sessions(self, owner: str | None) -> list[Session]:
        """Those of an owner, oldest first."""
        return await self._all(_SESSIONS, Session, owner)

    async def session(self, session_id: str, owner: str | None) -> Session:
        """One session; looking at it is a use of it."""
        session, _ = await self._session(session_id, owner)
        if self._clock() - session.used > _TOUCH_SECONDS:
            return await self._change(session_id, owner, lambda found: found)
        return session

    async def delete_session(self, session_id: str, owner: str | None) -> None:
        """Remove a session and its workspace; snapshots of it stay."""
        await self._session(session_id, owner)
        await self._store.delete(_key(_SESSIONS, session_id))

    # --- its workspace ----------------------------------------------------------------------------------------------

    async def put_object(
        self,
        session_id: str,
        owner: str | None,
        name: str,
        chunks: AsyncIterable[bytes],
        declared: int | None = None,
    ) -> None:
        """Keep an object (the bytes that dill made of it). `declared`: as `receive` has it. Raises Refused for its
        name, TooLarge, NoRoom."""
        check_variable(name)
        await self._put(session_id, owner, "objects", name, chunks, declared)

    async def put_file(
        self,
        session_id: str,
        owner: str | None,
        name: str,
        chunks: AsyncIterable[bytes],
        declared: int | None = None,
    ) -> None:
        """Keep a file, by relative path. `declared`: as `receive` has it. Raises Refused for its
        name, TooLarge, NoRoom."""
        check_path(name)
        await self._put(session_id, owner, "files", name, chunks, declared)

    async def delete_object(self, session_id: str, owner: str | None, name: str) -> None:
        """Remove an object. Raises NotFound."""
        await self._change(session_id, owner, lambda session: without_content(session, "objects", name))

    async def delete_file(self, session_id: str, owner: str | None, name: str) -> None:
        """Remove a file. Raises NotFound."""
        await self._change(session_id, owner, lambda session: without_content(session, "files", name))

    async def object(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces. Raises NotFound before the first."""
        async for piece in self.content(await self.session(session_id, owner), "objects", name):
            yield piece

    async def file(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]:
        """A file's bytes, in pieces. Raises NotFound before the first."""
        async for piece in self.content(await self.session(session_id, owner), "files", name):
            yield piece

    async def _put(
        self,
        session_id: str,
        owner: str | None,
        kind: Kind,
        name: str,
        chunks: AsyncIterable[bytes],
        declared: int | None,
    ) -> None:
        session, _ = await self._session(session_id, owner)
        with_content(session, kind, name, Blob("", 0))  # one too many is told before it is sent
        async with receive(chunks, MAX_OBJECT_BYTES, label(kind, name), self.room, declared) as received:
            blob = Blob(received.sha256, received.size)
            with_content(session, kind, name, blob)
            await put_fresh(self._store, _key(_BLOBS, blob.sha256), received.content)
        await self._change(session_id, owner, lambda found: with_content(found, kind, name, blob))

    async def content(self, of: Session | Snapshot, kind: Kind, name: str) -> AsyncIterator[bytes]:
        """The bytes of an object or a file, in pieces. Raises NotFound before the first."""
        blob = (of.objects if kind == "objects" else of.files).get(name)
        if blob is None:
            raise no_content(of, kind, name)
        async for piece in self._store.stream(_key(_BLOBS, blob.sha256)):
            yield piece

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def create_snapshot(self, session_id: str, owner: str | None, name: str = "") -> Snapshot:
        """A copy of a session's workspace that stays as it is."""
        session = await self._change(session_id, owner, lambda found: found)  # it must not expire meanwhile
        snapshot = snapshot_of(session, str(uuid.uuid4()), name, self._clock())
        await self._store.put_if_absent(_key(_SNAPSHOTS, snapshot.id), dumped(snapshot))
        return snapshot

    async def load_snapshot(self, session_id: str, owner: str | None, snapshot_id: str) -> Session:
        """Make a session's workspace that of a snapshot."""
        snapshot = await self.snapshot(snapshot_id, owner)
        return await self._change(
            session_id, owner, lambda found: replace(found, objects=snapshot.objects, files=snapshot.files)
        )

    async def snapshots(self, owner: str | None) -> list[Snapshot]:
        """Those of an owner, oldest first."""
        return await self._all(_SNAPSHOTS, Snapshot, owner)

    async def snapshot(self, snapshot_id: str, owner: str | None) -> Snapshot:
        """One snapshot."""
        snapshot, _ = await self._read(_SNAPSHOTS, Snapshot, snapshot_id, owner)
        return snapshot

    async def delete_snapshot(self, snapshot_id: str, owner: str | None) -> None:
        """Remove a snapshot. What was published of it has a copy of its own."""
        await self.snapshot(snapshot_id, owner)
        await self._store.delete(_key(_SNAPSHOTS, snapshot_id))

    @contextlib.asynccontextmanager
    async def checkout(self, snapshot: Snapshot) -> AsyncIterator[tuple[dict[str, Path], dict[str, Path]]]:
        """A snapshot's objects and files as local files, for `publish_files`; they are gone after the block.
        The caller has room for `snapshot.size` bytes."""
        with temporary_folder() as folder:
            local: dict[str, Path] = {}
            for blob in {*snapshot.objects.values(), *snapshot.files.values()}:
                local[blob.sha256] = folder / blob.sha256
                with await asyncio.to_thread(local[blob.sha256].open, "wb") as file:
                    async for piece in self._store.stream(_key(_BLOBS, blob.sha256)):
                        await to_end(file.write, piece)
            yield (
                {name: local[blob.sha256] for name, blob in snapshot.objects.items()},
                {name: local[blob.sha256] for name, blob in snapshot.files.items()},
            )

    # --- expiry -----------------------------------------------------------------------------------------------------

    async def expire(self, used: Collection[str] = ()) -> None:
        """Remove what nobody uses: sessions, snapshots (but for `used`, by id), and content that neither names.

        Documents are removed first, and the content that the others do not name then: of a session that was used in the
        very moment of its removal a snapshot may have been taken, which keeps it.
        """
        now = self._clock()
        for session in await self._all(_SESSIONS, Session, None):
            if session_expired(session, now) and await self._still(session, now):
                await self._store.delete(_key(_SESSIONS, session.id))
        for snapshot in await self._all(_SNAPSHOTS, Snapshot, None):
            if snapshot_expired(snapshot, used, now):
                await self._store.delete(_key(_SNAPSHOTS, snapshot.id))
        await self._collect(now)

    async def _collect(self, now: float) -> None:
        """Remove content that no document names.

        Content is listed first and the documents after it: what a document that is written meanwhile names is either
        not in the list or too young to be removed. Sessions are listed before snapshots and again after them, as a
        snapshot is made of a session and loaded into one, and where it came from may be gone by then. While a document
        can't be read nobody knows what it names, and all content stays.
        """
        blobs = [entry async for entry in self._store.list(_BLOBS)]
        sessions, bad_before = await self._all_and_unreadable(_SESSIONS, Session)
        snapshots, bad = await self._all_and_unreadable(_SNAPSHOTS, Snapshot)
        again, bad_after = await self._all_and_unreadable(_SESSIONS, Session)
        if bad_before or bad or bad_after:
            return
        named = set[str]().union(*(each.names for each in (*sessions, *again)), *(each.names for each in snapshots))
        for entry in blobs:
            if entry.key.rpartition("/")[2] not in named and now - entry.modified.timestamp() > BLOB_GRACE_SECONDS:
                await delete_if_old(self._store, entry.key, BLOB_GRACE_SECONDS, now)

    async def _still(self, session: Session, now: float) -> bool:
        with contextlib.suppress(NotFound):
            found, _ = await self._session(session.id, None)
            return session_expired(found, now)
        return False

    # --- documents --------------------------------------------------------------------------------------------------

    async def _session(self, session_id: str, owner: str | None) -> tuple[Session, Version]:
        return await self._read(_SESSIONS, Session, session_id, owner)

    async def _read(self, prefix: str, kind: type[T], item_id: str, owner: str | None) -> tuple[T, Version]:
        missing = NotFound(f"{kind.__name__.lower()} {item_id!r}: there is none, it is another's, or it has expired")
        try:
            if str(uuid.UUID(item_id)) != item_id:
                raise missing
            stored = await self._store.get(_key(prefix, item_id))
        except (NotFound, ValueError):
            raise missing from None
        found = self._parsed(kind, _key(prefix, item_id), stored.data)
        if owner is not None and found.owner != owner:
            raise missing
        return found, stored.version

    async def _all(self, prefix: str, kind: type[T], owner: str | None) -> list[T]:
        """Those of an owner that can be read, oldest first."""
        found, _ = await self._all_and_unreadable(prefix, kind)
        return [item for item in found if owner in (None, item.owner)]

    async def _all_and_unreadable(self, prefix: str, kind: type[T]) -> tuple[list[T], list[str]]:
        """Everybody's, oldest first, and the keys of those that can't be read."""
        found: list[T] = []
        unreadable: list[str] = []
        async for entry in self._store.list(prefix):
            try:
                found.append(self._parsed(kind, entry.key, (await self._store.get(entry.key)).data))
            except NotFound:  # removed since it was listed
                continue
            except Unreadable:
                unreadable.append(entry.key)
        return sorted(found, key=lambda item: (item.created, item.id)), unreadable

    def _parsed(self, kind: type[T], key: str, data: bytes) -> T:
        try:
            return parsed(kind, data)
        except ValueError as error:
            if key not in self._unreadable:
                self._unreadable.add(key)
                _log.error(
                    "document unreadable, so that no content is removed either: delete it",
                    extra={"store": self._store.url, "object": key, "error": str(error)},
                )
            raise Unreadable(
                f"{kind.__name__.lower()} {key.rpartition('/')[2]!r}: its document can't be read ({error}): delete "
                f"{key} in store {self._store.url}"
            ) from error

    async def _change(self, session_id: str, owner: str | None, change: Callable[[Session], Session]) -> Session:
        """Swap a session for what `change` makes of it, again and again until nobody else was first."""
        for _ in range(_TRIES):
            session, version = await self._session(session_id, owner)
            changed = replace(change(session), used=self._clock(), write_id=uuid.uuid4().hex)
            with contextlib.suppress(Changed):
                await self._store.update(_key(_SESSIONS, session_id), dumped(changed), version)
                return changed
        raise Changed(f"session {session_id}: too many write to it at once: try again")


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}"
