"""The documents of authoring, sessions and snapshots: what they say, what becomes of them, how they are written.

Pure; used by authoring.py, which keeps them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, TypeVar

import orjson

from sessionpools.web.store.errors import NotFound, TooLarge
from sessionpools.web.store.room import mib

__all__ = [
    "MAX_OBJECTS",
    "MAX_SESSION_BYTES",
    "SESSION_SECONDS",
    "SNAPSHOT_SECONDS",
    "Blob",
    "Kind",
    "Session",
    "Snapshot",
    "dumped",
    "label",
    "no_content",
    "parsed",
    "session_expired",
    "snapshot_expired",
    "snapshot_of",
    "with_content",
    "without_content",
]

MAX_SESSION_BYTES: Final = 2 << 30  # what a bundle may hold
MAX_OBJECTS: Final = 1000  # objects and files: the document that lists them is written with each
# A client's publishing takes seconds to minutes; one that broke off leaves what it had put until then.
SESSION_SECONDS: Final = 3600.0
# A snapshot is published within minutes of being taken, by hand within a day. One that a service was published from
# stays, though that has a copy: the service names it, and who publishes the next version may begin with it.
SNAPSHOT_SECONDS: Final = 86_400.0

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
        return sum(blob.size for blob in _blobs(self))

    @property
    def names(self) -> set[str]:
        """Digests of the content that must stay."""
        return {blob.sha256 for blob in _blobs(self)}


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

    @property
    def size(self) -> int:
        """Bytes of all objects and files."""
        return sum(blob.size for blob in _blobs(self))

    @property
    def names(self) -> set[str]:
        """Digests of the content that must stay."""
        return {blob.sha256 for blob in _blobs(self)}


# --- decisions ------------------------------------------------------------------------------------------------------


def with_content(session: Session, kind: Kind, name: str, blob: Blob) -> Session:
    """The session with this object or file, in place of one of the same name. Raises TooLarge."""
    present = session.objects if kind == "objects" else session.files
    changed = _with(session, kind, {**present, name: blob})
    if len(changed.objects) + len(changed.files) > MAX_OBJECTS:
        raise TooLarge(
            f"{label(kind, name)}: session {session.id} has {MAX_OBJECTS} objects and files, the most of one"
        )
    if changed.size > MAX_SESSION_BYTES:
        raise TooLarge(
            f"{label(kind, name)}: session {session.id} would hold more than {mib(MAX_SESSION_BYTES)}, the most of "
            "one: remove others, or read large files from a volume or an image"
        )
    return changed


def without_content(session: Session, kind: Kind, name: str) -> Session:
    """The session without this object or file. Raises NotFound."""
    left = dict(session.objects if kind == "objects" else session.files)
    if left.pop(name, None) is None:
        raise no_content(session, kind, name)
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


def _blobs(of: Session | Snapshot) -> Iterator[Blob]:
    yield from of.objects.values()
    yield from of.files.values()


def _with(session: Session, kind: Kind, content: Mapping[str, Blob]) -> Session:
    return replace(session, objects=content) if kind == "objects" else replace(session, files=content)


def label(kind: Kind, name: str) -> str:
    """What messages call it."""
    return f"{'object' if kind == 'objects' else 'file'} {name!r}"


def no_content(of: Session | Snapshot, kind: Kind, name: str) -> NotFound:
    """The error that there is none of this name."""
    return NotFound(f"{label(kind, name)}: {type(of).__name__.lower()} {of.id} has none of this name")


# --- as they are written --------------------------------------------------------------------------------------------


def dumped(item: Session | Snapshot) -> bytes:
    """The document."""
    return orjson.dumps(asdict(item))


def parsed(kind: type[T], data: bytes) -> T:
    """The reverse. Raises ValueError for what is none: damaged, or written by a version that has more to say."""
    try:
        raw: dict[str, Any] = orjson.loads(data)
        for content in ("objects", "files"):
            raw[content] = {name: Blob(**blob) for name, blob in raw[content].items()}
        item = kind(**raw)
        if not (isinstance(item.id, str) and isinstance(item.owner, str) and isinstance(item.created, float | int)):
            raise TypeError("id, owner or created is of another type")
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return item
