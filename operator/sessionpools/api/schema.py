"""The small language in which the kinds say what the API server shall check: schema keywords and CEL rules on types.

The keywords are for the API server only, through the CRDs: pydantic checks types when it reads an object, never bounds
or rules. So an object that the API server once accepted can always be read, also when a later version is stricter.
Used by `sessionpools.api.v1alpha1` and the modules beside it; read by the generator in `sessionpools.api.crds`.
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

JsonSchema = dict[str, Any]
RULES = "x-kubernetes-validations"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
VALUE = '"%s" '
INT_OR_STRING = "x-kubernetes-int-or-string"


class Schema:
    """Annotates a type with JSON schema keywords and rules: `Annotated[str, Schema(maxLength=63)]`."""

    def __init__(self, *rules: JsonSchema, **keywords: Any) -> None:
        self.keywords: JsonSchema = {**keywords, RULES: list(rules)} if rules else keywords

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return merged(handler(core_schema), self.keywords)


def merged(schema: JsonSchema, over: JsonSchema) -> JsonSchema:
    """`schema` with the keywords of `over`; the rules of both hold."""
    both = schema.get(RULES, []) + over.get(RULES, [])
    return {**schema, **over, **({RULES: both} if both else {})}


def rule(cel: str, message: str, *values: str, path: str = "", forbidden: bool = False) -> JsonSchema:
    """A CEL rule and what the user reads when it does not hold.

    The API server puts the field's path in front of the message, but not its value: %s and %d in the message stand for
    `values`, which are CEL. `path` is the field, relative to where the rule stands. `forbidden`: the field must not be
    there (or not change), whatever its value.
    """
    made: JsonSchema = {"rule": cel}
    if values:
        made["messageExpression"] = f"{json.dumps(message, ensure_ascii=False)}.format([{', '.join(values)}])"
    if not values or message.startswith(VALUE):
        made["message"] = message.removeprefix(VALUE)  # for values with line breaks, which no message may have
    if path:
        made["fieldPath"] = path
    if forbidden:
        made["reason"] = "FieldValueForbidden"
    return made


def must(cel: str, be: str) -> JsonSchema:
    """A rule about one value, `self`."""
    return rule(cel, f"{VALUE}must {be}", "self")


# --- schemas of what is kept as raw JSON ----------------------------------------------------------------------


def text(max_length: int, description: str, *rules: JsonSchema, **keywords: Any) -> JsonSchema:
    """A string."""
    return {"type": "string", "maxLength": max_length, "description": description, **keywords, **_rules(rules)}


def array(max_items: int, items: JsonSchema, description: str, *rules: JsonSchema, key: str = "") -> JsonSchema:
    """A list; with `key` its items are told apart by that field, so that two appliers can own one item each."""
    kind: JsonSchema = {"x-kubernetes-list-type": "atomic"}
    if key:
        kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"type": "array", "maxItems": max_items, "items": items, "description": description, **kind, **_rules(rules)}


def record(
    description: str, *rules: JsonSchema, required: tuple[str, ...] = (), **properties: JsonSchema
) -> JsonSchema:
    """An object with named fields."""
    made: JsonSchema = {"type": "object", "description": description, "properties": properties}
    if required:
        made["required"] = list(required)
    return {**made, **_rules(rules)}


def flag(description: str) -> JsonSchema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def number(minimum: int, maximum: int, description: str) -> JsonSchema:
    """An integer."""
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "description": description}


def _rules(rules: tuple[JsonSchema, ...]) -> JsonSchema:
    return {RULES: list(rules)} if rules else {}


# --- what stands in a CRD beside the schema -------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; those that are not `wide` are always shown."""

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Resource:
    """How a kind is called and shown."""

    kind: str
    plural: str
    singular: str
    short_name: str
    columns: tuple[Column, ...]
