"""The generated CRDs: true to the models, structural, bounded, small, and every rule of them proved."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from sessionpools.api import crds, reference
from sessionpools.api.schema import INT_OR_STRING, RULES, Schema, must, rule
from sessionpools.api.v1alpha1 import Model, SessionPool, WebService
from support.refusals import REFUSALS
from support.tools import ROOT

Schema_ = dict[str, Any]
FILES = crds.files()
KINDS = pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.__name__)


def walk(schema: Schema_, path: str = "") -> Iterator[tuple[str, Schema_]]:
    """Every part of a schema with its path."""
    yield path, schema
    for name, property_ in schema.get("properties", {}).items():
        yield from walk(property_, f"{path}.{name}")
    for keyword, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if keyword in schema:
            yield from walk(schema[keyword], path + suffix)


# --- the files ------------------------------------------------------------------------------------------------


def test_the_files_in_crds_are_what_the_models_say() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "crds").glob("*")} == FILES


def test_the_reference_pages_are_what_the_models_say() -> None:
    assert reference.main(["--check", str(ROOT / "docs/reference")]) == 0


@pytest.mark.parametrize("name", FILES)
def test_plain_kubectl_apply_can_carry_a_crd(name: str) -> None:
    last_applied = json.dumps(yaml.safe_load(FILES[name]))
    assert max(len(last_applied.encode()), len(FILES[name].encode())) < 256 * 1024


def test_check_names_the_files_that_differ_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crds.main([str(tmp_path)]) == 0
    assert crds.main(["--check", str(tmp_path)]) == 0
    changed = tmp_path / "sessionpools.dev_sessionpools.yaml"
    changed.write_text("changed")
    capsys.readouterr()
    assert crds.main(["--check", str(tmp_path)]) == 1
    assert changed.read_text() == "changed"
    assert capsys.readouterr().err.strip() == f"{changed} is not what the models say: run `make crds`"


@pytest.mark.parametrize(
    ("kind", "plural", "short"), [(SessionPool, "sessionpools", "sp"), (WebService, "webservices", "ws")]
)
def test_a_crd_names_the_kind_as_users_call_it(kind: type[SessionPool | WebService], plural: str, short: str) -> None:
    made = crds.crd(kind)
    assert made["metadata"]["name"] == f"{plural}.sessionpools.dev"
    assert made["spec"]["scope"] == "Namespaced"
    assert made["spec"]["names"]["shortNames"] == [short]
    (version,) = made["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}


@KINDS
def test_a_column_shows_a_field_that_exists(kind: type[SessionPool | WebService]) -> None:
    known = {path for path, _ in walk(crds.open_api(kind))} | {".metadata.creationTimestamp"}
    for column in kind.RESOURCE.columns:
        assert re.sub(r"\[\?.*?\]", "[]", column.json_path) in known


# --- the schema -----------------------------------------------------------------------------------------------


@KINDS
def test_the_schema_is_structural(kind: type[Model]) -> None:
    for path, schema in walk(crds.open_api(kind)):
        assert schema.keys().isdisjoint({"$ref", "$defs", "allOf", "oneOf", "not", "nullable", "title", "const"}), path
        assert INT_OR_STRING in schema or schema["type"] in ("object", "array", "string", "integer", "boolean"), path
        assert INT_OR_STRING in schema or "anyOf" not in schema, path
        assert not {"properties", "additionalProperties"} <= schema.keys(), path
        assert not isinstance(schema.get("additionalProperties"), bool), path


@KINDS
def test_everything_that_can_grow_is_bounded(kind: type[Model]) -> None:
    for path, schema in walk(crds.open_api(kind)):
        match schema.get("type"):
            case "array":
                assert "maxItems" in schema, path
            case "string" if path not in (".apiVersion", ".kind"):
                assert schema.keys() & {"maxLength", "enum", "format"}, path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


@KINDS
def test_only_warmup_takes_anything(kind: type[Model]) -> None:
    free = [path for path, schema in walk(crds.open_api(kind)) if "x-kubernetes-preserve-unknown-fields" in schema]
    assert free == ([".spec.warmup"] if kind is WebService else [])


@KINDS
def test_every_list_says_how_appliers_share_it(kind: type[Model]) -> None:
    for path, schema in walk(crds.open_api(kind)):
        if schema.get("type") == "array":
            assert schema["x-kubernetes-list-type"] in ("atomic", "map"), path
            for key in schema.get("x-kubernetes-list-map-keys", []):
                assert key in schema["items"]["required"], path


@KINDS
def test_every_field_is_described(kind: type[Model]) -> None:
    for path, schema in walk(crds.open_api(kind)):
        if path and not path.endswith(("[]", ".*", ".metadata")):
            assert schema.get("description"), path
            assert "\n" not in schema["description"], path


@KINDS
def test_status_has_no_rules_and_no_default_but_that_nobody_has_looked_yet(kind: type[Model]) -> None:
    status = crds.open_api(kind)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["observedGeneration"]["minimum"] == -1
    for path, schema in walk(status, "status"):
        assert "default" not in schema or path == "status", path
        assert RULES not in schema, path


def test_nodes_in_status_are_an_atomic_list_of_at_most_500() -> None:
    nodes = crds.open_api(SessionPool)["properties"]["status"]["properties"]["nodes"]
    assert (nodes["x-kubernetes-list-type"], nodes["maxItems"]) == ("atomic", 500)


# --- defaults -------------------------------------------------------------------------------------------------


def defaulted(schema: Schema_, given: Schema_) -> Schema_:
    """What the API server makes of an object: defaults of absent fields, down to the last."""
    made = dict(given)
    for name, property_ in schema.get("properties", {}).items():
        if name not in made and "default" in property_:
            made[name] = property_["default"]
        if isinstance(made.get(name), dict):
            made[name] = defaulted(property_, made[name])
        if isinstance(made.get(name), list) and "properties" in property_.get("items", {}):
            made[name] = [defaulted(property_["items"], item) for item in made[name]]
    return made


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (SessionPool, {"initialPoolSize": 1, "maxPoolSize": 2}),
        (
            SessionPool,
            {"initialPoolSize": 1, "maxPoolSize": 2, "queue": {}, "update": {"maxSurge": 2}, "placement": {}},
        ),
        (SessionPool, {"initialPoolSize": 1, "maxPoolSize": 2, "placement": {"tolerations": [{"key": "gpu"}]}}),
        (WebService, {"name": "Score", "version": "v1", "code": {}}),
    ],
    ids=["pool", "pool_with_empty_parts", "pool_with_toleration", "service"],
)
def test_the_defaults_of_crd_and_model_are_equal(kind: type[SessionPool | WebService], spec: Schema_) -> None:
    by_server = defaulted(crds.open_api(kind)["properties"]["spec"], spec)
    assert kind.model_validate({"spec": by_server}).spec == kind.model_validate({"spec": spec}).spec


def test_every_model_default_that_says_something_is_a_default_of_the_crd() -> None:
    by_server = defaulted(crds.open_api(SessionPool)["properties"]["spec"], {"initialPoolSize": 1, "maxPoolSize": 2})
    by_model = SessionPool.model_validate({"spec": {"initialPoolSize": 1, "maxPoolSize": 2}}).spec.to_json()
    silent = {"serviceName", "serviceVersion", "image", "placement"}  # "", [] and {}: not given
    assert by_model.keys() - by_server.keys() == silent
    assert {name: by_model[name] for name in by_server} == by_server


# --- rules ----------------------------------------------------------------------------------------------------


def message_of(made: Schema_) -> re.Pattern[str]:
    """Matches what a user reads when a rule does not hold."""
    text = made.get("message", "")
    if "messageExpression" in made:
        text = json.JSONDecoder().raw_decode(made["messageExpression"])[0]
    return re.compile(".*".join(re.escape(part) for part in re.split("%[sd]", text)))


TRANSITIONS = "oldSelf"  # need two objects: proved by test_the_key_is_immutable


@KINDS
def test_every_rule_has_a_refused_object_that_proves_it(kind: type[SessionPool | WebService]) -> None:
    said = [refusal.says for refusal in REFUSALS]
    for path, schema in walk(crds.open_api(kind)):
        for made in schema.get(RULES, []):
            if TRANSITIONS not in made["rule"]:
                assert any(message_of(made).search(text) for text in said), f"{path}: {made}"


@KINDS
def test_the_field_that_a_rule_points_to_exists(kind: type[Model]) -> None:
    for path, schema in walk(crds.open_api(kind)):
        for made in schema.get(RULES, []):
            assert made.get("fieldPath", ".").lstrip(".") in ("", *schema.get("properties", {})), path


def test_a_rule_about_a_value_says_it_and_falls_back_to_a_text_without_it() -> None:
    assert must("self != 'a'", 'not be "a"') == {
        "rule": "self != 'a'",
        "messageExpression": '"\\"%s\\" must not be \\"a\\"".format([self])',
        "message": 'must not be "a"',
    }


def test_a_rule_with_a_plain_text_is_a_message() -> None:
    made = rule("self.a < self.b", "a must be less than b", path=".a", forbidden=True)
    assert made == {
        "rule": "self.a < self.b",
        "message": "a must be less than b",
        "fieldPath": ".a",
        "reason": "FieldValueForbidden",
    }


def test_the_same_refusal_is_not_listed_twice() -> None:
    ids = [refusal.id for refusal in REFUSALS]
    assert len(ids) == len(set(ids))


# --- what the generator refuses -------------------------------------------------------------------------------


class Part(Model):
    """A part."""

    name: Annotated[str, Schema(maxLength=3)] = ""
    """A name."""


def generated(annotation: Any) -> Schema_:
    fields = {"__annotations__": {"x": annotation}, "__module__": __name__, "__doc__": "A spec."}
    spec = type("Spec", (Model,), fields)
    made = type("Thing", (Model,), {"__annotations__": {"spec": spec, "status": Part}, "__module__": __name__})
    field: Schema_ = crds.open_api(made)["properties"]["spec"]["properties"]["x"]
    return field


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (float, "Thing.spec.x: type number has no place in a CRD"),
        (Annotated[int, Schema(exclusiveMinimum=0)], "Thing.spec.x: the generator does not know exclusiveMinimum"),
        (str, "Thing.spec.x: a string without maxLength"),
        (int | str, "Thing.spec.x: a value of one of several types"),
        (list[int], "Thing.spec.x: a list without items, maxItems or x-kubernetes-list-type"),
        (dict[str, int], "Thing.spec.x: a map without maxProperties"),
        (dict[str, Any], "Thing.spec.x: an object without properties, of which nothing would be kept"),
    ],
    ids=["number", "keyword", "string", "union", "list", "map", "object"],
)
def test_what_a_crd_cannot_say_is_refused_with_its_place(annotation: Any, why: str) -> None:
    with pytest.raises(crds.NotStructuralError, match=re.escape(why)):
        generated(annotation)


def test_an_optional_field_is_one_that_may_be_left_out() -> None:
    assert generated(int | None) == {"type": "integer"}


def test_a_part_is_inlined() -> None:
    made = generated(Part | None)
    assert made["description"] == "A part."
    assert made["properties"] == {"name": {"type": "string", "maxLength": 3, "description": "A name."}}
