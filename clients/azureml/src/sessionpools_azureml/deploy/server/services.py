"""Publishing, updating and listing, as requests."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import requests
from urllib3.filepost import encode_multipart_formdata

from sessionpools.client.wire import Repeat, path_of
from sessionpools_azureml.common.http_client import HttpClient
from sessionpools_azureml.common.utils import function_args, to_self_execution_block
from sessionpools_azureml.deploy.server.encoding_type import EncodingType

__all__ = ["WebServiceService"]

_SERIALIZED: Final = b"blob"  # how what rx_serialize_model makes begins


class WebServiceService:
    """The requests that make up what MLServer offers."""

    def __init__(self, http_client: HttpClient) -> None:
        self._http = http_client

    # --- services

    def create_service(self, name: str, **kwargs: Any) -> Any:
        """Publish. Raises ValueError, before anything is sent, and HttpException."""
        return self._publish("POST", name, kwargs)

    def update_service(self, name: str, **kwargs: Any) -> Any:
        """Change what is given; without a version, of the last one. Raises ValueError when there is none."""
        if kwargs.get("version") is None:
            latest = self.get_latest_service(name)
            if not latest:
                raise ValueError(f"there is no service {name} to update; names are case-sensitive")
            kwargs["version"] = latest["version"]
        return self._publish("PATCH", name, kwargs)

    def delete_service(self, name: str, version: str) -> requests.Response:
        return self._http.delete(path_of("services", name, version))

    def get_all_services(self) -> list[dict[str, Any]]:
        return _listed(self._http.get("/services").json())

    def get_service_versions(self, name: str) -> list[dict[str, Any]]:
        return _listed(self._http.get(path_of("services", name)).json())

    def get_service(self, name: str, version: str, *, fresh: bool = False) -> dict[str, Any]:
        """One version; empty when the server lists none. `fresh`: it was just published."""
        found = _listed(self._http.get(path_of("services", name, version), fresh=fresh).json())
        return found[0] if found else {}

    def get_latest_service(self, name: str) -> dict[str, Any]:
        """The last of the list; empty when the server lists none."""
        found = self.get_service_versions(name)
        return found[-1] if found else {}

    # --- pools

    def create_pool(self, name: str, version: str, initial: int, maximum: int) -> requests.Response:
        body = {"initialPoolSize": initial, "maxPoolSize": maximum}
        return self._http.post(_pool(name, version), json=body, repeat=Repeat.IDEMPOTENT)

    def pool_status(self, name: str, version: str) -> Any:
        return self._http.get(_pool(name, version)).json()

    def delete_pool(self, name: str, version: str) -> requests.Response:
        return self._http.delete(_pool(name, version))

    # --- realtime services: Session Pools has none, and its answer says what to do instead

    def create_realtime(self, name: str, **kwargs: Any) -> Any:
        self._check_realtime(kwargs, "deployment of realtime_service")
        return self._send_model("POST", name, kwargs)

    def update_realtime_service(self, name: str, **kwargs: Any) -> Any:
        self._check_realtime(kwargs, "redeployment of realtime_service")
        if kwargs.get("version") is None:
            raise ValueError("Missing the required parameter `version` when calling `update_realtime_service`")
        return self._send_model("PATCH", name, kwargs)

    def _check_realtime(self, opts: Mapping[str, Any], what: str) -> None:
        model = opts.get("serialized_model")
        if model is None or len(model) == 0:
            raise ValueError(f"The serialized_model parameter can't be None for {what}")
        if not self._check_serialized_model(model):
            raise ValueError(
                "Realtime serialized_model must be serialized by 'rx_serialize_model' function in RevoScalePy Package"
            )

    def _check_serialized_model(self, model: Any) -> bool:
        return isinstance(model, bytes) and model[:4] == _SERIALIZED

    def _send_model(self, method: str, name: str, opts: Mapping[str, Any]) -> Any:
        fields: dict[str, Any] = {"model": ("model", opts["serialized_model"], "application/octet-stream")}
        for field, key in (("description", "description"), ("alias", "operationId")):
            if opts.get(field) is not None:
                fields[key] = str(opts[field])
        body, content_type = encode_multipart_formdata(fields)
        segments = [name, opts["version"]] if opts.get("version") is not None else [name]
        return _content(
            self._http.request(method, path_of("realtime-services", *segments), data=body, content_type=content_type)
        )

    # --- publishing

    def _publish(self, method: str, name: str, opts: dict[str, Any]) -> Any:
        body = _publication(opts, whole=method == "POST")
        segments = [name, opts["version"]] if opts.get("version") is not None else [name]
        with self._snapshot({**(opts.get("models") or {}), **(opts.get("objects") or {})}) as snapshot:
            if snapshot:
                body["snapshotId"] = snapshot
            answer = self._http.request(
                method,
                path_of("services", *segments),
                json=body,
                params={"force": "true"} if opts.get("force") else None,
            )
        return _content(answer)

    @contextmanager
    def _snapshot(self, objects: Mapping[str, Any]) -> Iterator[str]:
        """The id of a snapshot of these objects, for as long as it takes to publish; without objects none is made."""
        if not objects:
            yield ""
            return
        serialized = {name: _serialized(name, value) for name, value in objects.items()}
        session = self._http.post("/sessions", json={"runtimeType": "Python"}).json()["sessionId"]
        try:
            for name, content in serialized.items():
                self._http.post(
                    path_of("sessions", session, "workspace", name),
                    data=content,
                    content_type="application/octet-stream",
                    repeat=Repeat.IDEMPOTENT,
                )
            snapshot = self._http.post(path_of("sessions", session, "snapshot"), json={}).json()["snapshotId"]
            try:
                yield snapshot
            finally:
                self._http.delete(path_of("snapshots", snapshot))
        finally:
            self._http.delete(path_of("sessions", session))


def _publication(opts: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """The body: with `whole` of a new service, else of what is given alone. Raises ValueError, naming the field."""
    inputs, outputs = _types("input", opts.get("inputs")), _types("output", opts.get("outputs"))
    code, init, alias = opts.get("code_str"), opts.get("init_str"), opts.get("alias")
    function: Callable[..., Any] | None = opts.get("code_fn")
    if code is None and function is not None:
        if opts.get("init_fn") is not None:
            init = to_self_execution_block(opts["init_fn"])
        alias = alias or function.__name__
        code = to_self_execution_block(function, list(outputs or ()))
        inputs = _in_order(function, inputs, whole)
    if whole and code is None:
        raise ValueError("there is no code: give code_fn or code_str")
    body = {
        "code": code,
        "initCode": init,
        "description": opts.get("description"),
        "operationId": alias,
        "inputParameterDefinitions": _definitions(inputs, whole),
        "outputParameterDefinitions": _definitions(outputs, whole),
        "outputFileNames": _names(opts.get("artifacts"), whole),
        "runtimeType": "Python",
    }
    return {field: value for field, value in body.items() if value is not None}


def _types(what: str, declared: Mapping[str, Any] | None) -> dict[str, str] | None:
    if declared is None:
        return None
    found = {}
    for name, kind in declared.items():
        known = EncodingType.from_python(kind)
        if known is None:
            raise ValueError(f'Invalid `encoding` type "{kind}" for {what} "{name}": use {", ".join(_KNOWN)}')
        found[name] = known
    return found


_KNOWN: Final = ("int", "float", "str", "bool", "numpy.array", "numpy.matrix", "pandas.DataFrame")


def _in_order(function: Callable[..., Any], inputs: dict[str, str] | None, whole: bool) -> dict[str, str] | None:
    """The inputs in the order of the function's parameters."""
    if inputs is None and not whole:
        return None
    names, declared = function_args(function), inputs or {}
    for name in names:
        if name not in declared:
            raise ValueError(f"Input {name} not declared: {function.__name__} takes it, so inputs has to say its type")
    for name in declared:
        if name not in names:
            raise ValueError(
                f"Input {name} not a code argument: {function.__name__} takes {', '.join(names) or 'none'}"
            )
    return {name: declared[name] for name in names}


def _definitions(types: Mapping[str, str] | None, whole: bool) -> list[dict[str, str]] | None:
    if types is None and not whole:
        return None
    return [{"name": name, "type": kind} for name, kind in (types or {}).items()]


def _names(artifacts: Sequence[str] | None, whole: bool) -> list[str] | None:
    if artifacts is None and not whole:
        return None
    return list(artifacts or ())


def _serialized(name: str, value: Any) -> bytes:
    dill = importlib.import_module("dill")
    try:
        content: bytes = dill.dumps(value)
    except Exception as error:  # whatever a value's own code raises
        raise ValueError(
            f"Error serializing {name}: {type(value).__name__}: {type(error).__name__}: {error}"
        ) from error
    return content


def _content(answer: requests.Response) -> Any:
    """The JSON of an answer, or the answer itself where it has none."""
    try:
        return answer.json()
    except ValueError:
        return answer


def _listed(body: Any) -> list[dict[str, Any]]:
    return body if isinstance(body, list) else [body]


def _pool(name: str, version: str) -> str:
    return path_of("services", name, version, "pool")
