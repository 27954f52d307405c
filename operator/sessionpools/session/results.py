"""Outputs: from what the user's code returned to JSON.

Numbers, strings, booleans, None, lists, tuples, dicts, dataclasses, enums, UUIDs, dates and times go as orjson writes
them. NaN and infinities are null everywhere, as JSON has no word for them; so are NaT and pandas.NA. Further:

    numpy arrays, Series, Index     arrays
    DataFrame                       {"column": [values]}, without its index
    numpy numbers, Decimal          numbers
    datetime64, Timestamp           ISO 8601 strings
    timedelta                       seconds
    sets, other sequences           arrays (a set's order is its own)
    keys of dicts                   numbers, booleans, None, enums and dates become strings

An output that is declared (or annotated) is checked: a value of another type is an error that names it. For a declared
scalar an array of one element is that element. What has no JSON form (bytes, complex numbers, models, generators,
integers beyond 64 bits, a DataFrame with two columns of one name) is an error too. orjson ends the process when memory
runs out while it writes; the caller then gets 502, and only this session ends.

numpy and pandas are never imported here: what is of their types comes from code that did. Called by invoke.py.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import numbers
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final

import orjson

Writer = Callable[[Any], Any]

_EXACT: Final = 2**53
_WHOLE_DATES: Final = ("Y", "M", "W", "D")


class OutputError(Exception):
    """An output is missing, or cannot be represented. The message names it."""


class Unfit(TypeError):  # noqa: N818
    """`expected numeric, got str`."""


# --- what a declared type accepts -------------------------------------------------------------------------------------


def writer(type_name: str) -> Writer | None:
    """The check of a declared output; None accepts anything."""
    return _WRITERS.get(type_name)


def _single(value: Any) -> Any:
    """A numpy number, or the only element of an array, as Python's own; anything else as it is."""
    if getattr(value, "size", 0) == 1 and hasattr(value, "item"):
        return value.item()
    return value


def _numeric(value: Any) -> Any:
    if type(value) is float or value is None:
        return value
    value = _single(value)
    if isinstance(value, (numbers.Real, decimal.Decimal)) and not isinstance(value, bool):
        return float(value)
    raise Unfit(f"expected numeric, got {_name(value)}")


def _integer(value: Any) -> Any:
    if type(value) is int or value is None:
        return value
    value = _single(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer() and -_EXACT <= value <= _EXACT:
        return int(value)
    raise Unfit(
        f"expected integer, got {value!r}" if isinstance(value, float) else f"expected integer, got {_name(value)}"
    )


def _logical(value: Any) -> Any:
    if value is None:
        return None
    value = _single(value)
    if isinstance(value, bool):
        return value
    raise Unfit(f"expected logical, got {_name(value)}")


def _character(value: Any) -> Any:
    if value is None:
        return None
    value = _single(value)
    if isinstance(value, str):
        return value
    raise Unfit(f"expected character, got {_name(value)}")


def _vector(value: Any) -> Any:
    if value is None or isinstance(value, (list, tuple, set, frozenset)):
        return value
    if _is_frame(value):
        return value.to_numpy()
    if getattr(value, "ndim", 0) >= 1 or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    ):
        return value
    raise Unfit(f"expected vector, got {_name(value)}")


def _matrix(value: Any) -> Any:
    if value is None:
        return None
    if _is_frame(value):
        return value.to_numpy()
    if isinstance(value, (list, tuple)) and all(isinstance(row, (list, tuple)) or _rank(row) == 1 for row in value):
        return value
    if _rank(value) == 2:
        return value
    rank = _rank(value)
    raise Unfit(f"expected matrix, got {_name(value)}" + (f" of {rank} dimension(s)" if rank else ""))


def _data_frame(value: Any) -> Any:
    if value is None or _is_frame(value):
        return value
    if isinstance(value, dict):
        for name, column in value.items():
            if not isinstance(column, (list, tuple)) and _rank(column) != 1:
                raise Unfit(f"expected data.frame, got {_name(column)} for column {name!r}")
        return value
    raise Unfit(f"expected data.frame, got {_name(value)}")


_WRITERS: Final[dict[str, Writer]] = {
    "numeric": _numeric,
    "integer": _integer,
    "logical": _logical,
    "character": _character,
    "vector": _vector,
    "matrix": _matrix,
    "data.frame": _data_frame,
}


def _rank(value: Any) -> int:
    rank = getattr(value, "ndim", 0)
    return rank if isinstance(rank, int) else 0


def _is_frame(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, "DataFrame", ()))


def _name(value: Any) -> str:
    return type(value).__name__


# --- to JSON ----------------------------------------------------------------------------------------------------------


