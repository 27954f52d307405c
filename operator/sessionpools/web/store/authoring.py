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
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import orjson

from sessionpools.web.store.bundles import check_path, check_variable, put_fresh
from sessionpools.web.store.errors import Changed, NotFound, Refused, TooLarge
from sessionpools.web.store.objects import ObjectStore, Version
from sessionpools.web.store.received import mib, receive, temporary_folder

__all__ = [
    "MAX_OBJECTS",
    "MAX_OBJECT_BYTES",
    "MAX_SESSION_BYTES",
    "SESSION_SECONDS",
    "SNAPSHOT_SECONDS",
    "Authoring",
    "Blob",
    "Session",
    "Snapshot",
]

MAX_OBJECT_BYTES: Final = 512 << 20
MAX_SESSION_BYTES: Final = 2 << 30  # what a bundle may hold
MAX_OBJECTS: Final = 1000  # objects and files: the document that lists them is written with each
# A client's publishing takes seconds to minutes; one that broke off leaves what it had put until then.
SESSION_SECONDS: Final = 3600.0
# A snapshot is published within minutes of being taken, by hand within a day. One that a service was published from
# stays, though that has a copy: the service names it, and who publishes the next version may begin with it.
SNAPSHOT_SECONDS: Final = 86_400.0
BLOB_GRACE_SECONDS: Final = 3600.0  # content is stored before the document that names it

_SESSIONS: Final = "authoring/sessions"
_SNAPSHOTS: Final = "authoring/snapshots"
_BLOBS: Final = "blobs"
_TOUCH_SECONDS: Final = 300.0  # reading notes the use of a session no more often, as each note is a write
_TRIES: Final = 20  # of a swap: so many others at once write to one session only on purpose
_RUNTIMES: Final = {"python": "Python"}

Kind = Literal["objects", "files"]
T = TypeVar("T", "Session", "Snapshot")


@dataclass(frozen=True, slots=True)
class Blob:
    """Content by its digest."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Session:
    """A workspace. Times are seconds since the epoch, by the clock of the replica that wrote them."""

    id: str
    owner: str
    runtime_type: str  # Python
    name: str  # for people
    created: float
    used: float
    objects: Mapping[str, Blob] = field(default_factory=dict)
    files: Mapping[str, Blob] = field(default_factory=dict)
    write_id: str = ""  # of the last write: tells two writers of equal documents apart

    @property
    def size(self) -> int:
        """Bytes of all objects and files."""
        return sum(blob.size for kind in (self.objects, self.files) for blob in kind.values())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A workspace as it was; never changes."""

    id: str
    owner: str
    runtime_type: str
    name: str
    created: float
    objects: Mapping[str, Blob] = field(default_factory=dict)
    files: Mapping[str, Blob] = field(default_factory=dict)


# --- decisions ------------------------------------------------------------------------------------------------------


def with_content(session: Session, kind: Kind, name: str, blob: Blob) -> Session:
    """The session with this object or file, in place of one of the same name. Raises TooLarge."""
    present = session.objects if kind == "objects" else session.files
    changed = _with(session, kind, {**present, name: blob})
    if len(changed.objects) + len(changed.files) > MAX_OBJECTS:
        raise TooLarge(
            f"{_label(kind, name)}: session {session.id} has {MAX_OBJECTS} objects and files, the most of one"
        )
    if changed.size > MAX_SESSION_BYTES:
        raise TooLarge(
            f"{_label(kind, name)}: session {session.id} would hold more than {mib(MAX_SESSION_BYTES)}, the most of "
            "one: remove others, or read large files from a volume or an image"
        )
    return changed


def without_content(session: Session, kind: Kind, name: str) -> Session:
    """The session without this object or file. Raises NotFound."""
    left = dict(session.objects if kind == "objects" else session.files)
    if left.pop(name, None) is None:
        raise _no_content(session, kind, name)
    return _with(session, kind, left)


def snapshot_of(session: Session, snapshot_id: str, name: str, now: float) -> Snapshot:
    """An immutable copy of a session's workspace, of the same owner."""
    return Snapshot(
        snapshot_id, session.owner, session.runtime_type, name, now, dict(session.objects), dict(session.files)
    )


