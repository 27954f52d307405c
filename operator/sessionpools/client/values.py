"""Python values and the JSON of calls: numpy and pandas are known here, and imported by nobody who does not use them.

The rules are those of docs/reference/calls.md, from the caller's side: a frame is `{"column": [values]}`, NaN and what
pandas takes for missing are null, dates are ISO 8601. What has no JSON form is refused before anything is sent.
"""

import dataclasses
import datetime
import decimal
import enum
import math
import sys
import uuid
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sessionpools.client.errors import InputInvalid

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["array_of", "encode", "encode_inputs", "frame_of", "records_of"]

_DEPTH = 100  # deeper than any data; what contains itself has no end


def encode_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a call's inputs. Raises InputInvalid, naming the input."""
    return {name: encode(value, f"input {name!r}") for name, value in inputs.items()}


def encode(value: Any, what: str = "value", depth: int = 0) -> Any:
    """What json.dumps writes as it is. Raises InputInvalid for what has no JSON form; `what` names it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, enum.Enum):
        return encode(value.value, what, depth + 1)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _float(float(value), what)
    if depth > _DEPTH:
        raise InputInvalid(f"{what}: nested more than {_DEPTH} deep, or contains itself")
    found, made = _foreign(value, what, depth)
    if found:
        return made
    if isinstance(value, Mapping):
        return {_key(key, what): encode(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [encode(item, what, depth + 1) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return _float(float(value), what)
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: encode(getattr(value, field.name), what, depth + 1) for field in fields}
    raise InputInvalid(
        f"{what}: {type(value).__name__} has no JSON form: give numbers, strings, lists, dicts, arrays or data frames"
    )


def records_of(records: Any) -> list[dict[str, Any]]:
    """The items of a batch: rows of a data frame, a list of dicts, or a dict of equally long columns."""
    pandas = _imported("pandas")
    if pandas is not None and isinstance(records, pandas.DataFrame):
        columns = {_key(name, "records"): list(records[name]) for name in records.columns}
        return _rows(columns)
    if isinstance(records, Mapping):
        return _rows({_key(name, "records"): list(values) for name, values in records.items()})
    if not isinstance(records, Iterable) or isinstance(records, str | bytes):
        raise InputInvalid("records: give a list of dicts, a dict of lists, or a data frame")
    made = []
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InputInvalid(f"record {number}: is {type(record).__name__}, not a dict of inputs by name")
        made.append({str(name): encode(value, f"record {number}: {name!r}") for name, value in record.items()})
    return made


def array_of(value: Any, what: str) -> "np.ndarray[Any, Any]":
    """A vector or a matrix of an answer; null among numbers is NaN. Raises InputInvalid for what is none."""
    import numpy as np

    if not isinstance(value, list):
        raise InputInvalid(f"{what}: is {type(value).__name__}, not an array")
    try:
        made = np.array(value)
    except ValueError:
        raise InputInvalid(f"{what}: its rows are of different lengths, so it is no array") from None
    return made.astype(float) if made.dtype == object and _numbers(value) else made


def frame_of(value: Any, what: str) -> "pd.DataFrame":
    """A data frame of an answer: `{"column": [values]}`, or rows. Raises InputInvalid for what is none."""
    import pandas as pd

    if isinstance(value, Mapping) or (isinstance(value, list) and all(isinstance(row, Mapping) for row in value)):
        try:
            return pd.DataFrame(value)
        except ValueError as error:
            raise InputInvalid(f"{what}: is no data frame: {error}") from None
    raise InputInvalid(f"{what}: is {type(value).__name__}, not a data frame")


def _foreign(value: Any, what: str, depth: int) -> tuple[bool, Any]:
    """Whether it is numpy's or pandas', and its JSON then. Who has such a value has imported the library."""
    numpy, pandas = _imported("numpy"), _imported("pandas")
    if pandas is not None:
        if isinstance(value, pandas.DataFrame):
            if not value.columns.is_unique:
                raise InputInvalid(f"{what}: two columns of the data frame have one name; rename one")
            return True, {
                _key(name, what): encode(list(value[name]), f"{what}, column {name!r}", depth + 1)
                for name in value.columns
            }
        if isinstance(value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray):
            return True, encode(list(value), what, depth + 1)
        if value is pandas.NA or value is pandas.NaT:
            return True, None
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            # nanoseconds have no type in Python, and tolist() makes them integers
            plain = value.astype(f"{value.dtype.kind}8[us]") if value.dtype.kind in "mM" else value
            return True, encode(plain.tolist(), what, depth + 1)
        if isinstance(value, numpy.datetime64 | numpy.timedelta64):
            return True, encode(value.astype(f"{value.dtype.kind}8[us]").item(), what)
        if isinstance(value, numpy.generic):
            return True, encode(value.item(), what, depth + 1)
    return False, None


def _imported(name: str) -> ModuleType | None:
    return sys.modules.get(name)


def _float(value: float, what: str) -> float | None:
    if math.isnan(value):
        return None  # among numbers, null arrives as NaN
    if math.isinf(value):
        raise InputInvalid(f"{what}: infinity has no JSON form")
    return value


def _key(key: Any, what: str) -> str:
    if isinstance(key, str):
        return str(key)
    if isinstance(key, bool | int | float):
        return str(key)
    raise InputInvalid(f"{what}: {key!r} can not be a name in JSON; use strings")


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(_numbers(item) for item in value)
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _rows(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        said = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise InputInvalid(f"records: the columns are of different lengths: {said}")
    return [
        {name: encode(values[number], f"record {number}: {name!r}") for name, values in columns.items()}
        for number in range(lengths.pop() if lengths else 0)
    ]
