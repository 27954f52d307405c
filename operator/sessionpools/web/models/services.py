"""Web services: what publishes and updates them, and how they are listed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from sessionpools.api.v1alpha1 import ParameterType
from sessionpools.web.models.base import Answer, Body

__all__ = ["ParameterDefinition", "PublishRequest", "ServiceAnswer"]

# Names of the types in the languages of those who publish, beside Machine Learning Server's own.
_ALSO: dict[str, ParameterType] = {
    "float": ParameterType.NUMERIC,
    "int": ParameterType.INTEGER,
    "bool": ParameterType.LOGICAL,
    "str": ParameterType.CHARACTER,
    "numpy.array": ParameterType.VECTOR,
    "numpy.ndarray": ParameterType.VECTOR,
    "numpy.matrix": ParameterType.MATRIX,
    "pandas.dataframe": ParameterType.DATA_FRAME,
    "dataframe": ParameterType.DATA_FRAME,
}
_DECLARABLE: tuple[ParameterType, ...] = tuple(each for each in ParameterType if each is not ParameterType.ANY)


def _type(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    name = given.strip().lower()
    return _ALSO.get(name, name)


def _declarable(given: ParameterType) -> ParameterType:
    if given is ParameterType.ANY:
        raise ValueError(f"is no type that can be declared: use {', '.join(_DECLARABLE)}")
    return given


class ParameterDefinition(Body):
    """An input or output."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """A Python identifier."""
    type: Annotated[ParameterType, BeforeValidator(_type), AfterValidator(_declarable)]
    """logical, numeric, integer, character, vector, matrix or data.frame; Python's own names are taken too."""


class PublishRequest(Body):
    """What a service is made of; in an update, all that shall change: what is left out, or null, stays.

    Either `code`, a block of Python that is run for each call with the inputs as variables, as Machine Learning
    Server's clients publish it, or `files` with the function (`entrypoint`) that answers calls."""

    snapshot_id: str | None = None
    """Snapshot (POST /sessions/ID/snapshot) whose objects become variables, and whose files lie beside the code."""
    code: str | None = None
    """Run for each call; its variables that outputParameterDefinitions name are the outputs."""
    init_code: str | None = None
    """Run once before the first call of a session; what it defines is there for each call."""
    description: Annotated[str, Field(max_length=4096)] | None = None
    """For people."""
    operation_id: Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    """Name of the call in swagger.json, and of the function in clients."""
    input_parameter_definitions: Annotated[list[ParameterDefinition], Field(max_length=256)] | None = None
    """Inputs of a call. Left out: any with `code`, and those of the function with `entrypoint`."""
    output_parameter_definitions: Annotated[list[ParameterDefinition], Field(max_length=256)] | None = None
    """Outputs of a call. Left out: none with `code`, and those of the function with `entrypoint`."""
    output_file_names: Annotated[list[str], Field(max_length=64)] | None = None
    """Files that a call writes and that are returned in base64."""
    runtime_type: str | None = None
    """Python; R is refused."""

    files: Annotated[dict[str, str], Field(max_length=1000)] | None = None
    """Relative paths and contents in base64; with `entrypoint`. Large ones come by way of a snapshot's files."""
    entrypoint: Annotated[str, Field(max_length=255)] | None = None
    """module:function that answers a call; not together with `code`."""
    init: Annotated[str, Field(max_length=255)] | None = None
    """module:function that runs once before the first call; with `entrypoint`. Empty: none does."""
    modules: Annotated[list[str], Field(max_length=64)] | None = None
    """Modules that are imported before the code."""
    warmup: dict[str, Any] | None = None
    """Inputs of a call that every session answers before it counts as ready."""


class ServiceAnswer(Answer):
    """A published service."""

    name: str
    version: str
    version_published_by: str
    """Who published it; empty if it was not published here."""
    owner: str
    """The same."""
    creation_time: str
    """ISO 8601, UTC."""
    snapshot_id: str | None
    """The snapshot that it was published from; it may be gone, as the service has all that it needs."""
    runtime_type: Literal["Python"] = "Python"
    init_code: str | None
    """null where it can not be read: not published here, or too large."""
    code: str | None
    """null where it can not be read: not published here, or too large."""
    description: str
    operation_id: str | None
    input_parameter_definitions: list[dict[str, str]]
    """As declared, else as the running service has them; empty while neither is known."""
    output_parameter_definitions: list[dict[str, str]]
    """As declared, else as the running service has them; empty while neither is known."""
    output_file_names: list[str]
    my_permission_on_service: Literal["read/write", "read only"]
    """Whether who asks may update and delete it."""
