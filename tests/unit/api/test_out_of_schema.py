"""That support.out_of_schema forgets no field and no bound, and that what it makes is refused for one reason each.

tests/contract/test_crd_validation.py puts the same objects to a real API server.
"""

from collections import Counter
from typing import Any

import jsonschema
import pytest

from sessionpools.api import crds
from support.out_of_schema import OUT_OF_SCHEMA, OutOfSchema, bounds, fields

SCHEMAS = {kind.__name__: crds.open_api(kind)["properties"]["spec"] for kind in crds.KINDS}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_bound_of_every_field_has_a_value_beyond_it(kind: str) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    for path, schema in fields(SCHEMAS[kind]):
        name = f"{kind}.{path}" if path else kind
        expected.update((name, keyword) for keyword in bounds(schema) if path)
        expected.update((f"{name}.{required}", "required") for required in schema.get("required", []))
    made = Counter((each.field, each.keyword) for each in OUT_OF_SCHEMA if each.field.startswith(f"{kind}."))
    assert made == expected
    assert len(made) > 40


@pytest.mark.parametrize("each", OUT_OF_SCHEMA, ids=lambda each: each.refusal.id)
def test_an_object_beyond_a_bound_is_refused_for_that_alone(each: OutOfSchema) -> None:
    schema = SCHEMAS[each.refusal.object["kind"]]
    found = {error.validator for error in _errors(each.refusal.object["spec"], schema)}
    keyword = "anyOf" if each.keyword == "type" and "anyOf" in found else each.keyword
    assert keyword in found
    # a value that is too short or too long is no pattern's and no enumeration's either
    assert found <= {keyword, "pattern", "enum"}


def test_their_names_differ_and_are_names_of_objects() -> None:
    ids = [each.refusal.id for each in OUT_OF_SCHEMA]
    assert len(set(ids)) == len(ids)


def _errors(spec: Any, schema: Any) -> list[jsonschema.ValidationError]:
    return list(jsonschema.Draft202012Validator(schema).iter_errors(spec))
