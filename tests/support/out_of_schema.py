"""Values that the schema of the CRDs refuses: for every field of both specs one beyond each of its bounds, of another
type, not among those that are named, and left out where it is required. Made of the schema itself, so that no field and
no bound can be forgotten; tests/unit/api/test_out_of_schema.py proves that each is refused, and for that one reason.

A value is put into an object that is accepted otherwise: one of support.mutations, which has every field.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.api import crds
from sessionpools.api.schema import INT_OR_STRING, PRESERVE, JsonSchema
from support import mutations
from support.kinds import Object, generic_pool, pool, service, with_code
from support.refusal import Refusal

# Says what something is, and bounds nothing.
_NO_BOUNDS: Final = frozenset(
    {
        *("description", "default", "format", "properties", "items", "additionalProperties", "anyOf", "nullable"),
        *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", PRESERVE),
    }
)
_OF_ANOTHER_TYPE: Final[Mapping[str, Any]] = {
    "integer": "1", "boolean": "yes", "string": 1, "array": "one", "object": "one",
}  # fmt: skip
_UNLIKE_ANY_PATTERN: Final = "/"
_DIGEST: Final = "0" * 64


@dataclass(frozen=True)
class OutOfSchema:
    """`field` as in support.mutations, with its kind; `keyword` of the schema, that the value is not as."""

    field: str
    keyword: str
    refusal: Refusal


@dataclass(frozen=True)
class _Spot:
    """Where an object has a value of a field: the object, and the way there (names of fields, indices of items)."""

    object: Object
    way: tuple[str | int, ...]

    @property
    def path(self) -> str:
        """As the API server writes it."""
        return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.way)

    @property
    def value(self) -> Any:
        inside: Any = self.object["spec"]
        for part in self.way:
            inside = inside[part]
        return inside

    def holds(self, bad: Any) -> Object:
        """The object with another value there; with `_LEFT_OUT` without the field."""
        made = copy.deepcopy(self.object)
        inside: Any = made["spec"]
        for part in self.way[:-1]:
            inside = inside[part]
        if bad is _LEFT_OUT:
            del inside[self.way[-1]]
        else:
            inside[self.way[-1]] = bad
        return made


_LEFT_OUT: Final = object()


def out_of_schema() -> list[OutOfSchema]:
    found: list[OutOfSchema] = []
    for kind in crds.KINDS:
        schema = crds.open_api(kind)["properties"]["spec"]
        spots: dict[str, _Spot] = {}
        for thing in _objects(kind.__name__):
            for path, way in _spots(thing["spec"], schema):
                if path not in spots or not spots[path].value:  # of an empty list there is no item to have more of
                    spots[path] = _Spot(thing, way)
        for path, field in fields(schema):
            if path:
                found += _of_field(f"{kind.__name__}.{path}", field, spots[path])
            found += [_left_out(kind.__name__, path, name, spots) for name in field.get("required", [])]
    return found


def fields(schema: JsonSchema, path: str = "") -> Iterator[tuple[str, JsonSchema]]:
    """Every field, those that hold others included, with its path; `[]` is any item, `*` any key."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from fields(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{path}.*")


def bounds(schema: JsonSchema) -> list[str]:
    """The keywords by which the schema of one field refuses a value, but for `required`."""
    found = [keyword for keyword in schema if keyword not in _NO_BOUNDS and keyword != "required"]
    return ["type" if keyword == INT_OR_STRING else keyword for keyword in found]


def _objects(kind: str) -> Iterator[Object]:
    """That are accepted, and have every field of the kind among them."""
    yield pool() if kind == "SessionPool" else service()
    for mutation in mutations.mutations():
        if mutation.field.startswith(kind):
            spec = mutation.pool if kind == "SessionPool" else mutation.service
            yield (pool() if kind == "SessionPool" else service()) | {"spec": spec}
    if kind == "SessionPool":
        yield generic_pool(image="registry.example/sessions:2")
    else:
        yield with_code(bundle={"url": "https://host/bundle.tar.gz", "sha256": _DIGEST})


def _spots(
    value: Any, schema: JsonSchema, path: str = "", way: tuple[str | int, ...] = ()
) -> Iterator[tuple[str, Any]]:
    yield path, way
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in schema.get("properties", {}):
                yield from _spots(inner, schema["properties"][name], f"{path}.{name}" if path else name, (*way, name))
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from _spots(inner, schema["additionalProperties"], f"{path}.*", (*way, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _spots(inner, schema["items"], f"{path}[]", (*way, index))


def _of_field(field: str, schema: JsonSchema, spot: _Spot) -> Iterator[OutOfSchema]:
    for keyword in bounds(schema):
        bad = _bad(keyword, schema, spot)
        yield OutOfSchema(
            field, keyword, Refusal(_id(field, keyword), spot.holds(bad), _says(spot, keyword, schema, bad))
        )


def _left_out(kind: str, path: str, name: str, spots: Mapping[str, _Spot]) -> OutOfSchema:
    spot = spots[f"{path}.{name}" if path else name]
    field = f"{kind}.{path}.{name}" if path else f"{kind}.{name}"
    return OutOfSchema(
        field, "required", Refusal(_id(field, "required"), spot.holds(_LEFT_OUT), f"{spot.path}: Required value")
    )


def _bad(keyword: str, schema: JsonSchema, spot: _Spot) -> Any:
    bound: Any = schema.get(keyword)
    match keyword:
        case "type":
            return True if INT_OR_STRING in schema else _OF_ANOTHER_TYPE[schema["type"]]
        case "minimum":
            return bound - 1
        case "maximum":
            return bound + 1
        case "minLength":
            return "x" * (bound - 1)
        case "maxLength":
            return "x" * (bound + 1)
        case "maxItems":
            return [_item(spot, number) for number in range(bound + 1)]
        case "minProperties":
            return {}
        case "maxProperties":
            one = next(iter(spot.value.values()))
            return {f"n{number}": one for number in range(bound + 1)}
        case "pattern":
            return _UNLIKE_ANY_PATTERN
        case "enum":
            return "Else"
    raise AssertionError(f"{spot.path}: there is no value yet that is not as {keyword!r} says")


def _item(spot: _Spot, number: int) -> Any:
    """One more item of the list, which is told apart from the others where it has a name."""
    first = copy.deepcopy(spot.value[0])
    for key in ("name", "mountPath"):
        if isinstance(first, dict) and key in first:
            first[key] = f"{first[key]}{number}"
    return first


def _says(spot: _Spot, keyword: str, schema: JsonSchema, bad: Any) -> str:
    """What the API server answers, as far as it is the same for all fields."""
    path, bound = spot.path, schema.get(keyword)
    match keyword:
        case "minimum":
            return f"{path}: Invalid value: {bad}: {path} in body should be greater than or equal to {bound}"
        case "maximum":
            return f"{path}: Invalid value: {bad}: {path} in body should be less than or equal to {bound}"
        case "maxLength":
            return f"{path}: Too long: may not be more than {bound} bytes"
        case "minLength":
            return f'{path}: Invalid value: "": {path} in body should be at least {bound} chars long'
        case "enum":
            return f'{path}: Unsupported value: "{bad}"'
        case "type":
            return f"{path}: Invalid value: "
    return f"{path}: "


def _id(field: str, keyword: str) -> str:
    """Part of the name of an object."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", field.replace("[]", "_item").replace("*", "any"))
    return f"{words}_{keyword}".replace(".", "_").lower()


OUT_OF_SCHEMA: Final = out_of_schema()
