"""The types of inputs and outputs: their names here, on the server, and the values between."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from sessionpools.client.errors import InputInvalid
from sessionpools.client.sources import type_name
from sessionpools.client.values import encode, frame_of

__all__ = ["EncodingType"]


class EncodingType(enum.Enum):
    """A member for each type; its value is the server's name."""

    integer = "integer"
    numeric = "numeric"
    character = "character"
    logical = "logical"
    vector = "vector"
    matrix = "matrix"
    dataframe = "data.frame"

    @staticmethod
    def from_python(kind: Any) -> str | None:
        """The server's name of a type, given as such or as its name; None for one that there is not."""
        if kind is list or kind in ("list", "array"):
            return "vector"
        try:
            return type_name(kind, "")
        except InputInvalid:
            return None

    @staticmethod
    def to_python(kind: str) -> str:
        """The name here of a type of the server."""
        return _PYTHON.get(kind, kind)

    @staticmethod
    def cast_from_python(kind: str, value: Any) -> Any:
        """What is sent. Raises ValueError for a value that has no JSON form, or is not of this kind."""
        made = encode(value)
        if made is None:
            return None
        cast = _CASTS.get(kind)
        if cast is None:
            return made
        if isinstance(made, list | Mapping) or (kind == "logical" and isinstance(made, str)):
            raise ValueError(f"{type(value).__name__} is no {_PYTHON[kind]}")
        return cast(made)

    @staticmethod
    def cast_to_python(kind: str, value: Any) -> Any:
        """What came, as arrays and data frames where it is such."""
        if value is None:
            return None
        if kind == "vector":
            import numpy as np

            return np.array(value)
        if kind == "matrix":
            import numpy as np

            return np.matrix(value)
        if kind == "data.frame":
            return frame_of(value, "output")
        cast = _CASTS.get(kind)
        return value if cast is None else cast(value)


_PYTHON: Final = {
    "integer": "int",
    "numeric": "float",
    "character": "str",
    "logical": "bool",
    "vector": "numpy.array",
    "matrix": "numpy.matrix",
    "data.frame": "pandas.DataFrame",
}
# Not of character: it is also what the server says of an input whose type it does not know, and takes as it comes.
_CASTS: Final[Mapping[str, Any]] = {"integer": int, "numeric": float, "logical": bool}
