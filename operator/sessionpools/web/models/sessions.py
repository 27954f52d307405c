"""Authoring sessions and snapshots: what clients make on their way to a published service."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from sessionpools.web.models.base import Answer, Body

__all__ = [
    "CreateSessionRequest",
    "CreateSessionResponse",
    "CreateSnapshotRequest",
    "CreateSnapshotResponse",
    "ExecuteRequest",
    "SessionAnswer",
    "SnapshotAnswer",
]

Label = Annotated[str, Field(max_length=256)]


class CreateSessionRequest(Body):
    """All of it may be left out."""

    name: Label | None = None
    """For people."""
    snapshot_id: str | None = None
    """Snapshot whose objects and files the session begins with."""
    runtime_type: str | None = None
    """Python, also when it is left out; R is refused."""


class CreateSessionResponse(Answer):
    session_id: str


class SessionAnswer(Answer):
    """A session: a list of objects and files; no interpreter runs behind it."""

    id: str
    name: str
    owner: str
    runtime_type: str


class CreateSnapshotRequest(Body):
    name: Label | None = None
    """For people."""


class CreateSnapshotResponse(Answer):
    snapshot_id: str


class SnapshotAnswer(Answer):
    """What a session held when the snapshot was taken."""

    id: str
    name: str
    owner: str
    creation_time: str
    content_size: int
    """Bytes of its objects and files."""
    objects: list[str]
    files: list[str]


class ExecuteRequest(Body):
    """Read for clients that send it; nothing is executed."""

    code: str | None = None
    input_parameters: list[Any] | None = None
    output_parameters: list[Any] | None = None
