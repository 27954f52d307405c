"""Generates the CustomResourceDefinitions in crds/ from the models: `python -m sessionpools.api.crds [--check] crds/`.

`make crds` runs it, and a test fails when the files differ. pydantic's JSON schema is turned into the structural schema
that the API server demands: references are inlined, titles dropped, an optional field is one that may be left out
(never null), and defaults stay only where they say something. Whatever the generator does not know it refuses, so that
a new kind of annotation can't become a CRD that checks less than it seems to.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from sessionpools.api import names
from sessionpools.api.schema import INT_OR_STRING, PRESERVE, RULES, JsonSchema, Resource, merged
from sessionpools.api.v1alpha1 import NOT_OBSERVED, Model, SessionPool, WebService

KINDS: tuple[type[SessionPool | WebService], ...] = (SessionPool, WebService)
HEADER = "# Generated from operator/sessionpools/api by `make crds`. Do not edit.\n"
# `kubectl apply` keeps a copy of the object in an annotation, of which an object may have 256 KiB.
MAX_BYTES = 256 * 1024

_KEPT = {
    *("type", "format", "description", "enum", "required", "minimum", "maximum", "minLength", "maxLength", "pattern"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *(RULES, PRESERVE, INT_OR_STRING),
}
_DROPPED = {"title", "$defs", "default", "properties", "items", "additionalProperties", "anyOf"}
_OBJECT_FIELDS = {
    "apiVersion": "The version of the schema of this object.",
    "kind": "The kind of this object.",
}


class NotStructuralError(Exception):
    """A model says something that the API server would refuse or not check. The message names the place."""


def crd(kind: type[SessionPool | WebService]) -> JsonSchema:
    """The CustomResourceDefinition of a kind, as a document for the API server."""
    resource = kind.RESOURCE
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{names.GROUP}",
            "labels": {"app.kubernetes.io/name": names.PRODUCT, "app.kubernetes.io/part-of": names.PRODUCT},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [resource.short_name],
                "categories": [names.PRODUCT],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": open_api(kind)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(resource),
                }
            ],
        },
    }


def open_api(kind: type[Model]) -> JsonSchema:
    """The structural schema of a kind."""
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    made = _structural(schema, schema.get("$defs", {}), kind.__name__)
    properties = made["properties"]
    for field, description in _OBJECT_FIELDS.items():
        properties[field] = {"type": "string", "description": description}
    properties["metadata"] = {"type": "object"}
    properties["spec"]["description"] = "What is wanted."
    properties["status"] = _without_defaults({**properties["status"], "description": "What was observed."})
    if "observedGeneration" in properties["status"]["properties"]:
        properties["status"]["default"] = {"observedGeneration": NOT_OBSERVED}
    check(made, kind.__name__)
    return made


def _structural(schema: JsonSchema, definitions: JsonSchema, path: str) -> JsonSchema:
    schema = _resolved(schema, definitions, path)
    if unknown := schema.keys() - _KEPT - _DROPPED:
        raise NotStructuralError(f"{path}: the generator does not know {', '.join(sorted(unknown))}")
    made = {keyword: value for keyword, value in schema.items() if keyword in _KEPT}
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    if INT_OR_STRING in schema:
        made["anyOf"] = schema["anyOf"]
    if "items" in schema:
        made["items"] = _structural(schema["items"], definitions, f"{path}[]")
    if "properties" in schema:
        made["properties"] = {
            name: _structural(property_, definitions, f"{path}.{name}")
            for name, property_ in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _structural(schema["additionalProperties"], definitions, f"{path}.*")
    default = _default(schema.get("default"), made)
    if default is not None:
        made["default"] = default
    return made


def _resolved(schema: JsonSchema, definitions: JsonSchema, path: str) -> JsonSchema:
    """Without references, and without the null of an optional field."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        over = {keyword: value for keyword, value in schema.items() if keyword != "$ref"}
        return _resolved(merged(target, over), definitions, path)
    if "anyOf" in schema and INT_OR_STRING not in schema:
        given = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        if len(given) != 1:
            raise NotStructuralError(f"{path}: a value of one of several types; only `X | None` can be said in a CRD")
        over = {keyword: value for keyword, value in schema.items() if keyword != "anyOf"}
        return _resolved(merged(given[0], over), definitions, path)
    return schema


