"""What is sent of Python's, numpy's and pandas' values, and what is made of answers."""

import datetime as dt
import decimal
import enum
import json
import math
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sessionpools.client import InputInvalid
from sessionpools.client.values import array_of, encode, frame_of, records_of
from support.tools import ROOT


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    y: Any


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (math.nan, None),
        ("text", "text"),
        (np.float64(2.5), 2.5),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, math.nan]), [1.0, None]),
        (np.array(["2026-01-02"], "datetime64[ns]"), ["2026-01-02T00:00:00"]),
        (np.datetime64("NaT"), None),
        (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456"),
        (np.timedelta64(1500, "ms"), 1.5),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["a"]), ["a"]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), {"a": [1, 2], "b": ["x", None]}),
        (pd.DataFrame({1: [1]}), {"1": [1]}),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        ((1, {2}), [1, [2]]),
        (range(3), [0, 1, 2]),
        ({"a": (1,), 2: 3}, {"a": [1], "2": 3}),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.timedelta(minutes=1), 60.0),
        (decimal.Decimal("1.5"), 1.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Point(1.0, [2]), {"x": 1.0, "y": [2]}),
    ],
)
def test_a_value_has_its_json_form(value: Any, sent: Any) -> None:
    made = encode(value)
    assert made == sent
    assert json.loads(json.dumps(made, allow_nan=False)) == sent


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.inf, "infinity"),
        (np.array([1.0, -math.inf]), "infinity"),
        (1j, "complex has no JSON form"),
        (b"bytes", "bytes has no JSON form"),
        (object(), "object has no JSON form"),
        ({(1, 2): 3}, "can not be a name"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns"),
    ],
)
def test_what_has_none_is_refused_by_name(value: Any, why: str) -> None:
    with pytest.raises(InputInvalid, match=f"input 'x'.*{why}"):
        encode(value, "input 'x'")


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputInvalid, match="contains itself"):
        encode(endless)


def test_arrays_are_made_of_what_came() -> None:
    assert array_of([1, 2], "o").dtype == np.int64
    assert np.isnan(array_of([1, None], "o")).tolist() == [False, True]
    assert array_of([[1, 2], [3, 4]], "o").shape == (2, 2)
    with pytest.raises(InputInvalid, match="output 'o': is int"):
        array_of(3, "output 'o'")
    with pytest.raises(InputInvalid, match="different lengths"):
        array_of([[1], [1, 2]], "o")


def test_frames_are_made_of_columns_and_of_rows() -> None:
    assert frame_of({"a": [1, 2]}, "o").equals(frame_of([{"a": 1}, {"a": 2}], "o"))
    with pytest.raises(InputInvalid, match="not a data frame"):
        frame_of([1], "o")


def test_records_of_unequal_columns_are_refused() -> None:
    with pytest.raises(InputInvalid, match="a 1, b 2"):
        records_of({"a": [1], "b": [1, 2]})
    with pytest.raises(InputInvalid, match="record 0: is int"):
        records_of([1])


def test_neither_numpy_nor_pandas_nor_dill_is_imported_by_who_does_not_use_them() -> None:
    code = (
        "import sys\nfrom sessionpools.client import Client\nfrom sessionpools.client.values import encode\n"
        "Client('http://a')\nencode({'a': [1.5, 'x']})\n"
        "print([name for name in ('numpy', 'pandas', 'dill', 'typer', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
