"""/openapi.json says what is true: schemathesis sends each operation what its description allows, and what it does not.

Each answer must be described: status, content type, schema. No request may end in a fault of the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks as openapi_checks

from sessionpools.web.app import create_app
from sessionpools.web.parts import Parts
from support.web_server import Served, served

DOCUMENT: dict[str, Any] = create_app(cast(Parts, None)).openapi()
CALL = "/api/{name}/{version}"  # the gateway takes it
HERE = {**DOCUMENT, "paths": {path: item for path, item in DOCUMENT["paths"].items() if path != CALL}}
SCHEMA = schemathesis.openapi.from_dict(HERE)
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations() if isinstance(each, Ok)}
NOT_OFFERED = 501
EXAMPLES = 15  # for each operation and kind of data
CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
load_all_checks()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_answer_is_as_described(server: Served, label: str, mode: schemathesis.GenerationMode) -> None:
    operation = OPERATIONS[label]

    @hypothesis.settings(
        max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True, database=None
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        headers = {"Authorization": f"Bearer {server.token}"}
        response = case.call(base_url=server.url, headers=headers)
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500 or response.status_code == NOT_OFFERED, response.text
        if response.status_code >= 400:
            assert response.json().keys() == {"message", "link", "exceptionType"}

    try:
        send()
    except hypothesis.errors.Unsatisfiable:
        pytest.skip("there is nothing that this operation does not allow")


def test_the_call_is_described_though_the_gateway_takes_it() -> None:
    call = DOCUMENT["paths"][CALL]["post"]
    assert call["operationId"] == "consume"
    assert call["security"] == [{"Bearer": []}]


def test_operations_have_names_of_their_own_and_say_who_needs_a_token() -> None:
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all("security" in operation and "default" in operation["responses"] for operation in operations)
    assert "422" not in str([operation["responses"].keys() for operation in operations])


def test_every_reference_of_the_description_is_there() -> None:
    text = str(DOCUMENT)
    named = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= DOCUMENT["components"]["schemas"].keys()


def test_every_operation_is_in_the_reference_page() -> None:
    page = Path(__file__).parents[3].joinpath("docs/reference/rest.md").read_text()
    missing = [
        f"{method.upper()} {path}"
        for path, item in HERE["paths"].items()
        for method in item
        if not any(method.upper() in line and path in line for line in page.splitlines())
    ]
    assert missing == []
