"""Inputs: from what JSON says to what the user's function gets, by ML Server's types.

    numeric     float           a number
    integer     int             a number without a fraction: 3 and 3.0 (JSON has one kind of number)
    logical     bool            true, false; no numbers
    character   str             a string
    vector      numpy.array     an array of one kind of value; nested arrays of equal lengths give more dimensions
    matrix      2-d array       an array of rows of equal lengths; a numpy.matrix where the parameter's annotation says
                                so, and only there, as scikit-learn and others refuse numpy.matrix
    data.frame  DataFrame       {"column": [values]}, or rows: [{"column": value}]
    any         what it is      as orjson reads it

null is NaN among numbers, None among strings and booleans, and refused for a scalar unless the parameter is optional.
A vector of whole numbers is one of int64, as numpy.array makes it. Where a parameter is annotated as a list it gets
lists. numpy and pandas are imported by `reader`, for the types that need them, so that the runtime works without them.

Never looks at names: callers say which input a Mismatch is about. Called by signature.py and invoke.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

Reader = Callable[[Any], Any]

SCALARS: Final = ("numeric", "integer", "logical", "character")
TYPES: Final = (*SCALARS, "vector", "matrix", "data.frame", "any")

# What the function gets for a vector or a matrix.
ARRAY: Final = ""
LIST: Final = "list"
NUMPY_MATRIX: Final = "numpy.matrix"

_MAX_DIMENSIONS: Final = 16
# Above this a float is not a whole number that somebody wrote: it may have been rounded.
_EXACT: Final = 2**53
_KINDS: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
_NUMBERS: Final = frozenset((int, float))
_NULL: Final = type(None)


class Mismatch(ValueError):  # noqa: N818  said of a value, not of a program
    """`expected numeric, got string`."""


def kind(value: Any) -> str:
    """The JSON kind of a value, as messages name it."""
    return _KINDS.get(type(value), type(value).__name__)


def reader(type_name: str, form: str = ARRAY, nullable: bool = False) -> Reader:
    """The conversion for a type. Raises ImportError when the type needs a package that is not there."""
    read = _reader(type_name, form)
    if not nullable or type_name == "any":
        return read
    return lambda value: None if value is None else read(value)


def _reader(type_name: str, form: str) -> Reader:
    if type_name == "numeric":
        return _numeric
    if type_name == "integer":
        return _integer
    if type_name == "logical":
        return _logical
    if type_name == "character":
        return _character
    if type_name == "vector":
        return _Vector(form)
    if type_name == "matrix":
        return _Matrix(form)
    if type_name == "data.frame":
        return _Frame()
    if type_name == "any":
        return _any
    raise ValueError(f"no such type: {type_name!r}; the types are {', '.join(TYPES)}")


# --- scalars ----------------------------------------------------------------------------------------------------------


def _numeric(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise Mismatch(f"expected numeric, got {kind(value)}")


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float:
        if value.is_integer() and -_EXACT <= value <= _EXACT:
            return int(value)
        raise Mismatch(f"expected integer, got {value!r}")
    raise Mismatch(f"expected integer, got {kind(value)}")


def _logical(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Mismatch(f"expected logical, got {kind(value)}")


def _character(value: Any) -> str:
    if type(value) is str:
        return value
    raise Mismatch(f"expected character, got {kind(value)}")


def _any(value: Any) -> Any:
    return value


# --- arrays -----------------------------------------------------------------------------------------------------------


def _flatten(value: list[Any], type_name: str) -> tuple[list[Any], tuple[int, ...]]:
    """The values of nested lists of equal lengths, and the shape."""
    shape = [len(value)]
    while value and type(value[0]) is list:
        width = len(value[0])
        for row in value:
            if type(row) is not list:
                raise Mismatch(f"expected {type_name}, got an array of arrays and of {kind(row)}")
            if len(row) != width:
                raise Mismatch(f"expected {type_name}, got rows of different lengths ({width} and {len(row)})")
        value = [item for row in value for item in row]
        shape.append(width)
        if len(shape) > _MAX_DIMENSIONS:
            raise Mismatch(f"expected {type_name}, got arrays nested more than {_MAX_DIMENSIONS} deep")
    return value, tuple(shape)


def _one_kind(values: Iterable[Any], type_name: str) -> set[type]:
    """The types of scalar values, which must be of one kind; null may stand among them."""
    types = set(map(type, values))
    if types <= {int, float, _NULL} or types <= {str, _NULL} or types <= {bool, _NULL}:
        return types
    found = sorted({_KINDS.get(item, item.__name__) for item in types} - {"null"})
    if len(found) == 1:
        raise Mismatch(f"expected {type_name}, got an array of {found[0]}s")
    raise Mismatch(f"expected {type_name} of one kind of value, got {' and '.join(found)}")


class _Array:
    """Reads flat values of one kind into an array."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._numpy: Any = None if form == LIST else importlib.import_module("numpy")

    def array(self, flat: list[Any], shape: tuple[int, ...], type_name: str) -> Any:
        types = _one_kind(flat, type_name)
        numpy = self._numpy
        if types <= _NUMBERS and types:
            result = numpy.array(flat)
        elif types <= {int, float, _NULL}:
            result = numpy.array(flat, dtype=float)  # None is NaN; no values at all: floats
        elif _NULL in types:
            result = numpy.array(flat, dtype=object)
        else:
            result = numpy.array(flat)
        if len(shape) > 1:
            result = result.reshape(shape)
        return numpy.matrix(result) if self.form == NUMPY_MATRIX else result


