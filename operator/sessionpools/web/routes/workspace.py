"""The objects of a session's workspace, as dill wrote them: each becomes a variable of the published code."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import StreamingResponse

from sessionpools.web.routes.common import Audited, Web, Who, declared_size, streamed
from sessionpools.web.routes.sessions import SessionId, usable

router = APIRouter(tags=["Sessions"])

ObjectName = Annotated[str, Path(alias="objectName", description="Name of the object, a Python identifier.")]
BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Bytes(StreamingResponse):
    """For the description: an answer that is no JSON."""

    media_type = "application/octet-stream"


@router.get("/sessions/{id}/workspace", operation_id="listWorkspaceObjects")
async def list_all(web: Web, who: Who, id: SessionId) -> list[str]:
    """Names of the objects."""
    return sorted((await usable(web, who, id)).objects)


@router.get("/sessions/{id}/workspace/{objectName}", operation_id="getWorkspaceObject", response_class=Bytes)
async def get(web: Web, who: Who, id: SessionId, object_name: ObjectName) -> Any:
    """An object's bytes, as they were put."""
    session = await usable(web, who, id)
    return await streamed(web.authoring.object(session.id, None, object_name))


@router.post("/sessions/{id}/workspace/{objectName}", operation_id="setWorkspaceObject", openapi_extra=BINARY)
async def post(
    web: Web, who: Who, audited: Audited, id: SessionId, object_name: ObjectName, request: Request
) -> str:  # fmt: skip
    """Put an object: the bytes that dill made of it, at most 512 MiB."""
    return await _put(web, who, audited, id, object_name, request)


@router.put("/sessions/{id}/workspace/{objectName}", operation_id="putWorkspaceObject", openapi_extra=BINARY)
async def put(
    web: Web, who: Who, audited: Audited, id: SessionId, object_name: ObjectName, request: Request
) -> str:  # fmt: skip
    """The same."""
    return await _put(web, who, audited, id, object_name, request)


@router.delete("/sessions/{id}/workspace/{objectName}", operation_id="deleteWorkspaceObject")
async def delete(web: Web, who: Who, audited: Audited, id: SessionId, object_name: ObjectName) -> str:
    """Remove an object."""
    with audited("delete", "Object", object_name):
        session = await usable(web, who, id)
        await web.authoring.delete_object(session.id, None, object_name)
    return "Deleted."


async def _put(web: Web, who: Who, audited: Audited, session_id: str, name: str, request: Request) -> str:
    with audited("put", "Object", name):
        session = await usable(web, who, session_id)
        await web.authoring.put_object(session.id, None, name, request.stream(), declared_size(request))
    return "Stored."
