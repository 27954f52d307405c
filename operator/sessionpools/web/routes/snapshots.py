"""Snapshots: what a session held at a moment, to publish from."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.models.sessions import SnapshotAnswer
from sessionpools.web.parts import Parts
from sessionpools.web.routes.common import Audited, Web, Who, owner_or_all, streamed
from sessionpools.web.routes.workspace import Bytes
from sessionpools.web.store.documents import Kind, Snapshot
from sessionpools.web.store.room import to_end

router = APIRouter(tags=["Snapshots"])

SnapshotId = Annotated[str, Path(description="Id of the snapshot.")]
PIECE_BYTES = 1 << 20  # of an answer; a smaller one is sent when all of it was read


@router.get("/snapshots", operation_id="listSnapshots")
async def list_all(web: Web, who: Who) -> list[SnapshotAnswer]:
    """One's own snapshots, of an Owner all."""
    require(who, Action.LIST_SNAPSHOTS)
    return [_answer(each) for each in await web.authoring.snapshots(owner_or_all(who))]


@router.get("/snapshots/{id}", operation_id="getSnapshotContent", response_class=Bytes)
async def get(web: Web, who: Who, id: SnapshotId) -> Any:
    """A zip of the snapshot: objects/NAME.dill and files/PATH."""
    require(who, Action.USE_SNAPSHOT)
    snapshot = await web.publishing.snapshot(who, id)
    return await streamed(_zipped(web, snapshot), "application/zip")


@router.delete("/snapshots/{id}", operation_id="deleteSnapshot")
async def delete(web: Web, who: Who, audited: Audited, id: SnapshotId) -> str:
    """Delete a snapshot. Services that were published from it have all that they need."""
    with audited("delete", "Snapshot", id):
        require(who, Action.USE_SNAPSHOT)
        snapshot = await web.publishing.snapshot(who, id)
        await web.authoring.delete_snapshot(snapshot.id, None)
    return "Deleted."


async def _zipped(web: Parts, snapshot: Snapshot) -> AsyncIterator[bytes]:
    """Made as it is sent, so that it needs no disk and begins at once, whatever its size."""
    packed = _Packed()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, kind, name in _members(snapshot):
            with archive.open(path, "w") as member:
                async for piece in web.authoring.content(snapshot, kind, name):
                    await to_end(member.write, piece)
                    if packed.size >= PIECE_BYTES:
                        yield packed.taken()
    yield packed.taken()


def _members(snapshot: Snapshot) -> list[tuple[str, Kind, str]]:
    """Path in the zip, and what is there."""
    objects: list[tuple[str, Kind, str]] = [(f"objects/{name}.dill", "objects", name) for name in snapshot.objects]
    return sorted([*objects, *((f"files/{name}", "files", name) for name in snapshot.files)])


class _Packed:
    """What a ZipFile has written and nobody has taken yet."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def taken(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


def _answer(snapshot: Snapshot) -> SnapshotAnswer:
    return SnapshotAnswer(
        id=snapshot.id,
        name=snapshot.name,
        owner=snapshot.owner,
        creation_time=datetime.fromtimestamp(snapshot.created, UTC).isoformat(),
        content_size=snapshot.size,
        objects=sorted(snapshot.objects),
        files=sorted(snapshot.files),
    )
