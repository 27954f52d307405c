"""Signatures of what follows; see the commit's message."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sessionpools.web.store.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Blob:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    owner: str
    runtime_type: str
    name: str
    created: float  # seconds since the epoch
    used: float
    objects: Mapping[str, Blob]
    files: Mapping[str, Blob]


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    owner: str
    runtime_type: str
    name: str
    created: float
    objects: Mapping[str, Blob]
    files: Mapping[str, Blob]


class Authoring:
    """owner: whose it must be; None: anybody's. NotFound where it is another's."""

    def __init__(self, store: ObjectStore) -> None: ...
    async def create_session(self, owner: str, runtime_type: str, name: str = "") -> Session: ...
    async def sessions(self, owner: str | None) -> list[Session]: ...
    async def session(self, session_id: str, owner: str | None) -> Session: ...
    async def delete_session(self, session_id: str, owner: str | None) -> None: ...
    async def put_object(self, session_id: str, owner: str | None, name: str, chunks: AsyncIterable[bytes]) -> None: ...
    async def delete_object(self, session_id: str, owner: str | None, name: str) -> None: ...
    def object(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]: ...
    async def put_file(self, session_id: str, owner: str | None, name: str, chunks: AsyncIterable[bytes]) -> None: ...
    async def delete_file(self, session_id: str, owner: str | None, name: str) -> None: ...
    def file(self, session_id: str, owner: str | None, name: str) -> AsyncIterator[bytes]: ...
    async def create_snapshot(self, session_id: str, owner: str | None, name: str = "") -> Snapshot: ...
    async def load_snapshot(self, session_id: str, owner: str | None, snapshot_id: str) -> Session: ...
    async def snapshots(self, owner: str | None) -> list[Snapshot]: ...
    async def snapshot(self, snapshot_id: str, owner: str | None) -> Snapshot: ...
    async def delete_snapshot(self, snapshot_id: str, owner: str | None) -> None: ...

    # The content of a snapshot as local files, for publish_files; gone when the block is left.
    def checkout(self, snapshot: Snapshot) -> AbstractAsyncContextManager[tuple[dict[str, Path], dict[str, Path]]]: ...

    async def expire(self) -> None: ...  # what Collector calls
