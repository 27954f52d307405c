"""What a service takes and gives: from the revision's declarations, or from the annotations of its function.

A declaration decides names and types; an annotation then still decides the form that a value has in Python (a list
instead of an array, numpy.matrix) and whether null is allowed (Optional, or None for a default). Annotations that
cannot be resolved, or have no counterpart among ML Server's types, are `any`. Pure but for reading annotations, which
may run code of the user's module. Called by invoke.py.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sessionpools.session import values

# The one output of a function whose outputs are not declared; ML Server's own name for it.
ANSWER: Final = "answer"


class SignatureError(ValueError):
    """The function cannot be called with the declared inputs. A sentence without its subject: `requires ...`."""


@dataclass(frozen=True)
class Input:
    name: str
    type: str
    required: bool = True
    form: str = values.ARRAY
    nullable: bool = False


@dataclass(frozen=True)
class Output:
    name: str
    type: str


@dataclass(frozen=True)
class Signature:
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    open: bool = False  # takes further inputs, of any type
    answers: bool = False  # nothing is declared: what is returned is the output "answer"

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        return {
            "inputs": [{"name": i.name, "type": i.type, "required": i.required} for i in self.inputs],
            "outputs": [{"name": o.name, "type": o.type} for o in self.outputs],
        }


Declared = Sequence[Mapping[str, str]] | None


def of_script(inputs: Declared, outputs: Declared) -> Signature:
    """A script takes what is declared, or anything; it gives the variables that are declared."""
    if outputs is None:
        raise SignatureError("declares no outputs: name the variables that it gives")
    return Signature(
        inputs=tuple(Input(i["name"], _checked(i)) for i in inputs or ()),
        outputs=tuple(Output(o["name"], _checked(o)) for o in outputs),
        open=inputs is None,
    )


def of_function(function: Callable[..., Any], inputs: Declared, outputs: Declared) -> Signature:
    """Raises SignatureError when function and declarations do not fit."""
    try:
        signature = _signature(function)
    except (TypeError, ValueError):
        raise SignatureError("has no signature that can be read") from None
    hints = _hints(function)
    known: dict[str, Input] = {}
    takes_any = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise SignatureError(f"has *{parameter.name}: inputs are passed by name")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise SignatureError(f"has the positional-only parameter {parameter.name!r}: inputs are passed by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        else:
            known[parameter.name] = _of_parameter(parameter, hints.get(parameter.name, parameter.annotation))
    if inputs is not None:
        chosen = tuple(_declared_input(item, known, takes_any) for item in inputs)
        names = {item.name for item in chosen}
        for parameter_name, item in known.items():
            if item.required and parameter_name not in names:
                raise SignatureError(
                    f"requires the parameter {parameter_name!r}, which is not among the declared inputs"
                )
        takes_any = False
    else:
        chosen = tuple(known.values())
    if outputs is not None:
        given = tuple(Output(o["name"], _checked(o)) for o in outputs)
    else:
        given = _returned(hints.get("return", signature.return_annotation))
    answers = outputs is None and len(given) == 1 and given[0].name == ANSWER
    return Signature(chosen, given, open=takes_any, answers=answers)


def _checked(item: Mapping[str, str]) -> str:
    name = item.get("type") or "any"
    if name not in values.TYPES:
        raise SignatureError(
            f"declares the type {name!r} for {item.get('name')!r}; types are {', '.join(values.TYPES)}"
        )
    return name


def _declared_input(item: Mapping[str, str], known: Mapping[str, Input], takes_any: bool) -> Input:
    name, type_name = item["name"], _checked(item)
    parameter = known.get(name)
    if parameter is None:
        if not takes_any:
            raise SignatureError(f"has no parameter {name!r}, which is a declared input")
        return Input(name, type_name)
    form = parameter.form
    if (form == values.LIST and type_name not in ("vector", "matrix")) or (
        form == values.NUMPY_MATRIX and type_name != "matrix"
    ):
        form = values.ARRAY
    return replace(parameter, type=type_name, form=form)


def _of_parameter(parameter: inspect.Parameter, annotation: Any) -> Input:
    found = read_annotation(annotation)
    required = parameter.default is parameter.empty
    nullable = found.nullable or parameter.default is None
    return replace(found, name=parameter.name, required=required, nullable=nullable)


def _returned(annotation: Any) -> tuple[Output, ...]:
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation)
        return tuple(Output(name, read_annotation(hint).type) for name, hint in hints.items())
    return (Output(ANSWER, read_annotation(annotation).type),)


# --- annotations ------------------------------------------------------------------------------------------------------


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by name, resolved one by one: one that fails spoils no other."""
    target: Any = function
    while hasattr(target, "func") and hasattr(target, "keywords"):  # functools.partial
        target = target.func
    if not hasattr(target, "__annotations__") or isinstance(target, type):
        target = getattr(target, "__init__" if isinstance(target, type) else "__call__", None)
    target = inspect.unwrap(target) if target is not None else None
    scope = getattr(target, "__globals__", {})
    hints = {}
    for name, annotation in _annotations(target).items():

        def holder() -> None: ...

        holder.__annotations__ = {name: annotation}
        try:
            hints[name] = typing.get_type_hints(holder, globalns=scope)[name]
        except Exception:
            hints[name] = Any
    return hints


def _annotations(target: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are read
        import annotationlib

        return annotationlib.get_annotations(target, format=annotationlib.Format.FORWARDREF) if target else {}
    return getattr(target, "__annotations__", None) or {}


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def read_annotation(annotation: Any) -> Input:
    """Type, form and nullability of an annotation; the name is empty."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        kinds = [read_annotation(argument) for argument in arguments if argument is not type(None)]
        nullable = len(kinds) < len(arguments)
        names = {kind.type for kind in kinds}
        if len(names) == 1:
            return replace(kinds[0], nullable=nullable)
        return Input("", "numeric" if names == {"numeric", "integer"} else "any", nullable=nullable)
    if origin is typing.Annotated:
        return read_annotation(arguments[0])
    base = origin if origin is not None else annotation
    for alias in ("__value__", "__supertype__"):  # `type X = ...` (numpy's NDArray is one) and NewType
        if not isinstance(base, type) and hasattr(base, alias):
            return read_annotation(getattr(base, alias))
    if base in (list, Sequence):
        plain = not arguments or read_annotation(arguments[0]).type in (*values.SCALARS, "vector")
        return Input("", "vector", form=values.LIST) if plain else Input("", "any")
    return Input("", *_of_class(base)) if isinstance(base, type) else Input("", "any")


def _of_class(base: type) -> tuple[str, bool, str]:
    """Type, required, form."""
    for python, name in ((bool, "logical"), (int, "integer"), (float, "numeric"), (str, "character")):
        if base is python:
            return name, True, values.ARRAY
    # An annotation is a class of numpy or pandas only when they are loaded.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if issubclass(base, numpy.matrix):
            return "matrix", True, values.NUMPY_MATRIX
        pairs = ((numpy.ndarray, "vector"), (numpy.bool_, "logical"), (numpy.integer, "integer"))
        for python, name in (*pairs, (numpy.floating, "numeric")):
            if issubclass(base, python):
                return name, True, values.ARRAY
    pandas = sys.modules.get("pandas")
    if pandas is not None and issubclass(base, pandas.DataFrame):
        return "data.frame", True, values.ARRAY
    return "any", True, values.ARRAY