class _Vector(_Array):
    def __call__(self, value: Any) -> Any:
        if type(value) is not list:
            raise Mismatch(f"expected vector, got {kind(value)}")
        flat, shape = _flatten(value, "vector")
        if self.form == LIST:
            return _list(value, flat)
        return self.array(flat, shape, "vector")


class _Matrix(_Array):
    def __call__(self, value: Any) -> Any:
        if type(value) is not list:
            raise Mismatch(f"expected matrix, got {kind(value)}")
        flat, shape = _flatten(value, "matrix")
        if shape == (0,):
            shape = (0, 0)
        if len(shape) != 2:
            raise Mismatch(f"expected matrix (an array of rows), got an array of {len(shape)} dimension(s)")
        if self.form == LIST:
            return _list(value, flat)
        return self.array(flat, shape, "matrix")


def _list(value: list[Any], flat: list[Any]) -> list[Any]:
    types = _one_kind(flat, "vector")
    return _nan_for_null(value) if _NULL in types and types <= {int, float, _NULL} else value


def _nan_for_null(value: list[Any]) -> list[Any]:
    return [_nan_for_null(x) if type(x) is list else float("nan") if x is None else x for x in value]


# --- frames -----------------------------------------------------------------------------------------------------------


class _Frame:
    def __init__(self) -> None:
        self._pandas: Any = importlib.import_module("pandas")

    def __call__(self, value: Any) -> Any:
        if type(value) is dict:
            columns = value
        elif type(value) is list:
            columns = _columns_of_rows(value)
        else:
            raise Mismatch(f"expected data.frame (an object of columns), got {kind(value)}")
        length = -1
        data: dict[str, Any] = {}
        for name, column in columns.items():
            if type(column) is not list:
                raise Mismatch(f"expected data.frame, got {kind(column)} for column {name!r}")
            if length not in (-1, len(column)):
                raise Mismatch(f"expected data.frame, got columns of different lengths ({length} and {len(column)})")
            length = len(column)
            data[name] = self._column(name, column)
        return self._pandas.DataFrame(data)

    def _column(self, name: str, column: list[Any]) -> Any:
        try:
            types = _one_kind(column, "column")
        except Mismatch as error:
            raise Mismatch(f"column {name!r}: {error}") from None
        if types and types <= {int, float, _NULL} and _NULL in types:
            return self._pandas.Series(column, dtype=float)  # all null too: pandas would make objects of them
        return column


def _columns_of_rows(rows: list[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise Mismatch(f"expected data.frame (an object of columns, or rows), got {kind(row)} for row {number}")
        for name in row:
            if name not in columns:
                columns[name] = []
    for name, column in columns.items():
        column.extend(row.get(name) for row in rows)
    return columns
