"""Inputs: what each type accepts, and what the function gets."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.session.values import LIST, NUMPY_MATRIX, Mismatch, reader

OPERATOR = Path(__file__).resolve().parents[3] / "operator"


# --- scalars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("numeric", 1.5, 1.5),
        ("numeric", 3, 3.0),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", 2**64 - 1, 2**64 - 1),
        ("logical", True, True),
        ("character", "", ""),
        ("any", {"a": [None]}, {"a": [None]}),
    ],
)
def test_a_scalar_of_its_type_is_taken(type_name: str, value: Any, expected: Any) -> None:
    result = reader(type_name)(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("type_name", "value", "message"),
    [
        ("numeric", "1", "expected numeric, got string"),
        ("numeric", True, "expected numeric, got boolean"),
        ("numeric", None, "expected numeric, got null"),
        ("integer", 3.5, "expected integer, got 3.5"),
        ("integer", 2.0**53 + 2, "expected integer, got 9007199254740994.0"),
        ("integer", False, "expected integer, got boolean"),
        ("logical", 1, "expected logical, got number"),
        ("logical", "true", "expected logical, got string"),
        ("character", 1, "expected character, got number"),
        ("character", [], "expected character, got array"),
    ],
)
def test_a_scalar_of_another_type_is_refused(type_name: str, value: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        reader(type_name)(value)
    assert str(caught.value) == message


def test_null_is_taken_where_it_is_allowed() -> None:
    assert reader("numeric", nullable=True)(None) is None
    assert reader("numeric", nullable=True)(1) == 1.0
    assert reader("data.frame", nullable=True)(None) is None


# --- vectors and matrices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([1, None], "float64"),
        ([None, None], "float64"),
        ([], "float64"),
        ([True, False], "bool"),
        (["a", "bc"], "<U2"),
        (["a", None], "object"),
        ([True, None], "object"),
        ([2**64 - 1], "uint64"),
    ],
)
def test_a_vector_is_the_array_that_numpy_makes(value: list[Any], dtype: str) -> None:
    array = reader("vector")(value)
    assert array.dtype == dtype
    assert array.shape == (len(value),)


def test_null_among_numbers_is_nan_and_among_others_none() -> None:
    assert math.isnan(reader("vector")([1, None])[1])
    assert reader("vector")(["a", None])[1] is None


def test_nested_vectors_have_more_dimensions() -> None:
    assert reader("vector")([[1, 2, 3], [4, 5, None]]).shape == (2, 3)
    assert reader("vector")([[[1], [2]]]).shape == (1, 2, 1)
    assert reader("vector")([[], []]).shape == (2, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected vector, got number"),
        ({"a": 1}, "expected vector, got object"),
        ([1, "a"], "expected vector of one kind of value, got number and string"),
        ([True, 1], "expected vector of one kind of value, got boolean and number"),
        ([{}], "expected vector, got an array of objects"),
        ([1, [2]], "expected vector of one kind of value, got array and number"),
        ([[1], 2], "expected vector, got an array of arrays and of number"),
        ([[1], [2, 3]], "expected vector, got rows of different lengths (1 and 2)"),
    ],
)
def test_a_vector_of_several_kinds_or_lengths_is_refused(value: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        reader("vector")(value)
    assert str(caught.value) == message


def test_arrays_nested_without_end_are_refused() -> None:
    value: list[Any] = []
    for _ in range(500):
        value = [value]
    with pytest.raises(Mismatch, match="nested more than 16 deep"):
        reader("vector")(value)


def test_a_matrix_is_a_two_dimensional_array() -> None:
    matrix = reader("matrix")([[1, 2], [3, None]])
    assert type(matrix) is np.ndarray
    assert matrix.shape == (2, 2)
    assert math.isnan(matrix[1, 1])
    assert reader("matrix")([]).shape == (0, 0)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_is_a_numpy_matrix_where_that_is_asked_for() -> None:
    matrix = reader("matrix", NUMPY_MATRIX)([[1, 2], [3, 4]])
    assert type(matrix) is np.matrix
    assert (matrix * matrix).tolist() == [[7, 10], [15, 22]]


@pytest.mark.parametrize("value", [[1, 2], [[[1]]]])
def test_a_matrix_of_other_dimensions_is_refused(value: Any) -> None:
    with pytest.raises(Mismatch, match=r"expected matrix \(an array of rows\), got an array of [13] dimension"):
        reader("matrix")(value)


def test_a_list_stays_a_list() -> None:
    assert reader("vector", LIST)([1, 2.5]) == [1, 2.5]
    assert reader("matrix", LIST)([["a"], [None]]) == [["a"], [None]]
    assert math.isnan(reader("vector", LIST)([[1, None]])[0][1])
    with pytest.raises(Mismatch):
        reader("vector", LIST)([1, "a"])


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_is_made_of_columns() -> None:
    frame = reader("data.frame")(
        {"a": [1, 2], "b": [1.5, None], "c": ["x", None], "d": [True, False], "e": [None, None]}
    )
    assert list(frame.columns) == ["a", "b", "c", "d", "e"]
    assert [str(dtype) for dtype in frame.dtypes[["a", "b", "d", "e"]]] == ["int64", "float64", "bool", "float64"]
    assert frame["b"].isna().tolist() == [False, True]
    assert frame["c"].isna().tolist() == [False, True]


def test_a_frame_is_made_of_rows_too() -> None:
    frame = reader("data.frame")([{"a": 1, "b": "x"}, {"a": 2, "c": 0.5}])
    expected = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [np.nan, 0.5]})
    pd.testing.assert_frame_equal(frame, expected)


def test_an_empty_frame_is_taken() -> None:
    assert reader("data.frame")({}).shape == (0, 0)
    assert reader("data.frame")([]).shape == (0, 0)
    assert reader("data.frame")({"a": []}).shape == (0, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "expected data.frame (an object of columns), got number"),
        ({"a": 1}, "expected data.frame, got number for column 'a'"),
        ({"a": [1], "b": [1, 2]}, "expected data.frame, got columns of different lengths (1 and 2)"),
        ({"a": [1, "x"]}, "column 'a': expected column of one kind of value, got number and string"),
        ({"a": [[1]]}, "column 'a': expected column, got an array of arrays"),
        ([1], "expected data.frame (an object of columns, or rows), got number for row 0"),
    ],
)
def test_a_frame_that_is_none_is_refused(value: Any, message: str) -> None:
    with pytest.raises(Mismatch) as caught:
        reader("data.frame")(value)
    assert str(caught.value) == message


@given(st.lists(st.none() | st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1)))
def test_any_numbers_are_a_vector_of_them(value: list[Any]) -> None:
    array = reader("vector")(value)
    for given_value, taken in zip(value, array.tolist(), strict=True):
        assert math.isnan(taken) if given_value is None else float(given_value) == float(taken)


# --- without numpy ----------------------------------------------------------------------------------------------------


def test_an_image_without_numpy_serves_what_needs_none(tmp_path: Path) -> None:
    """Blocked imports stand for an image in which they are not installed."""
    (tmp_path / "plain.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass D:\n    x: float\n"
        "def predict(x: float, y: list[float] = [], z=None):\n    return {'d': D(x), 'y': y, 1: {2}}\n"
        "def vector(v): pass\n"
    )
    program = f"""
import sys
sys.modules["numpy"] = sys.modules["pandas"] = None
sys.path.insert(0, {str(OPERATOR)!r})
from sessionpools.session import invoke
from sessionpools.session.config import RevisionSpec
service = invoke.load(RevisionSpec(code={str(tmp_path)!r}, entrypoint="plain:predict"), print)
answer = service.call(b'{{"x": 1, "y": [1, null]}}', {str(tmp_path)!r})
print(answer.body.decode())
try:
    invoke.load(RevisionSpec(code="", entrypoint="plain:vector", inputs=({{"name": "v", "type": "vector"}},)), print)
except invoke.LoadError as error:
    print(error.summary)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"outputParameters":{"answer":{"d":{"x":1.0},"y":[1,null],"1":[2]}}' in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: import of numpy halted")
    assert last.endswith("(types of the inputs)")
