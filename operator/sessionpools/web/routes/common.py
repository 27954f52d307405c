"""What routes have in common: who asks, the parts they work with, the audit line of a change, answers in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from starlette.responses import StreamingResponse

from sessionpools.web.auth import audit
from sessionpools.web.auth.audit import Caller, Outcome
from sessionpools.web.auth.identity import Principal, Role
from sessionpools.web.errors import Missing, problem_of
from sessionpools.web.parts import Parts

__all__ = [
    "Audited",
    "Force",
    "From",
    "Name",
    "Version",
    "Web",
    "Who",
    "declared_size",
    "owner_or_all",
    "pool_missing",
    "streamed",
]


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal  # edge.py has put it there, or refused the request
    return principal


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


class Audit:
    """Writes the audit line of a change when it is done, refused or failed."""

    def __init__(self, request: Request) -> None:
        self._request = request

    @contextlib.contextmanager
    def __call__(self, verb: str, kind: str, name: str = "", version: str = "") -> Iterator[None]:
        def record(outcome: Outcome, reason: str = "") -> None:
            who = _principal(self._request)
            audit.record(_caller(self._request), who, verb, kind, name, version, outcome=outcome, reason=reason)

        try:
            yield
        except Exception as error:
            problem = problem_of(error, self._request)
            refused = problem is not None and (getattr(problem, "code", 0) or problem.status) < 500
            record(Outcome.REFUSED if refused else Outcome.FAILED, problem.message if problem else repr(error))
            raise
        record(Outcome.DONE)


Web = Annotated[Parts, Depends(_parts)]
Who = Annotated[Principal, Depends(_principal)]
From = Annotated[Caller, Depends(_caller)]
Audited = Annotated[Audit, Depends(Audit)]
Name = Annotated[str, Path(description="Name of the web service; case matters.")]
Version = Annotated[str, Path(description="Version of the web service; case matters.")]
Force = Annotated[
    bool, Query(description="Change the object even if Helm, Flux, Argo CD or another manages it and may undo that.")
]


def owner_or_all(who: Principal) -> str | None:
    """Whose things somebody may see, as store and batches take it: their own, or everybody's."""
    return None if who.role is Role.OWNER else who.name


def pool_missing(name: str, version: str) -> Missing:
    return Missing(
        f"service {name!r} version {version!r} has no pool: POST /services/{name}/{version}/pool makes one",
        kind="PoolNotFound",
    )


def declared_size(request: Request) -> int | None:
    """Bytes that the body has, as far as its sender says so."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() else None


async def streamed(pieces: AsyncIterator[bytes], media_type: str = "application/octet-stream", **headers: str) -> Any:
    """An answer in pieces. What is raised before the first one becomes an error's answer."""
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(all_pieces(), media_type=media_type, headers=headers)
