"""Signatures: from annotations, from declarations, and from both."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NewType, Optional, Union

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from sessionpools.session.signature import Input, Signature, SignatureError, of_function, of_script, read_annotation


class Size(enum.IntEnum):
    SMALL = 1


@pytest.mark.parametrize(
    ("annotation", "type_name", "form", "nullable"),
    [
        (int, "integer", "", False),
        (float, "numeric", "", False),
        (bool, "logical", "", False),
        (str, "character", "", False),
        (np.float64, "numeric", "", False),
        (np.int32, "integer", "", False),
        (np.bool_, "logical", "", False),
        (np.ndarray, "vector", "", False),
        (npt.NDArray[np.float64], "vector", "", False),
        (np.matrix, "matrix", "numpy.matrix", False),
        (list, "vector", "list", False),
        (list[float], "vector", "list", False),
        (list[list[int]], "vector", "list", False),
        (Sequence[str], "vector", "list", False),
        (list[dict[str, Any]], "any", "", False),
        (pd.DataFrame, "data.frame", "", False),
        (float | None, "numeric", "", True),
        (Optional[pd.DataFrame], "data.frame", "", True),  # noqa: UP045
        (Union[int, float], "numeric", "", False),  # noqa: UP007
        (int | str, "any", "", False),
        (Annotated[float, "unit: kg"], "numeric", "", False),
        (NewType("Weight", float), "numeric", "", False),
        (dict, "any", "", False),
        (Size, "any", "", False),
        (Any, "any", "", False),
        (pd.Series, "any", "", False),
    ],
)
def test_annotations_are_types_of_ml_server(annotation: Any, type_name: str, form: str, nullable: bool) -> None:
    assert read_annotation(annotation) == Input("", type_name, form=form, nullable=nullable)


def types_of(function: Callable[..., Any]) -> list[tuple[str, str, bool]]:
    return [(item.name, item.type, item.required) for item in of_function(function, None, None).inputs]


def test_parameters_are_inputs_and_defaults_make_them_optional() -> None:
    def predict(a: float, b: int = 1, *, c: str, d=2) -> bool: ...  # type: ignore[no-untyped-def, empty-body]

    assert types_of(predict) == [
        ("a", "numeric", True),
        ("b", "integer", False),
        ("c", "character", True),
        ("d", "any", False),
    ]
    found = of_function(predict, None, None)
    assert found.as_json()["outputs"] == [{"name": "answer", "type": "logical"}]
    assert found.as_json()["inputs"][1] == {"name": "b", "type": "integer", "required": False}


def test_an_annotation_that_cannot_be_resolved_spoils_no_other() -> None:
    def predict(a: Nowhere, b: float) -> Elsewhere: ...  # type: ignore[name-defined]  # noqa: F821

    assert types_of(predict) == [("a", "any", True), ("b", "numeric", True)]
    assert of_function(predict, None, None).outputs[0].type == "any"


def test_wrappers_partials_objects_and_classes_have_signatures() -> None:
    def predict(a: float, b: int) -> str: ...  # type: ignore[empty-body]

    @functools.wraps(predict)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    class Model:
        def __call__(self, a: float) -> str: ...  # type: ignore[empty-body]
        def method(self, a: int) -> str: ...  # type: ignore[empty-body]

    class Result:
        def __init__(self, a: bool) -> None: ...

    assert types_of(wrapper) == [("a", "numeric", True), ("b", "integer", True)]
    assert types_of(functools.partial(predict, b=1)) == [("a", "numeric", True), ("b", "integer", False)]
    assert types_of(Model()) == [("a", "numeric", True)]
    assert types_of(Model().method) == [("a", "integer", True)]
    assert types_of(Result) == [("a", "logical", True)]


def test_declarations_decide_the_type_and_annotations_the_form() -> None:
    def predict(a: list, b: np.matrix, c: float | None, d: list, e=1): ...  # type: ignore[no-untyped-def, type-arg]

    declared = [
        {"name": "a", "type": "vector"},
        {"name": "b", "type": "matrix"},
        {"name": "c", "type": "integer"},
        {"name": "d", "type": "data.frame"},
    ]
    found = of_function(predict, declared, [{"name": "x", "type": "numeric"}])
    assert [(i.type, i.form, i.nullable) for i in found.inputs] == [
        ("vector", "list", False),
        ("matrix", "numpy.matrix", False),
        ("integer", "", True),
        ("data.frame", "", False),
    ]
    assert [(o.name, o.type) for o in found.outputs] == [("x", "numeric")]
    assert not found.answers


def test_a_declared_output_named_answer_is_a_declared_one() -> None:
    assert not of_function(lambda: 1, None, [{"name": "answer", "type": "numeric"}]).answers
    assert of_function(lambda: 1, None, None).answers


def test_keyword_arguments_leave_the_inputs_open_unless_they_are_declared() -> None:
    def predict(a: float, **more: Any) -> None: ...

    assert of_function(predict, None, None).open
    assert not of_function(predict, [{"name": "a", "type": "numeric"}, {"name": "b", "type": "any"}], None).open


def test_a_function_without_a_readable_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match="has no signature that can be read"):
        of_function(type, None, None)


def test_a_script_takes_what_is_declared_or_anything() -> None:
    outputs = [{"name": "x", "type": "numeric"}]
    assert of_script(None, outputs) == Signature((), of_script(None, outputs).outputs, open=True)
    assert not of_script([], outputs).open
