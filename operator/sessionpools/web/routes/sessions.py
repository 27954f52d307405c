"""Authoring sessions. Clients make one to publish: objects and files are put into it, a snapshot is taken of it.

Machine Learning Server ran an interpreter behind each, in which code could be executed. Here a session is what it
holds; the code of a service first runs in its pool.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path

from sessionpools.web.auth.identity import Principal
from sessionpools.web.auth.roles import Action, require
from sessionpools.web.errors import Unsupported
from sessionpools.web.models.sessions import (
    CreateSessionRequest,
    CreateSessionResponse,
    CreateSnapshotRequest,
    CreateSnapshotResponse,
    SessionAnswer,
)
from sessionpools.web.parts import Parts
from sessionpools.web.routes.common import Audited, Web, Who, owner_or_all
from sessionpools.web.store.documents import Session

router = APIRouter(tags=["Sessions"])

SessionId = Annotated[str, Path(description="Id of the session.")]


async def usable(web: Parts, who: Principal, session_id: str) -> Session:
    """A session that somebody may use. Raises Denied, and the store's NotFound: also for another's, but to an Owner."""
    require(who, Action.USE_SESSION)
    session = await web.authoring.session(session_id, owner_or_all(who))
    require(who, Action.USE_SESSION, session.owner)
    return session


@router.post("/sessions", operation_id="createSession", status_code=201)
async def create(
    web: Web, who: Who, audited: Audited, body: Annotated[CreateSessionRequest | None, Body()] = None
) -> CreateSessionResponse:
    """A new session; it expires an hour after it was last used."""
    body = body or CreateSessionRequest()
    with audited("create", "Session"):
        require(who, Action.CREATE_SESSION)
        session = await web.authoring.create_session(who.name, body.runtime_type or "Python", body.name or "")
        if body.snapshot_id:
            await web.publishing.snapshot(who, body.snapshot_id)
            await web.authoring.load_snapshot(session.id, None, body.snapshot_id)
    return CreateSessionResponse(session_id=session.id)


@router.get("/sessions", operation_id="listSessions")
async def list_all(web: Web, who: Who) -> list[SessionAnswer]:
    """One's own sessions, of an Owner all."""
    require(who, Action.LIST_SESSIONS)
    return [_answer(each) for each in await web.authoring.sessions(owner_or_all(who))]


@router.get("/sessions/{id}", operation_id="getSession")
async def get(web: Web, who: Who, id: SessionId) -> SessionAnswer:
    """One session."""
    return _answer(await usable(web, who, id))


@router.delete("/sessions/{id}", operation_id="closeSession")
async def delete(web: Web, who: Who, audited: Audited, id: SessionId) -> str:
    """Close a session; its snapshots stay."""
    return await _close(web, who, audited, id)


@router.delete("/sessions/{id}/force", operation_id="closeSessionByForce")
async def delete_by_force(web: Web, who: Who, audited: Audited, id: SessionId) -> str:
    """The same: nothing runs in a session that would have to be forced."""
    return await _close(web, who, audited, id)


@router.post("/sessions/{id}/snapshot", operation_id="createSnapshot", status_code=201)
async def snapshot(
    web: Web, who: Who, audited: Audited, id: SessionId, body: Annotated[CreateSnapshotRequest | None, Body()] = None
) -> CreateSnapshotResponse:
    """A copy of what the session holds, which stays as it is."""
    with audited("create", "Snapshot", id):
        session = await usable(web, who, id)
        taken = await web.authoring.create_snapshot(session.id, None, (body and body.name) or "")
    return CreateSnapshotResponse(snapshot_id=taken.id)


@router.post("/sessions/{id}/loadsnapshot/{snapshotId}", operation_id="loadSnapshot")
async def load(
    web: Web,
    who: Who,
    audited: Audited,
    id: SessionId,
    snapshot_id: Annotated[str, Path(alias="snapshotId", description="Id of the snapshot.")],
) -> str:
    """Replace what the session holds by what the snapshot does."""
    with audited("load", "Snapshot", snapshot_id):
        session = await usable(web, who, id)
        taken = await web.publishing.snapshot(who, snapshot_id)
        await web.authoring.load_snapshot(session.id, None, taken.id)
    return "Loaded."


@router.post("/sessions/{id}/execute", operation_id="executeCode", status_code=501)
async def execute(web: Web, who: Who, id: SessionId) -> None:
    """Not offered: code runs in the pool of a published service."""
    await usable(web, who, id)
    raise _no_interpreter("POST /sessions/ID/execute")


@router.post("/sessions/{id}/cancel", operation_id="cancelSession", status_code=501)
async def cancel(web: Web, who: Who, id: SessionId) -> None:
    """Not offered: nothing runs in a session."""
    await usable(web, who, id)
    raise _no_interpreter("POST /sessions/ID/cancel")


@router.get("/sessions/{id}/console-output", operation_id="getSessionConsoleOutput", status_code=501)
async def console_output(web: Web, who: Who, id: SessionId) -> None:
    """Not offered: nothing runs in a session. The console output of a call is in its answer."""
    await usable(web, who, id)
    raise _no_interpreter("GET /sessions/ID/console-output")


@router.get("/sessions/{id}/history", operation_id="listSessionHistory", status_code=501)
async def history(web: Web, who: Who, id: SessionId) -> None:
    """Not offered: nothing runs in a session."""
    await usable(web, who, id)
    raise _no_interpreter("GET /sessions/ID/history")


async def _close(web: Parts, who: Principal, audited: Audited, session_id: str) -> str:
    with audited("delete", "Session", session_id):
        session = await usable(web, who, session_id)
        await web.authoring.delete_session(session.id, None)
    return "Closed."


def _no_interpreter(what: str) -> Unsupported:
    return Unsupported(
        f"{what} is not offered, as no interpreter runs behind a session: publish the code (POST "
        "/services/NAME/VERSION with code and initCode), make a pool and call it; or run it where you are and put the "
        "resulting objects into the session's workspace"
    )


def _answer(session: Session) -> SessionAnswer:
    return SessionAnswer(id=session.id, name=session.name, owner=session.owner, runtime_type=session.runtime_type)
