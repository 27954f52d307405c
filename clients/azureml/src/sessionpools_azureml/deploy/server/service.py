"""A service that can be called: an object whose class and function are made from what the server says of it."""

from __future__ import annotations

import inspect
import json as jsonlib
import keyword
from collections.abc import Callable, Mapping, Sequence
from pprint import pformat
from typing import Any, Final

from sessionpools.client.errors import InputInvalid
from sessionpools.client.wire import path_of
from sessionpools_azureml.common.http_client import HttpClient
from sessionpools_azureml.common.utils import to_camel_case
from sessionpools_azureml.deploy.server.batch import Batch, BatchResponse
from sessionpools_azureml.deploy.server.encoding_type import EncodingType
from sessionpools_azureml.deploy.server.response import ServiceResponse

__all__ = ["Batch", "BatchResponse", "Service", "ServiceResponse"]

_CONSUME: Final = "consume"


class Service:
    """A published web service.

    Its class is named after it (`score` → ScoreService); the function that calls it after its alias, else `consume`,
    with its inputs as parameters, however many there are.
    """

    def __new__(cls, service: Mapping[str, Any], http_client: HttpClient) -> Service:
        alias = service.get("operationId") or ""
        name = alias if alias.isidentifier() and not keyword.iskeyword(alias) else _CONSUME
        body = {name: _consume_function(name, service), "_function": name, "__doc__": cls.__doc__}
        kind = type(to_camel_case(service["name"], prefix="Service") + cls.__name__, (cls,), body)
        return object.__new__(kind)

    _function: str

    def __init__(self, service: Mapping[str, Any], http_client: HttpClient) -> None:
        self._service = dict(service)
        self._http_client = http_client
        self._api = path_of("api", service["name"], service["version"])

    def capabilities(self) -> dict[str, Any]:
        """What the service is, takes and gives, and what can be done with it."""
        service = self._service
        inputs, outputs = _declared(service, "input"), _declared(service, "output")
        consume = f"{self._function}({', '.join(each['name'] for each in inputs)})"
        return {
            "api": self._api,
            "name": service.get("name"),
            "version": service.get("version"),
            "published_by": service.get("versionPublishedBy"),
            "runtime": service.get("runtimeType"),
            "description": service.get("description"),
            "creation_time": service.get("creationTime"),
            "snapshot_id": service.get("snapshotId"),
            "inputs": inputs,
            "outputs": outputs,
            "inputs_encoded": _encoded(inputs),
            "outputs_encoded": _encoded(outputs),
            "artifacts": service.get("outputFileNames"),
            "operation_id": service.get("operationId") or _CONSUME,
            "swagger": f"{self._http_client.host}{self._api}/swagger.json",
            "public-functions": {
                self._function: consume,
                "capabilities": "capabilities()",
                "swagger": "swagger(json=True)",
                "get_batch": "get_batch(execution_id)",
                "list_batch_executions": "list_batch_executions()",
                "batch": "batch(records, parallel_count=10)",
            },
        }

    def swagger(self, json: bool = True) -> Any:
        """Its swagger document: as text, or, without `json`, as dict."""
        text = self._http_client.get(f"{self._api}/swagger.json").text
        return text if json else jsonlib.loads(text)

    def batch(self, records: Any, parallel_count: int = 10) -> Batch:
        """Records to be called with in the background: a data frame, a list of dicts, or a dict of lists.

        `start()` starts them, `parallel_count` at a time. Raises ValueError for records that do not fit the inputs.
        """
        inputs = _declared(self._service, "input")
        if not inputs:
            raise ValueError("Attempt to batch a service with void inputs.")
        return Batch(self, records=_records(records, inputs), parallel_count=parallel_count)

    def get_batch(self, execution_id: str) -> Batch:
        """A batch that was started before."""
        return Batch(self, execution_id=execution_id)

    def list_batch_executions(self) -> list[str]:
        """The ids of the service's batches."""
        found: list[str] = self._http_client.get(f"{self._api}/batch").json()
        return found

    def _consume(self, values: Mapping[str, Any]) -> ServiceResponse:
        body = {}
        for each in _declared(self._service, "input"):
            name, kind = each["name"], each["type"]
            try:
                body[name] = EncodingType.cast_from_python(kind, values[name])
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"Invalid `input` {type(error).__name__}\n{error}\nname: {name} type: {kind}"
                ) from error
        answer = self._http_client.post(self._api, json=body).json()
        return ServiceResponse(self._api, answer, _declared(self._service, "output"))

    def __str__(self) -> str:
        return f"<{type(self).__name__}> \n{pformat(vars(self), indent=4, width=1)}"


def _consume_function(name: str, service: Mapping[str, Any]) -> Callable[..., ServiceResponse]:
    inputs = _declared(service, "input")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(each["name"], kind) for each in inputs]
    signature = inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *parameters])
    taken = inspect.Signature(parameters)

    def consume(self: Service, /, *args: Any, **kwargs: Any) -> ServiceResponse:
        try:
            bound = taken.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{taken}: {error}") from None
        return self._consume(bound.arguments)

    consume.__name__ = name
    consume.__qualname__ = f"Service.{name}"
    consume.__doc__ = _documentation(service, inputs)
    consume.__signature__ = signature  # type: ignore[attr-defined]
    return consume


def _documentation(service: Mapping[str, Any], inputs: Sequence[Mapping[str, str]]) -> str:
    lines = [f"Consume the {service['name']} service.", "", service.get("description") or "", ""]
    lines += [f":param {EncodingType.to_python(each['type'])} {each['name']}: an input" for each in inputs]
    lines.append(":returns ServiceResponse: with the outputs")
    for each in _declared(service, "output"):
        lines.append(f"    {EncodingType.to_python(each['type'])} {each['name']}")
    lines.append(":raises HttpException: the server's answer is an error")
    lines.append(":raises ValueError: an input is not of its type")
    return "\n".join(lines)


def _declared(service: Mapping[str, Any], what: str) -> list[dict[str, str]]:
    return list(service.get(f"{what}ParameterDefinitions") or ())


def _encoded(parameters: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"name": each["name"], "type": EncodingType.to_python(each["type"])} for each in parameters]


def _records(records: Any, inputs: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """As they are sent. Of a data frame or a dict of lists the inputs' columns are taken."""
    if isinstance(records, list):
        known = {each["name"]: each["type"] for each in inputs}
        return [{name: _value(known.get(name, "any"), value) for name, value in each.items()} for each in records]
    columns = {}
    for each in inputs:
        try:
            columns[each["name"]] = list(records[each["name"]])
        except KeyError:
            raise ValueError(f'The records have no column "{each["name"]}", which is an input') from None
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"Record out of bounds, all records must be of the same length: {sorted(lengths)}")
    return [
        {each["name"]: _value(each["type"], columns[each["name"]][row]) for each in inputs}
        for row in range(lengths.pop())
    ]


def _value(kind: str, value: Any) -> Any:
    try:
        return EncodingType.cast_from_python(kind, value)
    except InputInvalid as error:
        raise ValueError(str(error)) from error