def session_expired(session: Session, now: float) -> bool:
    """Whether nobody has used it for long."""
    return now - session.used > SESSION_SECONDS


def snapshot_expired(snapshot: Snapshot, used: Collection[str], now: float) -> bool:
    """Whether it is old, and no service (`used` are ids) was made of it."""
    return snapshot.id not in used and now - snapshot.created > SNAPSHOT_SECONDS


def _with(session: Session, kind: Kind, content: Mapping[str, Blob]) -> Session:
    return replace(session, objects=content) if kind == "objects" else replace(session, files=content)


def _label(kind: Kind, name: str) -> str:
    return f"{'object' if kind == 'objects' else 'file'} {name!r}"


def _no_content(of: Session | Snapshot, kind: Kind, name: str) -> NotFound:
    return NotFound(f"{_label(kind, name)}: {type(of).__name__.lower()} {of.id} has none of this name")


# --- the store ------------------------------------------------------------------------------------------------------


class Authoring:
    """Sessions and snapshots. Raises StoreUnavailable and, for an id that is none of the owner's, NotFound."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    # --- sessions ---------------------------------------------------------------------------------------------------

    async def create_session(self, owner: str, runtime_type: str = "Python", name: str = "") -> Session:
        """A new, empty workspace. Raises Refused for another runtime than Python."""
        runtime = _RUNTIMES.get(runtime_type.lower())
        if runtime is None:
            raise Refused(f"runtimeType {runtime_type!r}: must be Python, the only runtime there is")
        now = self._clock()
        session = Session(str(uuid.uuid4()), owner, runtime, name, now, now, write_id=uuid.uuid4().hex)
        await self._store.put_if_absent(_key(_SESSIONS, session.id), _dump(session))
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

    async def put_object(self, session_id: str, owner: str | None, name: str, chunks: AsyncIterable[bytes]) -> None:
        """Keep an object (the bytes that dill made of it). Raises Refused for its name, TooLarge."""
        check_variable(name)
        await self._put(session_id, owner, "objects", name, chunks)

    async def put_file(self, session_id: str, owner: str | None, name: str, chunks: AsyncIterable[bytes]) -> None:
        """Keep a file, by relative path. Raises Refused for its name, TooLarge."""
        check_path(name)
        await self._put(session_id, owner, "files", name, chunks)

    async def delete_object(self, session_id: str, owner: str | None, name: str) -> None:
        """Remove an object. Raises NotFound."""
        await self._change(session_id, owner, lambda session: without_content(session, "objects", name))

    async def delete_file(self, session_id: str, owner: str | None, name: str) -> None:
        """Remove a file. Raises NotFound."""
        await self._change(session_id, owner, lambda session: without_content(session, "files", name))

    async def object(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]:
        """An object's bytes, in pieces. Raises NotFound before the first."""
        async for piece in self._content(await self.session(session_id, owner), "objects", name):
            yield piece

    async def file(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]:
        """A file's bytes, in pieces. Raises NotFound before the first."""
        async for piece in self._content(await self.session(session_id, owner), "files", name):
            yield piece

    async def _put(
        self, session_id: str, owner: str | None, kind: Kind, name: str, chunks: AsyncIterable[bytes]
    ) -> None:
        session, _ = await self._session(session_id, owner)
        with_content(session, kind, name, Blob("", 0))  # one too many is told before it is sent
        async with receive(chunks, MAX_OBJECT_BYTES, _label(kind, name)) as received:
            blob = Blob(received.sha256, received.size)
            with_content(session, kind, name, blob)
            await put_fresh(self._store, _key(_BLOBS, blob.sha256), received.content)
        await self._change(session_id, owner, lambda found: with_content(found, kind, name, blob))

    async def _content(self, of: Session | Snapshot, kind: Kind, name: str) -> AsyncIterator[bytes]:
        blob = (of.objects if kind == "objects" else of.files).get(name)
        if blob is None:
            raise _no_content(of, kind, name)
        async for piece in self._store.stream(_key(_BLOBS, blob.sha256)):
            yield piece

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def create_snapshot(self, session_id: str, owner: str | None, name: str = "") -> Snapshot:
        """A copy of a session's workspace that stays as it is."""
        session = await self._change(session_id, owner, lambda found: found)  # it must not expire meanwhile
        snapshot = snapshot_of(session, str(uuid.uuid4()), name, self._clock())
        await self._store.put_if_absent(_key(_SNAPSHOTS, snapshot.id), _dump(snapshot))
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
        """A snapshot's objects and files as local files, for `publish_files`; they are gone after the block."""
        with temporary_folder() as folder:
            local: dict[str, Path] = {}
            for blob in {*snapshot.objects.values(), *snapshot.files.values()}:
                local[blob.sha256] = folder / blob.sha256
                with await asyncio.to_thread(local[blob.sha256].open, "wb") as file:
                    async for piece in self._store.stream(_key(_BLOBS, blob.sha256)):
                        await asyncio.to_thread(file.write, piece)
            yield (
                {name: local[blob.sha256] for name, blob in snapshot.objects.items()},
                {name: local[blob.sha256] for name, blob in snapshot.files.items()},
            )

    # --- expiry -----------------------------------------------------------------------------------------------------

    async def expire(self, used: Collection[str] = ()) -> None:
        """Remove what nobody uses: sessions, snapshots (but for `used`, by id), and content that neither names.

        Content is listed first and the documents after it: what a document that is written meanwhile names is either
        not in the list or too young to be removed.
        """
        now = self._clock()
        blobs = [entry async for entry in self._store.list(_BLOBS)]
        named: set[str] = set()
        for session in await self._all(_SESSIONS, Session, None):
            if session_expired(session, now) and await self._still(session, now):
                await self._store.delete(_key(_SESSIONS, session.id))
            else:
                named |= {blob.sha256 for kind in (session.objects, session.files) for blob in kind.values()}
        for snapshot in await self._all(_SNAPSHOTS, Snapshot, None):
            if snapshot_expired(snapshot, used, now):
                await self._store.delete(_key(_SNAPSHOTS, snapshot.id))
            else:
                named |= {blob.sha256 for kind in (snapshot.objects, snapshot.files) for blob in kind.values()}
        for entry in blobs:
            if entry.key.rpartition("/")[2] not in named:
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
        found = _parse(kind, stored.data)
        if owner is not None and found.owner != owner:
            raise missing
        return found, stored.version

    async def _all(self, prefix: str, kind: type[T], owner: str | None) -> list[T]:
        found: list[T] = []
        async for entry in self._store.list(prefix):
            with contextlib.suppress(NotFound):  # removed since it was listed
                item = _parse(kind, (await self._store.get(entry.key)).data)
                if owner in (None, item.owner):
                    found.append(item)
        return sorted(found, key=lambda item: (item.created, item.id))

    async def _change(self, session_id: str, owner: str | None, change: Callable[[Session], Session]) -> Session:
        """Swap a session for what `change` makes of it, again and again until nobody else was first."""
        for _ in range(_TRIES):
            session, version = await self._session(session_id, owner)
            changed = replace(change(session), used=self._clock(), write_id=uuid.uuid4().hex)
            with contextlib.suppress(Changed):
                await self._store.update(_key(_SESSIONS, session_id), _dump(changed), version)
                return changed
        raise Changed(f"session {session_id}: too many write to it at once: try again")


async def delete_if_old(store: ObjectStore, key: str, seconds: float, now: float) -> None:
    """Remove an object that was written long ago: looked at again right before, as somebody may just use it anew."""
    with contextlib.suppress(NotFound):
        if now - (await store.modified(key)).timestamp() > seconds:
            await store.delete(key)


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}"


def _dump(item: Session | Snapshot) -> bytes:
    return orjson.dumps(asdict(item))


def _parse(kind: type[T], data: bytes) -> T:
    raw: dict[str, Any] = orjson.loads(data)
    for content in ("objects", "files"):
        raw[content] = {name: Blob(**blob) for name, blob in raw[content].items()}
    return kind(**raw)
