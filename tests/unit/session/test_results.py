"""Outputs: what becomes JSON how, and what a declared type accepts."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import types
import uuid
from collections import Counter, OrderedDict, deque, namedtuple
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sessionpools.session.results import OutputError, Unfit, dumps, writer


def sent(value: Any) -> Any:
    """What a caller reads of an output."""
    return orjson.loads(dumps({"outputParameters": {"x": value}}))["outputParameters"]["x"]


@dataclasses.dataclass
class Point:
    x: Any
    y: float = 2.0


class Color(enum.Enum):
    RED = "red"


Pair = namedtuple("Pair", "a b")
NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NAN, None),
        (math.inf, None),
        (-math.inf, None),
        ([1.5, NAN], [1.5, None]),
        ((1, "a"), [1, "a"]),
        (Pair(1, 2), [1, 2]),
        ({3}, [3]),
        (frozenset(["a"]), ["a"]),
        (range(3), [0, 1, 2]),
        (deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        (types.MappingProxyType({1: 2}), {"1": 2}),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aa"), {"a": 2}),
        (Point(1), {"x": 1, "y": 2.0}),
        (Point({1: NAN}), {"x": {"1": None}, "y": 2.0}),
        (Color.RED, "red"),
        (decimal.Decimal("1.50"), 1.5),
        (decimal.Decimal("NaN"), None),
        (fractions.Fraction(1, 4), 0.25),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (datetime.timedelta(minutes=1), 60.0),
        ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
        ({None: 1, Color.RED: 2, datetime.date(2026, 1, 2): 3}, {"null": 1, "red": 2, "2026-01-02": 3}),
        ({False: [{np.int64(7): NAN}]}, {"false": [{"7": None}]}),
    ],
)
def test_values_of_python(value: Any, expected: Any) -> None:
    assert sent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.float64("nan"), None),
        (np.float32("inf"), None),
        (np.int64(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.longdouble(1.5), 1.5),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64("NaT", "s"), None),
        (np.array(5), 5),
        (np.array([1.0, NAN, math.inf]), [1.0, None, None]),
        (np.array([[1, 2], [3, 4]]).T, [[1, 3], [2, 4]]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.array([1, 2], ">i4"), [1, 2]),
        (np.array([1.5], ">f8"), [1.5]),
        (np.array([1.5], "longdouble"), [1.5]),
        (np.array([1.5], "float16"), [1.5]),
        (np.array([True]), [True]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", None, NAN], object), ["a", None, None]),
        (np.array(["2026-01-02", "NaT"], "datetime64[ns]"), ["2026-01-02T00:00:00", None]),
        (np.array(["2026-01", "NaT"], "datetime64[M]"), ["2026-01-01", None]),
        (np.array([90, "NaT"], "timedelta64[s]"), [90.0, None]),
        (np.eye(1).view(np.matrix), [[1.0]]),
        (np.ma.masked_array([1, 2], [False, True]), [1, None]),
        (np.zeros((0, 3)), []),
        ({"a": [np.arange(2)]}, {"a": [[0, 1]]}),
    ],
)
def test_values_of_numpy(value: Any, expected: Any) -> None:
    assert sent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            pd.DataFrame({"a": [1, 2], "b": [0.5, NAN], "c": ["x", None]}),
            {"a": [1, 2], "b": [0.5, None], "c": ["x", None]},
        ),
        (pd.DataFrame({1: [True]}, index=["row"]), {"1": [True]}),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-02", None])}), {"t": ["2026-01-02T00:00:00", None]}),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-02"]).tz_localize("UTC")}), {"t": ["2026-01-02T00:00:00+00:00"]}),
        (pd.DataFrame({"t": pd.to_timedelta(["90s", None])}), {"t": [90.0, None]}),
        (pd.DataFrame({"n": pd.array([1, None], "Int64")}), {"n": [1, None]}),
        (pd.DataFrame({"f": pd.array([1.5, None], "Float64")}), {"f": [1.5, None]}),
        (pd.DataFrame({"b": pd.array([True, None], "boolean")}), {"b": [True, None]}),
        (pd.DataFrame({"c": pd.Categorical(["x", None])}), {"c": ["x", None]}),
        (pd.DataFrame({"o": [[1], {"a": NAN}]}), {"o": [[1], {"a": None}]}),
        (pd.DataFrame({("a", 1): [1]}), {"('a', 1)": [1]}),
        (pd.DataFrame({"a": [3, 1]}).sort_values("a"), {"a": [1, 3]}),
        (pd.Series([1, None]), [1.0, None]),
        (pd.Series(["a"], index=["i"]), ["a"]),
        (pd.Index([1, 2]), [1, 2]),
        (pd.Categorical(["x"]), ["x"]),
        (pd.Timestamp("2026-01-02 03:04"), "2026-01-02T03:04:00"),
        (pd.Timedelta("90s"), 90.0),
        (pd.Period("2026-01"), "2026-01"),
        (pd.NaT, None),
        (pd.NA, None),
    ],
)
def test_values_of_pandas(value: Any, expected: Any) -> None:
    assert sent(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the DataFrame has more than one column 'a'"),
        (np.array([1j]), "complex has no JSON form"),
        (np.array([b"x"]), "bytes have no JSON form"),
        (test_values_of_python, "function has no JSON form"),
        (2**64, "Integer exceeds 64-bit range"),
    ],
)
def test_what_has_no_json_form_is_named(value: Any, reason: str) -> None:
    with pytest.raises(OutputError, match=f"^output 'x': {reason}"):
        sent(value)


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("numeric", 3, 3.0),
        ("numeric", np.float32(0.5), 0.5),
        ("numeric", np.array([[152.5]]), 152.5),
        ("numeric", pd.Series([1]), 1.0),
        ("numeric", decimal.Decimal("0.5"), 0.5),
        ("numeric", NAN, None),
        ("integer", np.int64(3), 3),
        ("integer", 3.0, 3),
        ("integer", np.array([3]), 3),
        ("logical", np.bool_(False), False),
        ("logical", np.array([True]), True),
        ("character", np.str_("a"), "a"),
        ("character", np.array(["a"]), "a"),
        ("vector", [1], [1]),
        ("vector", np.array([[1], [2]]), [[1], [2]]),
        ("vector", pd.Series([1]), [1]),
        ("vector", {1}, [1]),
        ("vector", range(2), [0, 1]),
        ("vector", pd.DataFrame({"a": [1]}), [[1]]),
        ("matrix", np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        ("matrix", [[1], [2]], [[1], [2]]),
        ("matrix", [np.array([1])], [[1]]),
        ("matrix", pd.DataFrame({"a": [1], "b": [2]}), [[1, 2]]),
        ("data.frame", pd.DataFrame({"a": [1]}), {"a": [1]}),
        ("data.frame", {"a": np.array([1]), "b": [2]}, {"a": [1], "b": [2]}),
        *(
            (name, None, None)
            for name in ("numeric", "integer", "logical", "character", "vector", "matrix", "data.frame")
        ),
    ],
)
def test_a_declared_type_takes_what_is_of_it(type_name: str, value: Any, expected: Any) -> None:
    check = writer(type_name)
    assert check is not None
    result = sent(check(value))
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("type_name", "value", "message"),
    [
        ("numeric", "1", "expected numeric, got str"),
        ("numeric", True, "expected numeric, got bool"),
        ("numeric", np.array([1, 2]), "expected numeric, got ndarray"),
        ("integer", 1.5, "expected integer, got 1.5"),
        ("integer", True, "expected integer, got bool"),
        ("logical", 1, "expected logical, got int"),
        ("character", 1, "expected character, got int"),
        ("vector", 1, "expected vector, got int"),
        ("vector", "abc", "expected vector, got str"),
        ("vector", {"a": 1}, "expected vector, got dict"),
        ("matrix", np.array([1]), "expected matrix, got ndarray of 1 dimension(s)"),
        ("matrix", [1], "expected matrix, got list"),
        ("data.frame", [1], "expected data.frame, got list"),
        ("data.frame", {"a": 1}, "expected data.frame, got int for column 'a'"),
    ],
)
def test_a_declared_type_refuses_another(type_name: str, value: Any, message: str) -> None:
    check = writer(type_name)
    assert check is not None
    with pytest.raises(Unfit) as caught:
        check(value)
    assert str(caught.value) == message


@given(hnp.arrays(st.sampled_from(["f8", "f4", "i8", "u2", "?", ">f8"]), hnp.array_shapes(max_dims=3, max_side=4)))
def test_any_array_of_numbers_is_its_list(array: Any) -> None:
    finite = np.where(np.isfinite(array), array, 0) if array.dtype.kind == "f" else array
    assert sent(finite) == orjson.loads(orjson.dumps(finite.tolist())) or np.allclose(sent(finite), finite, rtol=1e-6)


@given(st.dictionaries(st.integers() | st.text() | st.booleans() | st.none(), st.integers(0, 9)))
def test_any_keys_become_text_or_are_refused(value: dict[Any, int]) -> None:
    try:
        result = sent(value)
    except OutputError as error:
        assert "two keys that are the same text" in str(error)
    else:
        assert sorted(result.values()) == sorted(value.values())
