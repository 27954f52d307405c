"""Every answer that is not a success, as Machine Learning Server's clients read it: `{message, link, exceptionType}`.

    Problem                 any of these; `status` is the answer's
    ├── BadRequest     400  a field or parameter is wrong; the message names it and what would be right
    ├── Forbidden      403  not for who asks, or the service exists already
    ├── Missing        404  there is no such thing
    ├── NotAllowed     405  not this method
    ├── Clash          409  it changed meanwhile, or somebody else manages it
    ├── TooLarge       413  a body above its limit
    ├── Unsupported    501  Machine Learning Server does it, this does not: the message says what to do instead
    └── Unavailable    503  the API server or the artifact store is away: later

What auth, store, batch and kube raise is turned into these by `problem_of`; anything else is a bug, and is 500 with the
id under which the log has it. A traceback is never shown.
"""

# ruff: noqa: N818  (errors are named after the answers that they become)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from sessionpools.kube import protocol as kube
from sessionpools.web.auth import errors as auth
from sessionpools.web.store import errors as store

__all__ = [
    "BadRequest",
    "Clash",
    "Forbidden",
    "Missing",
    "NotAllowed",
    "Problem",
    "TooLarge",
    "Unavailable",
    "Unsupported",
    "answer",
    "invalid_request",
    "problem_of",
    "storable",
]

LINK: Final = "/docs"
RETRY_SECONDS: Final = "5"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Problem(Exception):
    """An answer that is not a success."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, headers: Mapping[str, str] = _NO_HEADERS, kind: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers
        self.kind = kind or type(self).__name__


class BadRequest(Problem):
    status = 400


class Forbidden(Problem):
    status = 403


class Missing(Problem):
    status = 404


class NotAllowed(Problem):
    status = 405


class Clash(Problem):
    status = 409


class TooLarge(Problem):
    status = 413


class Unsupported(Problem):
    status = 501


class Unavailable(Problem):
    status = 503

    def __init__(self, message: str, headers: Mapping[str, str] = _NO_HEADERS, kind: str = "") -> None:
        super().__init__(message, {"Retry-After": RETRY_SECONDS, **headers}, kind)


class _Other(Problem):
    """An answer of any status."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str], kind: str) -> None:
        super().__init__(message, headers, kind)
        self.code = status


def storable(what: str, value: Any) -> Any:
    """The value, if it can be kept as JSON. Raises BadRequest: what JSON can say is more than what we can write."""
    try:
        orjson.dumps(value)
    except TypeError as error:  # a lone surrogate, an integer beyond 64 bits, too many levels
        raise BadRequest(f"{what}: can not be kept as it is: {error}") from None
    return value


def answer(problem: Problem) -> Response:
    code = problem.code if isinstance(problem, _Other) else problem.status
    # What a caller has sent may stand in it, and may be no text.
    message = problem.message.encode("utf-8", "replace").decode()
    body = {"message": message, "link": LINK, "exceptionType": problem.kind}
    return JSONResponse(body, code, dict(problem.headers))


def problem_of(error: Exception, request: Request) -> Problem | None:
    """The answer that an exception of any part is; None for one that nobody foresaw."""
    kind = type(error).__name__
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return invalid_request(error.errors())
        case HTTPException():
            return _of_http(error, request)
        case auth.AuthError():
            return _Other(error.status, str(error), _auth_headers(error), kind)
        case store.StoreError():
            return _of_store(error, kind)
        case kube.KubeError():
            return _of_kube(error, kind)
    return None


def invalid_request(errors: Sequence[Any]) -> Problem:
    """What pydantic found, in one sentence for each field: `body.initialPoolSize: Input should be ...`."""
    found = []
    for each in errors:
        place = ".".join(str(part) for part in each.get("loc", ()))
        message = str(each.get("msg", "is wrong")).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        found.append(f"{place}: {message}" if place else message)
    return BadRequest("; ".join(dict.fromkeys(found)), kind="InvalidRequest")


def _of_http(error: HTTPException, request: Request) -> Problem:
    """What the framework found by itself: an unknown path, a method that a path has not, a body that can't be read."""
    headers = dict(error.headers or {})
    path = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return Missing(f"there is no {path}: /openapi.json lists what there is", headers, "PathNotFound")
    if error.status_code == 405:
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
        return NotAllowed(f"{path} is not offered: use {headers['Allow']}", headers)
    return _Other(error.status_code, str(error.detail), headers, "HttpError")


def _allowed(request: Request) -> str:
    """All methods of the path; the framework names those of the first of its routes."""
    found = set[str]()
    for path, operations in request.app.openapi()["paths"].items():
        if compile_path(path)[0].fullmatch(request.url.path):
            found |= {method.upper() for method in operations}
    return ", ".join(sorted(found))


def _auth_headers(error: auth.AuthError) -> dict[str, str]:
    if isinstance(error, auth.TooManyAttempts):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, auth.TokenError):
        return {"WWW-Authenticate": 'Bearer realm="session-pools", error="invalid_token"'}
    if error.status == 503:
        return {"Retry-After": RETRY_SECONDS}
    return {}


def _of_store(error: store.StoreError, kind: str) -> Problem:
    message = str(error)
    match error:
        case store.StoreUnavailable():
            return Unavailable(message, kind=kind)
        case store.NotFound():
            return Missing(message, kind=kind)
        case store.Changed():
            return Clash(message, kind=kind)
        case store.TooLarge():
            return TooLarge(message, kind=kind)
        case store.TooMany():
            return _Other(429, message, {"Retry-After": RETRY_SECONDS}, kind)
    return BadRequest(message, kind=kind)


def _of_kube(error: kube.KubeError, kind: str) -> Problem:
    match error:
        case kube.Invalid():
            return BadRequest(error.message, kind="InvalidObject")
        case kube.Conflict():
            return Clash(f"{error.message}: read it and try again", kind="Changed")
        case kube.Forbidden():  # a quota, an admission plugin, or a right that the chart did not give
            return Forbidden(f"Kubernetes refuses it: {error.message}", kind="KubernetesForbidden")
        case kube.NotFound():
            return Missing(error.message, kind="ObjectNotFound")
    return Unavailable(f"the Kubernetes API server can not be asked now: {error}", kind="KubernetesUnavailable")
