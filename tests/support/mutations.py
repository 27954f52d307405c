"""Values for every field of both kinds, and what changes with a field so that the object stays one that is accepted.

Integers get their bounds, enumerations each of their values, booleans the other one, all read from the schema of the
CRDs. What the schema alone does not say (strings with rules, the parts of pods) is given here by hand, and
`LEFT_OUT` names with a reason what has no value. tests/sim/test_spec_mutation.py proves that no field is forgotten.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.api import crds
from sessionpools.api.schema import INT_OR_STRING, JsonSchema
from sessionpools.api.v1alpha1 import SessionPool, WebService
from support.kinds import Object, pool, service

MANY: Final = 10  # sessions in pods of their own; more of them are one Process pod

LEFT_OUT: Final = {
    "SessionPool.serviceName": "is immutable",
    "SessionPool.serviceVersion": "is immutable",
    "SessionPool.image": "is for the generic pool, which does not work yet",
    "WebService.name": "is immutable",
    "WebService.version": "is immutable",
}

# What a pod keeps until it is replaced, as these fields are no part of the revision.
KEPT: Final[Mapping[str, str]] = {
    "SessionPool.drainTimeoutSeconds": "terminationGracePeriodSeconds",  # each deletion says how long it may take
    "SessionPool.requestTimeoutSeconds": "terminationGracePeriodSeconds",  # as above: both change together
    "SessionPool.placement.tolerations": "tolerations",
    "SessionPool.placement.priorityClassName": "priorityClassName",
}


@dataclass(frozen=True)
class Mutation:
    """A pool and its web service that differ from the plain ones by one field, and by what has to go with it."""

    field: str
    value: Any
    pool: Object  # spec
    service: Object  # spec

    def __str__(self) -> str:
        return f"{self.field} = {str(self.value)[:60]}"


def base() -> tuple[Object, Object]:
    """The specs of the pool and the web service that mutations begin with."""
    return pool(initialPoolSize=1, maxPoolSize=2)["spec"], service()["spec"]


def mutations() -> list[Mutation]:
    made = []
    for kind in crds.KINDS:
        fields = crds.open_api(kind)["properties"]["spec"]
        given = _GIVEN[kind.__name__]
        for path, schema in leaves(fields):
            field = f"{kind.__name__}.{path}"
            if field not in LEFT_OUT and not any(path == p or path.startswith((f"{p}.", f"{p}[")) for p in given):
                made += [_mutation(field, value) for value in of_schema(schema, _at(path, base_of(kind)))]
        made += [_mutation(f"{kind.__name__}.{path}", value) for path, values in given.items() for value in values]
    return made


def leaves(schema: JsonSchema, path: str = "") -> Iterator[tuple[str, JsonSchema]]:
    """Every field of a spec that holds a value itself, with its path: `[]` is any item, `*` any key."""
    if "properties" in schema:
        for name, field in schema["properties"].items():
            yield from leaves(field, f"{path}.{name}" if path else name)
    elif "items" in schema:
        yield from leaves(schema["items"], f"{path}[]")
    elif "additionalProperties" in schema:
        yield from leaves(schema["additionalProperties"], f"{path}.*")
    else:
        yield path, schema


def touched(value: Any, schema: JsonSchema, path: str) -> Iterator[str]:
    """The leaves that a value has, by their paths."""
    if "properties" in schema:
        for name, inner in value.items():
            yield from touched(inner, schema["properties"][name], f"{path}.{name}")
    elif "items" in schema:
        for inner in value:
            yield from touched(inner, schema["items"], f"{path}[]")
    elif "additionalProperties" in schema:
        for inner in value.values():
            yield from touched(inner, schema["additionalProperties"], f"{path}.*")
    else:
        yield path


def of_schema(schema: JsonSchema, now: Any) -> list[Any]:
    """Values that the schema itself names, but for the one that is there; none for what it does not."""
    if "enum" in schema:
        values = list(schema["enum"])
    elif schema.get("type") == "boolean":
        values = [True, False]
    elif schema.get("type") == "integer" and INT_OR_STRING not in schema:
        values = [schema["minimum"], schema["minimum"] + 1, schema["maximum"]]
    else:
        values = []
    return [value for value in values if value != (schema.get("default") if now is None else now)]


def base_of(kind: type[SessionPool | WebService]) -> Object:
    return base()[0 if kind is SessionPool else 1]


def schema_at(schema: JsonSchema, path: str) -> JsonSchema:
    for part in path.split("."):
        schema = schema["properties"][part]
    return schema


def _at(path: str, spec: Object) -> Any:
    for part in path.split("."):
        spec = spec.get(part, {})
    return None if spec == {} else spec


def _mutation(field: str, value: Any) -> Mutation:
    specs = dict(zip(("SessionPool", "WebService"), copy.deepcopy(base()), strict=True))
    kind, _, path = field.partition(".")
    for where, what in {path: value, **_WITH.get(field, lambda _: {})(value)}.items():
        _set(specs[kind], where.split("."), what)
    return Mutation(field, value, specs["SessionPool"], specs["WebService"])


def _set(spec: Object, path: list[str], value: Any) -> None:
    """None takes the field out."""
    for part in path[:-1]:
        spec = spec.setdefault(part, {})
    spec[path[-1]] = value
    if value is None:
        del spec[path[-1]]


# What has to change with a field, by the rules between fields, or to keep the simulation small.
_WITH: Final[Mapping[str, Callable[[Any], Object]]] = {
    "SessionPool.initialPoolSize": lambda n: {
        "maxPoolSize": max(n, 2), **({"isolation": "Process"} if n > MANY else {}),
    },
    "SessionPool.maxPoolSize": lambda n: {"initialPoolSize": min(n, 1)},
    "SessionPool.requestTimeoutSeconds": lambda n: {"drainTimeoutSeconds": max(n, 60)},
    "SessionPool.drainTimeoutSeconds": lambda n: {"requestTimeoutSeconds": min(n, 60)},
    "SessionPool.update.maxSurge": lambda n: {"update.maxUnavailable": 0 if n else 1},
    "WebService.script": lambda _: {"entrypoint": None, "code.inline": {"main.py": "y = 1", "service.py": ""}},
    "WebService.code.configMap": lambda _: {"code.inline": None},
    "WebService.code.bundle": lambda _: {"code.inline": None},
    "WebService.code.imagePath": lambda _: {"code.inline": None},
    "WebService.volumeMounts": lambda _: {"volumes": [{"name": "models", "emptyDir": {}}]},
}  # fmt: skip

_KEY: Final = {"name": "settings", "key": "token", "optional": True}
_ITEMS: Final = [{"key": "token", "path": "token.txt", "mode": 0o400}]
_OF_POD: Final = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}
_OF_CONTAINER: Final = {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}
_DOWNWARD: Final = {
    "items": [{"path": "name", "mode": 0o444, **_OF_POD}, {"path": "cpu", **_OF_CONTAINER}]
}  # fmt: skip
_FILES: Final = {"name": "settings", "items": _ITEMS, "optional": True}
_TYPES: Final = ("numeric", "integer", "logical", "character", "vector", "matrix", "data.frame")

_GIVEN: Final[Mapping[str, Mapping[str, list[Any]]]] = {
    "SessionPool": {
        "placement.nodeSelector": [{"disk": "ssd"}, {"disk": "none"}, {"disk": ""}],
        "placement.tolerations": [
            [{"key": "gpu", "operator": "Exists"}],
            [{"operator": "Exists", "effect": "NoSchedule"}],
            [{"operator": "Exists", "effect": "NoExecute"}],
            [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute"}],
            [{"key": "gpu", "operator": "Equal", "value": "no", "effect": "PreferNoSchedule"}],
            [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        ],
        "placement.priorityClassName": ["high"],
    },
    "WebService": {
        "description": ["For people."],
        "image": ["registry.example/sessions:2"],
        "code.inline": [{"service.py": "y = 2"}, {"service.py": "", "lib/model.py": "z = 3"}],
        "code.configMap": [{"name": "code"}],
        "code.bundle": [{"url": "https://host/b.tar.gz", "sha256": "a" * 64}],
        "code.imagePath": ["/app"],
        "entrypoint": ["service:other"],
        "script": ["main.py"],
        "init": ["service:load"],
        "modules": [["numpy"], ["numpy", "sklearn.svm"]],
        "warmup": [{}, {"bmi": 0.06}],
        "inputs": [[], [{"name": f"x{n}", "type": type_} for n, type_ in enumerate(_TYPES)]],
        "outputs": [[], [{"name": "y", "type": "numeric"}]],
        "outputFiles": [["plots/plot.png"]],
        "env": [
            [{"name": "MODEL", "value": "small"}],
            [{"name": "MODEL", "valueFrom": {"configMapKeyRef": _KEY}}],
            [{"name": "MODEL", "valueFrom": {"secretKeyRef": _KEY}}],
            [{"name": "NAME", "valueFrom": _OF_POD}, {"name": "CPU", "valueFrom": _OF_CONTAINER}],
        ],
        "envFrom": [
            [{"prefix": "A_", "configMapRef": {"name": "settings", "optional": True}}],
            [{"secretRef": {"name": "keys", "optional": True}}],
        ],
        "volumes": [
            [{"name": "v", "configMap": {**_FILES, "defaultMode": 0o440}}],
            [{"name": "v", "secret": {"secretName": "keys", "items": _ITEMS, "defaultMode": 0o400, "optional": True}}],
            [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
            [{"name": "v", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}],
            [{"name": "v", "downwardAPI": {**_DOWNWARD, "defaultMode": 0o444}}],
            [{"name": "v", "projected": {"defaultMode": 0o444, "sources": [
                {"configMap": _FILES}, {"secret": _FILES}, {"downwardAPI": _DOWNWARD}]}}],
        ],
        "volumeMounts": [[{"name": "models", "mountPath": "/models", "subPath": "v1", "readOnly": True}]],
        "imagePullSecrets": [[{"name": "registry"}]],
        "serviceAccountName": ["scorer"],
        "resources": [
            {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "1Gi"}},
            {"limits": {"nvidia.com/gpu": 1}},
        ],
    },
}  # fmt: skip
