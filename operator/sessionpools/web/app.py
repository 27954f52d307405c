"""The application: routes, errors, description and docs page, around the parts that they work with.

`create_app` makes it for parts that run already (or will): it starts nothing itself, so that tests and `__main__` wire
it alike.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sessionpools.kube.protocol import KubeError
from sessionpools.web.auth.errors import AuthError
from sessionpools.web.edge import Edge
from sessionpools.web.errors import Problem, answer, problem_of
from sessionpools.web.metrics import Metrics
from sessionpools.web.openapi import describe
from sessionpools.web.parts import Parts
from sessionpools.web.routes import (
    batches,
    computenodes,
    files,
    login,
    logs,
    pools,
    realtime,
    services,
    sessions,
    snapshots,
    status,
    swagger,
    workspace,
)
from sessionpools.web.store.errors import StoreError

__all__ = ["create_app"]

VERSION: Final = "9.3.0"  # of the API that is spoken
DESCRIPTION: Final = (
    "Machine Learning Server's REST API on Kubernetes: publish Python code, keep sessions of it warm on every compute "
    "node, call it. Every answer that is not a success has `message`, `link` and `exceptionType`. Keys of bodies are "
    "read in any casing."
)
_ROUTERS: Final = (
    login.router,
    services.router,
    pools.router,
    logs.router,
    sessions.router,
    workspace.router,
    files.router,
    snapshots.router,
    swagger.router,
    batches.router,
    status.router,
    computenodes.router,
    realtime.router,
)
_EXPECTED: Final = (Problem, RequestValidationError, HTTPException, AuthError, StoreError, KubeError)


def create_app(parts: Parts, metrics: Metrics | None = None) -> FastAPI:
    app: FastAPI = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/static",  # below a path that the gateway passes on
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
        title="Session Pools",
        version=VERSION,
        description=DESCRIPTION,
        redirect_slashes=False,
        strict_content_type=False,  # old clients send JSON under other types, or none
    )
    app.state.parts = parts
    for router in _ROUTERS:
        app.include_router(router)
    for kind in _EXPECTED:
        app.add_exception_handler(kind, _expected)
    app.add_middleware(Edge, parts=parts, metrics=metrics or Metrics())

    def openapi() -> dict[str, Any]:
        return describe(app)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


async def _expected(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request)
    if problem is None:
        raise error
    return answer(problem)
