"""Objects of the kinds for tests of their rules: accepted ones, with the fields changed that a test is about."""

import copy
from typing import Any

Object = dict[str, Any]
API_VERSION = "sessionpools.dev/v1alpha1"
LONG_NAME = "n" * 64


def pool(object_name: str = "score", /, **spec: Any) -> Object:
    """A pool that is accepted, with some fields of its spec changed; None takes a field out."""
    fields = {"serviceName": "Score", "serviceVersion": "v1", "initialPoolSize": 0, "maxPoolSize": 2}
    return _object("SessionPool", object_name, fields | spec)


def generic_pool(**spec: Any) -> Object:
    """The same for the generic pool."""
    return pool("generic", **{"serviceName": None, "serviceVersion": None} | spec)


def service(object_name: str = "score", /, **spec: Any) -> Object:
    """A web service that is accepted, with some fields of its spec changed; None takes a field out."""
    code = {"inline": {"service.py": "def predict(bmi: float) -> float:\n    return bmi\n"}}
    fields = {"name": "Score", "version": "v1", "code": code, "entrypoint": "service:predict"}
    return _object("WebService", object_name, fields | spec)


def _object(kind: str, name: str, spec: Object) -> Object:
    given = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(given)}


def with_toleration(**toleration: Any) -> Object:
    return pool(placement={"tolerations": [toleration]})


def with_code(**code: Any) -> Object:
    return service(code=code)


def with_variable(**variable: Any) -> Object:
    return service(env=[{"name": "MODEL"} | variable])


def with_volume(**volume: Any) -> Object:
    return service(volumes=[{"name": "models"} | volume])


def with_mount(path: str, **mount: Any) -> Object:
    return service(
        volumes=[{"name": "models", "emptyDir": {}}], volumeMounts=[{"name": "models", "mountPath": path} | mount]
    )


def with_projected(**source: Any) -> Object:
    return with_volume(projected={"sources": [source]})
