"""The files of a session: they lie beside the published code."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from sessionpools.web.multipart import file_part
from sessionpools.web.routes.common import Audited, Web, Who, declared_size, streamed
from sessionpools.web.routes.sessions import SessionId, usable
from sessionpools.web.routes.workspace import BINARY, Bytes

router = APIRouter(tags=["Sessions"])

FileName = Annotated[str, Path(alias="fileName", description="Relative path of the file, such as lib/model.py.")]
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.get("/sessions/{id}/files", operation_id="listSessionFiles")
async def list_all(web: Web, who: Who, id: SessionId) -> list[str]:
    """Names of the files."""
    return sorted((await usable(web, who, id)).files)


@router.post("/sessions/{id}/files", operation_id="uploadSessionFile", status_code=201, openapi_extra=_FORM)
async def upload(web: Web, who: Who, audited: Audited, id: SessionId, request: Request) -> str:
    """Put a file under the name that the form gives it, at most 512 MiB."""
    with audited("put", "File"):
        session = await usable(web, who, id)
        part = await file_part(request.headers.get("content-type", ""), request.stream())
        await web.authoring.put_file(session.id, None, part.file_name, part.content, declared_size(request))
    return part.file_name


@router.get("/sessions/{id}/files/{fileName:path}", operation_id="getSessionFile", response_class=Bytes)
async def get(web: Web, who: Who, id: SessionId, file_name: FileName) -> Any:
    """A file's bytes."""
    session = await usable(web, who, id)
    return await streamed(web.authoring.file(session.id, None, file_name))


@router.put("/sessions/{id}/files/{fileName:path}", operation_id="putSessionFile", openapi_extra=BINARY)
async def put(web: Web, who: Who, audited: Audited, id: SessionId, file_name: FileName, request: Request) -> str:
    """Put a file, its bytes as the body, at most 512 MiB."""
    with audited("put", "File", file_name):
        session = await usable(web, who, id)
        await web.authoring.put_file(session.id, None, file_name, request.stream(), declared_size(request))
    return file_name


@router.delete("/sessions/{id}/files/{fileName:path}", operation_id="deleteSessionFile")
async def delete(web: Web, who: Who, audited: Audited, id: SessionId, file_name: FileName) -> str:
    """Remove a file."""
    with audited("delete", "File", file_name):
        session = await usable(web, who, id)
        await web.authoring.delete_file(session.id, None, file_name)
    return "Deleted."
