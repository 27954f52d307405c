"""The swagger.json of one web service, from which clients in other languages are generated. Pure.

Swagger 2.0 in the shape that Machine Learning Server gave it: login, the call and the batch, operationIds included; the
call's is the service's own. Its generator knew `type` of scalars; what a vector, a matrix or a data frame is in JSON
(docs/reference/calls.md) is said here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from sessionpools.api.v1alpha1 import Parameter, ParameterType, SignatureParameter

__all__ = ["DEFAULT_OPERATION", "service_swagger"]

Json = dict[str, Any]
DEFAULT_OPERATION: Final = "consume"

_ANY_VALUE: Final[Json] = {}
_SCHEMAS: Final[dict[ParameterType, Json]] = {
    ParameterType.NUMERIC: {"type": "number", "format": "double"},
    ParameterType.INTEGER: {"type": "integer"},
    ParameterType.LOGICAL: {"type": "boolean"},
    ParameterType.CHARACTER: {"type": "string"},
    ParameterType.VECTOR: {"type": "array", "items": _ANY_VALUE},
    ParameterType.MATRIX: {"type": "array", "items": {"type": "array", "items": _ANY_VALUE}},
    ParameterType.DATA_FRAME: {"type": "object", "additionalProperties": {"type": "array", "items": _ANY_VALUE}},
    ParameterType.ANY: {},
}
_JSON: Final = ["application/json"]


def service_swagger(
    name: str,
    version: str,
    description: str,
    operation_id: str | None,
    inputs: Sequence[Parameter | SignatureParameter],
    outputs: Sequence[Parameter | SignatureParameter],
) -> Json:
    path = f"/api/{quote(name, safe='')}/{quote(version, safe='')}"
    return {
        "swagger": "2.0",
        "info": {"description": description, "title": name, "version": version},
        "schemes": ["http", "https"],
        "securityDefinitions": {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}},
        "tags": [{"name": name, "description": ""}],
        "consumes": _JSON,
        "produces": _JSON,
        "paths": _login() | {path: {"post": _call(name, operation_id)}} | _batch(path, name),
        "definitions": _definitions(inputs, outputs),
    }


def _login() -> Json:
    answer = {"description": "OK", "schema": _ref("AccessTokenResponse")}
    refused = _error("401 - Invalid password, or invalid or expired refresh token")

    def operation(operation_id: str, summary: str, parameter: Json) -> Json:
        return {
            "operationId": operation_id,
            "summary": summary,
            "parameters": [parameter],
            "tags": ["User"],
            "responses": {"200": answer, "default": refused},
        }

    token = {
        "name": "refreshToken",
        "in": "query",
        "description": "The refresh token to be revoked",
        "required": True,
        "type": "string",
    }
    renew, revoke = "The user renews access token and refresh token", "The user revokes a refresh token"
    return {
        "/login": {"post": operation("login", "Logs the user in", _body("loginRequest", _ref("LoginRequest")))},
        "/login/refreshToken": {
            "post": operation("renewToken", renew, _body("renewTokenRequest", _ref("RenewTokenRequest"))),
            "delete": operation("revokeRefreshToken", revoke, token),
        },
    }


def _call(name: str, operation_id: str | None) -> Json:
    return {
        "security": [{"Bearer": []}],
        "tags": [name],
        "description": f"Consume the {name} web service.",
        "operationId": operation_id or DEFAULT_OPERATION,
        "parameters": [_body("WebServiceParameters", _ref("InputParameters"))],
        "responses": {
            "200": {"description": "OK", "schema": _ref("WebServiceResult")},
            "400": {"description": "Bad Request."},
            "500": {"description": "Internal Server Error."},
            "default": _error("Unexpected error."),
        },
    }


def _batch(path: str, name: str) -> Json:
    execution = _path("executionId", "string", "Execution id of the execution")
    index = _path("index", "integer", "Index of the execution in the batch.")
    file_name = _path("fileName", "string", "Name of the file to be returned.")
    partial = {
        "name": "showPartialResults",
        "in": "query",
        "description": "Returns the results so far even if the execution has not been completed.",
        "required": False,
        "type": "boolean",
    }
    parallel = {
        "name": "parallelCount",
        "in": "query",
        "description": "Number of entries of the batch that are processed at a time. Default value is 10.",
        "required": False,
        "type": "integer",
        "format": "int32",
    }
    strings = {"type": "array", "items": {"type": "string"}}
    entries = {"type": "array", "items": _ref("InputParameters")}

    def operation(operation_id: str, summary: str, parameters: list[Json], code: str, schema: Json) -> Json:
        return {
            "security": [{"Bearer": []}],
            "tags": [name],
            "summary": summary,
            "operationId": operation_id,
            "consumes": _JSON,
            "produces": _JSON,
            "parameters": parameters,
            "responses": {
                code: {"description": "OK" if code == "200" else "Accepted", "schema": schema},
                "default": _error("400 - Bad request \n * 404 - Web service, execution or file not found"),
            },
        }

    start = [_body("BatchWebServiceParameters", entries), parallel]
    one = f"{path}/batch/{{executionId}}"
    begun = _ref("StartBatchExecutionResponse")
    return {
        f"{path}/batch": {
            "post": operation("StartBatchExecution", f"Consume {name} asynchronously.", start, "202", begun),
            "get": operation("GetBatchExecutions", f"Gets all batch executions of {name}.", [], "200", strings),
        },
        one: {
            "get": operation(
                "GetBatchExecutionStatus",
                "Gets the state and results of a batch execution.",
                [execution, partial],
                "200",
                _ref("BatchWebServiceResult"),
            ),
            "delete": operation(
                "CancelAndDeleteBatchExecution",
                "Cancels and deletes a batch execution.",
                [execution],
                "200",
                strings,
            ),
        },
        f"{one}/{{index}}/files": {
            "get": operation(
                "GetBatchExecutionFiles",
                "Gets the names of the files of an execution in the batch.",
                [execution, index],
                "200",
                strings,
            )
        },
        f"{one}/{{index}}/files/{{fileName}}": {
            "get": operation(
                "GetBatchExecutionFile",
                "Gets a file of an execution in the batch.",
                [execution, index, file_name],
                "200",
                {"type": "file"},
            )
        },
    }


def _definitions(
    inputs: Sequence[Parameter | SignatureParameter], outputs: Sequence[Parameter | SignatureParameter]
) -> Json:
    text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    count, flag = {"type": "integer", "format": "int32"}, {"type": "boolean"}
    states = ["pending", "inProgress", "ready", "complete"]
    return {
        "InputParameters": _object(**{each.name: _schema(each) for each in inputs}),
        "OutputParameters": _object(**{each.name: _schema(each) for each in outputs}),
        "Error": _object(code=count, message=text, fields=text, link=text, exceptionType=text),
        "WebServiceResult": _object(
            success=flag,
            errorMessage=text,
            consoleOutput=text,
            changedFiles=texts,
            outputFiles={"type": "object", "additionalProperties": text},
            outputParameters=_ref("OutputParameters"),
        ),
        "StartBatchExecutionResponse": _object(batchExecutionId=text),
        "BatchWebServiceResult": _object(
            state=text | {"enum": states},
            completedItemCount=count,
            totalItemCount=count,
            batchExecutionResults={"type": "array", "items": _ref("WebServiceResult")},
        ),
        "LoginRequest": _object(username=text, password=text),
        "RenewTokenRequest": _object(refreshToken=text),
        "AccessTokenResponse": _object(
            token_type=text, access_token=text, expires_in=count, expires_on=count, refresh_token=text
        ),
    }


def _schema(parameter: Parameter | SignatureParameter) -> Json:
    return _SCHEMAS[parameter.type] | {"description": str(parameter.type)}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _body(name: str, schema: Json) -> Json:
    return {"name": name, "in": "body", "required": True, "schema": schema}


def _path(name: str, type_: str, description: str) -> Json:
    return {"name": name, "in": "path", "description": description, "required": True, "type": type_}


def _error(description: str) -> Json:
    return {"description": description, "schema": _ref("Error")}


def _ref(name: str) -> Json:
    return {"$ref": f"#/definitions/{name}"}
