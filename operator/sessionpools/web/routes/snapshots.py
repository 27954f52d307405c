"""Snapshots: what a session held at a moment, to publish from."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path as LocalPath
from typing import Annotated, Any

from fastapi import APIRouter, Path

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.models.sessions import SnapshotAnswer
from sessionpools.web.parts import Parts
from sessionpools.web.routes.common import Audited, Web, Who, owner_or_all, streamed
from sessionpools.web.routes.workspace import Bytes
from sessionpools.web.store.authoring import Snapshot
from sessionpools.web.store.received import temporary_folder

router = APIRouter(tags=["Snapshots"])

SnapshotId = Annotated[str, Path(description="Id of the snapshot.")]
PIECE_BYTES = 1 << 20


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
    with temporary_folder() as folder:
        path = folder / "snapshot.zip"
        async with web.authoring.checkout(snapshot) as (objects, files):
            named = {f"objects/{name}.dill": content for name, content in objects.items()}
            named |= {f"files/{name}": content for name, content in files.items()}
            await asyncio.to_thread(_write, path, named)
        with await asyncio.to_thread(path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece


def _write(path: LocalPath, contents: Mapping[str, LocalPath]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in sorted(contents.items()):
            archive.write(content, name)


def _answer(snapshot: Snapshot) -> SnapshotAnswer:
    blobs = [*snapshot.objects.values(), *snapshot.files.values()]
    return SnapshotAnswer(
        id=snapshot.id,
        name=snapshot.name,
        owner=snapshot.owner,
        creation_time=datetime.fromtimestamp(snapshot.created, UTC).isoformat(),
        content_size=sum(blob.size for blob in blobs),
        objects=sorted(snapshot.objects),
        files=sorted(snapshot.files),
    )
