"""Functions as source text, and names of classes."""

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["function_args", "to_camel_case", "to_self_execution_block"]


def to_camel_case(token: str | None, prefix: str = "") -> str:
    """The name of a class for a service: each word begins with a capital; `prefix` where it would begin with a
    digit."""
    if not token:
        return ""
    words = re.split(r"[^0-9a-zA-Z]+", prefix + token if token[0].isdigit() else token)
    return "".join(word.title() for word in words)


def function_args(function: Callable[..., Any]) -> list[str]:
    """The names of its parameters, in order. Raises ValueError for a kind of parameter that no service can have."""
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise ValueError(f"{function.__name__}: parameter {name!r} is {parameter.kind.description}: use plain ones")
        names.append(name)
    return names


def to_self_execution_block(function: Callable[..., Any], output: str | Sequence[str] | None = None) -> str:
    """Its source, and a line that calls it with variables of its parameters' names and assigns what it returns to
    `output`; several outputs take the items of a tuple."""
    if function.__name__ == "<lambda>":
        raise ValueError("a lambda has no source of its own: write it as def")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise ValueError(
            f"{function.__name__}: its source is not to be had (typed into a plain prompt?): put it into a file or a "
            "notebook, or give its text as code_str"
        ) from None
    outputs = [output] if isinstance(output, str) else list(output or ())
    call = f"{function.__name__}({', '.join(function_args(function))})"
    assigned = f"{', '.join(outputs)} = " if outputs else ""
    return f"{source.rstrip()}\n\n{assigned}{call}"
