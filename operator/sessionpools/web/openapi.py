"""OpenAPI 3 of the whole: what the routes say, the call that the gateway takes, who needs a token, how errors look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sessionpools.web.edge import is_open

__all__ = ["describe"]

Json = dict[str, Any]
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_ERROR: Final[Json] = {
    "type": "object",
    "required": ["message", "link", "exceptionType"],
    "properties": {
        "message": {"type": "string", "description": "What is wrong, with which field, and what to do."},
        "link": {"type": "string"},
        "exceptionType": {"type": "string", "description": "For programs."},
    },
}
_CALL_ANSWER: Final[Json] = {
    "type": "object",
    "required": ["success", "errorMessage", "outputParameters", "consoleOutput", "changedFiles", "outputFiles"],
    "properties": {
        "success": {"type": "boolean"},
        "errorMessage": {"type": "string"},
        "outputParameters": {"type": "object"},
        "consoleOutput": {"type": "string"},
        "changedFiles": {"type": "array", "items": {"type": "string"}},
        "outputFiles": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        # As in an error's body: where the gateway has answered, no session.
        **_ERROR["properties"],
    },
}


def describe(app: FastAPI) -> Json:
    """The document; made once, then kept."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        for path, operation in _operations(document):
            _with_errors(operation)
            operation["security"] = [] if is_open(path) else [{"Bearer": []}]
        document["paths"]["/api/{name}/{version}"] = {"post": _call()}
        components = document["components"]
        components["securitySchemes"] = {
            "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Of POST /login."}
        }
        schemas = components["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas |= {"Error": _ERROR, "CallAnswer": _CALL_ANSWER}
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, item[method]


def _with_errors(operation: Json) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for code in [code for code in responses if not code.startswith("2")]:  # of operations that are not offered
        responses.pop(code)
    responses["default"] = {
        "description": "Not a success.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _call() -> Json:
    """The gateway's part (docs/reference/calls.md)."""
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/CallAnswer"}}}}
    return {
        "tags": ["Consume"],
        "operationId": "consume",
        "summary": "Call a service",
        "description": "The gateway gives the call a free session of the service's pool, or queues it.",
        "security": [{"Bearer": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("name", "version")
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "description": "Inputs by name."}}},
        },
        "responses": {
            "200": {"description": "The code ran; `success` says whether it raised."} | answer,
            "default": {"description": "It did not run, or not to its end."} | answer,
        },
    }
