"""Batches of calls: start, list, poll, cancel, files. Who may call a service may; each sees their own."""

from __future__ import annotations

import mimetypes
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Body, Path, Query
from starlette.responses import Response

from sessionpools.web.auth.identity import Principal
from sessionpools.web.auth.roles import Action, require
from sessionpools.web.batch.batches import DEFAULT_PARALLEL, MAX_PARALLEL, BatchStatus, Service
from sessionpools.web.errors import storable
from sessionpools.web.models.batches import BatchStarted, BatchState
from sessionpools.web.parts import Parts
from sessionpools.web.publishing import service_missing
from sessionpools.web.routes.common import (
    Audited,
    Name,
    Version,
    Web,
    Who,
    owner_or_all,
    streamed,
)
from sessionpools.web.routes.workspace import Bytes

router = APIRouter(prefix="/api/{name}/{version}/batch", tags=["Batches"])

BatchId = Annotated[str, Path(alias="executionId", description="Id of the batch.")]
Index = Annotated[int, Path(description="Number of the item, from 0.", ge=0)]


@router.post("", operation_id="startBatchExecution", status_code=202)
async def start(
    web: Web,
    who: Who,
    audited: Audited,
    name: Name,
    version: Version,
    items: Annotated[list[dict[str, Any]], Body(description="An object of inputs for each call.", min_length=1)],
    parallel: Annotated[
        int,
        Query(alias="parallelCount", ge=1, description=f"Calls that are made at a time, {MAX_PARALLEL} at the most."),
    ] = DEFAULT_PARALLEL,
) -> BatchStarted:
    """Start calls of the service in the background, each exactly once."""
    with audited("start", "Batch", name, version):
        require(who, Action.START_BATCH)
        if web.cluster.service(name, version) is None:
            raise service_missing(name, version)
        batch_id = await web.batches.start(
            _service(web, name, version),
            who.name,
            [storable(f"item {number}", item) for number, item in enumerate(items)],
            parallel,
        )
    return BatchStarted(id=batch_id, id_again=batch_id)


@router.get("", operation_id="getBatchExecutions")
async def list_all(web: Web, who: Who, name: Name, version: Version) -> list[str]:
    """Ids of one's own batches of the service, of an Owner all; they expire some days after they are complete."""
    require(who, Action.LIST_BATCHES)
    return await web.batches.list(_service(web, name, version), owner_or_all(who))


@router.get("/{executionId}", operation_id="getBatchExecutionStatus", response_model=BatchState)
async def poll(
    web: Web,
    who: Who,
    name: Name,
    version: Version,
    batch_id: BatchId,
    partial: Annotated[
        bool, Query(alias="showPartialResults", description="Give the results that there are before all are.")
    ] = False,
    partial_too: Annotated[
        bool, Query(alias="showPartialResult", description="The same, as Machine Learning Server's client spells it.")
    ] = False,
) -> Response:
    """State and results of a batch."""
    require(who, Action.READ_BATCH)
    found = await web.batches.poll(_service(web, name, version), batch_id, owner_or_all(who), partial or partial_too)
    require(who, Action.READ_BATCH, found.owner)
    return Response(_polled(found), media_type="application/json")


@router.delete("/{executionId}", operation_id="cancelAndDeleteBatchExecution")
async def cancel(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, batch_id: BatchId
) -> list[str]:  # fmt: skip
    """Cancel a batch and delete it: calls that have not begun will not. The answer is its id, in a list."""
    with audited("cancel", "Batch", batch_id):
        require(who, Action.CANCEL_BATCH)
        await web.batches.delete(_service(web, name, version), batch_id, owner_or_all(who))
    return [batch_id]


@router.get("/{executionId}/{index}/files", operation_id="getBatchExecutionFiles")
async def files(web: Web, who: Who, name: Name, version: Version, batch_id: BatchId, index: Index) -> list[str]:
    """Names of the files that an item has written and that the service declares."""
    return await _files(web, who, name, version, batch_id, index)


@router.get("/{executionId}/{index}/files/{fileName:path}", operation_id="getBatchExecutionFile", response_class=Bytes)
async def file(
    web: Web,
    who: Who,
    name: Name,
    version: Version,
    batch_id: BatchId,
    index: Index,
    file_name: Annotated[str, Path(alias="fileName", description="Name of the file.")],
) -> Any:
    """A file's bytes."""
    require(who, Action.READ_BATCH)
    service = _service(web, name, version)
    pieces = web.batches.file(service, batch_id, owner_or_all(who), index, file_name)
    disposition = f"attachment; filename*=UTF-8''{quote(file_name.rpartition('/')[2])}"
    media_type = mimetypes.guess_type(file_name)[0] or "application/octet-stream"
    return await streamed(pieces, media_type, **{"Content-Disposition": disposition})


async def _files(web: Parts, who: Principal, name: str, version: str, batch_id: str, index: int) -> list[str]:
    require(who, Action.READ_BATCH)
    return await web.batches.files(_service(web, name, version), batch_id, owner_or_all(who), index)


def _service(web: Parts, name: str, version: str) -> Service:
    return Service(web.cluster.namespace, name, version)


def _polled(found: BatchStatus) -> bytes:
    """The results are JSON already: they are put in as they are."""
    head = orjson.dumps(
        {"state": found.state, "completedItemCount": found.completed, "totalItemCount": found.total}
    )  # fmt: skip
    return b'%s,"batchExecutionResults":[%s]}' % (head[:-1], b",".join(found.results))