def _default(default: Any, made: JsonSchema) -> Any:
    """The default as the CRD says it: none for what means "not given", for an object those of its fields."""
    if isinstance(default, dict):
        fields = made.get("properties", {})
        return {name: field["default"] for name, field in fields.items() if "default" in field} or None
    return None if default in ("", []) else default


def _without_defaults(schema: JsonSchema) -> JsonSchema:
    """Status is written whole by the controller: a default would say what nobody observed. The one that it has as a
    whole says just that."""
    made = {keyword: value for keyword, value in schema.items() if keyword != "default"}
    if "items" in made:
        made["items"] = _without_defaults(made["items"])
    if "properties" in made:
        made["properties"] = {name: _without_defaults(property_) for name, property_ in made["properties"].items()}
    return made


def check(schema: JsonSchema, path: str) -> None:
    """Raises where the schema is not structural, or without bounds, without which rules cost too much."""
    kind = schema.get("type")
    if INT_OR_STRING not in schema and kind not in ("object", "array", "string", "integer", "boolean"):
        raise NotStructuralError(f"{path}: type {kind} has no place in a CRD (numbers are integers)")
    if kind == "object":
        if "properties" in schema and "additionalProperties" in schema:
            raise NotStructuralError(f"{path}: both properties and additionalProperties")
        if "additionalProperties" in schema and "maxProperties" not in schema:
            raise NotStructuralError(f"{path}: a map without maxProperties")
        if not (schema.keys() & {"properties", "additionalProperties", PRESERVE}) and not path.endswith(".metadata"):
            raise NotStructuralError(f"{path}: an object without properties, of which nothing would be kept")
    if kind == "array" and not {"items", "maxItems", "x-kubernetes-list-type"} <= schema.keys():
        raise NotStructuralError(f"{path}: a list without items, maxItems or x-kubernetes-list-type")
    if kind == "string" and not schema.keys() & {"maxLength", "enum", "format"} and path.count(".") > 1:
        raise NotStructuralError(f"{path}: a string without maxLength")
    for name, property_ in schema.get("properties", {}).items():
        check(property_, f"{path}.{name}")
    for keyword, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if keyword in schema:
            check(schema[keyword], path + suffix)


def _columns(resource: Resource) -> list[JsonSchema]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "jsonPath": column.json_path,
            **({"description": column.description} if column.description else {}),
            **({"priority": 1} if column.wide else {}),
        }
        for column in resource.columns
    ]


class _Dumper(yaml.SafeDumper):
    """Without anchors, and with lists indented."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def files() -> dict[str, str]:
    """The names of the files in crds/ and what they hold."""
    made = {}
    for kind in KINDS:
        document = crd(kind)
        text = HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        if len(text.encode()) > MAX_BYTES:
            raise NotStructuralError(f"{kind.__name__}: a CRD of more than {MAX_BYTES} bytes; kubectl apply would fail")
        made[f"{names.GROUP}_{kind.RESOURCE.plural}.yaml"] = text
    return made


def main(arguments: list[str] | None = None) -> int:
    """Writes the files; with --check only says which of them differ, and returns 1 if any does."""
    parser = argparse.ArgumentParser(prog="python -m sessionpools.api.crds", description="Generates the CRDs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files differ")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    return write(options.directory, files(), only_check=options.check)


def write(directory: Path, contents: dict[str, str], *, only_check: bool) -> int:
    """Writes files that differ from their contents, or only names them and returns 1."""
    differ = [
        name
        for name, text in contents.items()
        if not (directory / name).exists() or (directory / name).read_text(encoding="utf-8") != text
    ]
    for name in differ:
        if only_check:
            print(f"{directory / name} is not what the models say: run `make crds`", file=sys.stderr)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(contents[name], encoding="utf-8")
            print(f"wrote {directory / name}")
    return 1 if only_check and differ else 0


if __name__ == "__main__":
    sys.exit(main())