def dumps(answer: dict[str, Any]) -> bytes:
    """The body of an answer. Raises OutputError for the output that has no JSON form."""
    try:
        return orjson.dumps(answer, default)
    except TypeError:
        pass
    # The slow way: dicts with keys that are not strings, and to find the output that is to blame.
    fragments: dict[str, orjson.Fragment] = {}
    for name, value in answer["outputParameters"].items():
        try:
            fragments[name] = orjson.Fragment(orjson.dumps(with_text_keys(value), default))
        except RecursionError:
            raise OutputError(f"output {name!r}: nested too deeply, or within itself") from None
        except TypeError as error:
            raise OutputError(f"output {name!r}: {error.__cause__ or error}") from None
    return orjson.dumps({**answer, "outputParameters": fragments}, default)


def default(value: Any) -> Any:
    """What orjson does not know."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _array(numpy, value)
        if isinstance(value, numpy.generic):
            return _numpy_scalar(numpy, value)
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        if value is pandas.NaT or value is pandas.NA:
            return None
        if isinstance(value, pandas.DataFrame):
            return _frame(value)
        if isinstance(value, (pandas.Series, pandas.Index)):
            return _column(value)
        if isinstance(value, pandas.api.extensions.ExtensionArray):
            return value.tolist()
        if isinstance(value, (pandas.Period, pandas.Interval)):
            return str(value)
    if isinstance(value, (numbers.Real, decimal.Decimal)):
        return float(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (datetime.date, datetime.time)):  # of classes of their own, such as Timestamp
        return value.isoformat()
    if isinstance(value, Mapping):
        return with_text_keys(dict(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise Unfit("bytes have no JSON form; return text, or write them to an output file")
    if isinstance(value, (tuple, Set, Sequence, deque)):
        return list(value)
    raise Unfit(f"{_name(value)} has no JSON form")


def _array(numpy: Any, array: Any) -> Any:
    if array.ndim == 0:
        return array.item() if array.dtype.kind in "OUS" else _numpy_scalar(numpy, array[()])
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        return array.tolist()
    kind = array.dtype.kind
    if kind in "iufb":
        if not array.dtype.isnative or array.dtype.itemsize > 8:
            array = array.astype("float64" if kind == "f" else array.dtype.newbyteorder("="))
        # A fragment, as orjson would also write datetime64 by itself, NaT as a date in 1677.
        plain = numpy.ascontiguousarray(numpy.asarray(array))
        return orjson.Fragment(orjson.dumps(plain, option=orjson.OPT_SERIALIZE_NUMPY))
    if kind == "M":
        return _readable_times(numpy, array).tolist()
    if kind == "m":
        return _array(numpy, array / numpy.timedelta64(1, "s"))
    return array.tolist()


def _numpy_scalar(numpy: Any, value: Any) -> Any:
    kind = value.dtype.kind
    if kind == "M":
        return _readable_times(numpy, value).item()
    if kind == "m":
        return float(value / numpy.timedelta64(1, "s"))
    if kind == "f":
        return float(value)
    return value.item()


def _readable_times(numpy: Any, value: Any) -> Any:
    """In a unit that numpy turns into datetime or date; finer ones turn into integers."""
    unit = numpy.datetime_data(value.dtype)[0]
    return value.astype("datetime64[D]" if unit in _WHOLE_DATES else "datetime64[us]")


def _frame(frame: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        text = name if isinstance(name, str) else str(name)
        if text in columns:
            raise Unfit(f"the DataFrame has more than one column {text!r}")
        columns[text] = _column(column)
    return columns


def _column(column: Any) -> Any:
    values = column.to_numpy() if getattr(column.dtype, "kind", "O") in "iufbMm" else None
    # Nullable and time-zone types convert to arrays of objects, or with a loss: their own list is right.
    numpy_type = type(column.dtype).__module__.startswith("numpy")
    return values if values is not None and numpy_type else column.tolist()


def with_text_keys(value: Any) -> Any:
    """The value with strings for keys, through dicts, lists, tuples and dataclasses."""
    if isinstance(value, dict):
        result = {_key(key): with_text_keys(item) for key, item in value.items()}
        if len(result) != len(value):
            raise Unfit("a dict has two keys that are the same text")
        return result
    if isinstance(value, (list, tuple)):
        return [with_text_keys(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: with_text_keys(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def _key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, enum.Enum):
        return key
    if isinstance(key, enum.Enum):
        return _key(key.value)
    if hasattr(key, "item") and hasattr(key, "dtype"):
        key = key.item()
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (int, float, decimal.Decimal)):
        return str(key)
    if isinstance(key, (datetime.date, datetime.time)):
        return key.isoformat()
    raise Unfit(f"a key of a dict is a {_name(key)}; keys must be strings")
