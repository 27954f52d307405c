"""What the client returns. Frozen; unknown fields of newer servers are ignored; both key casings of Machine Learning
Server (`status` and `Status`) are read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_pascal

from sessionpools.client.errors import AnswerInvalid, InputInvalid
from sessionpools.client.values import array_of, frame_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "Batch",
    "BatchItem",
    "BatchStatus",
    "CallResult",
    "Component",
    "Condition",
    "Node",
    "NodeUsage",
    "Parameter",
    "PodLog",
    "PoolNode",
    "PoolStatus",
    "PoolUsage",
    "Service",
    "ServiceLogs",
    "Wait",
    "read",
]

T = TypeVar("T")
State = Literal["Success", "Pending", "NotFound"]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        alias_generator=AliasGenerator(
            validation_alias=lambda name: AliasChoices(to_camel(name), to_pascal(name)),
            serialization_alias=to_camel,
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


# --- services -------------------------------------------------------------------------------------------------------


class Parameter(_Model):
    """An input or output: `type` is one of numeric, integer, logical, character, vector, matrix, data.frame, any."""

    name: str
    type: str = "any"


class Service(_Model):
    """A published web service."""

    name: str
    version: str
    description: str = ""
    published_by: str = Field("", validation_alias=AliasChoices("versionPublishedBy", "publishedBy"))
    creation_time: str = ""
    runtime_type: str = "Python"
    alias: str = Field("", validation_alias=AliasChoices("operationId", "alias"))
    inputs: tuple[Parameter, ...] = Field((), validation_alias=AliasChoices("inputParameterDefinitions", "inputs"))
    outputs: tuple[Parameter, ...] = Field((), validation_alias=AliasChoices("outputParameterDefinitions", "outputs"))
    output_files: tuple[str, ...] = Field((), validation_alias=AliasChoices("outputFileNames", "outputFiles"))

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


class PodLog(_Model):
    """The end of a session pod's log, the newest line last. `cut`: the last lines are too large, so that fewer came, or
    the beginning of one. `error` says why it could not be read."""

    node: str
    pod: str
    lines: tuple[str, ...] = ()
    cut: bool = False
    error: str = ""


class ServiceLogs(_Model):
    """What the sessions of a service have written last, by node. `not_read` counts further session pods."""

    name: str
    version: str
    pods: tuple[PodLog, ...] = ()
    not_read: int = 0


# --- pools ----------------------------------------------------------------------------------------------------------


class Condition(_Model):
    """Why a pool is as it is: type Ready, Reconciling or Stalled, and a sentence."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class PoolNode(_Model):
    """Whether a compute node has its sessions. Success: they are ready. Pending: they are awaited, or not gone yet."""

    endpoint: str = Field("", validation_alias=AliasChoices("computeNodeEndpoint", "ComputeNodeEndpoint", "endpoint"))
    status: State

    @property
    def name(self) -> str:
        return _host(self.endpoint)


class PoolStatus(_Model):
    """A dedicated pool on all compute nodes, as Machine Learning Server tells it; PoolUsage says more."""

    name: str
    version: str
    nodes: tuple[PoolNode, ...] = ()

    @property
    def status(self) -> State:
        """Success on all nodes; NotFound: on none, not even awaited; else Pending."""
        states = {node.status for node in self.nodes}
        if states == {"Success"}:
            return "Success"
        return "Pending" if states - {"NotFound"} else "NotFound"


class Wait(_Model):
    """How long calls waited for a session since the gateways started: seconds; percentiles are bounds of buckets."""

    count: int = 0
    mean_seconds: float | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None


class NodeUsage(_Model):
    """A pool on one compute node. `message` says why it is not Success; `grown` are sessions above initialPoolSize."""

    node: str
    status: State
    desired: int = 0
    ready: int = 0
    busy: int = 0
    idle: int = 0
    starting: int = 0
    grown: int = 0
    message: str = ""


class PoolUsage(_Model):
    """What a pool's sessions do now. `queued` and `wait` come from the gateways: unknown when none of them answers."""

    name: str
    version: str
    status: State
    initial_pool_size: int
    max_pool_size: int
    busy: int = 0
    idle: int = 0
    starting: int = 0
    queued: int = 0
    grown: int = 0
    wait: Wait | None = None
    gateways: int = 0
    nodes: tuple[NodeUsage, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def ready(self) -> int:
        return sum(node.ready for node in self.nodes)

    @property
    def desired(self) -> int:
        return sum(node.desired for node in self.nodes)

    @property
    def stalled(self) -> str:
        """Why it makes no progress without a change by somebody; empty while it does, or is ready."""
        found = next((c for c in self.conditions if c.type == "Stalled" and c.status == "True"), None)
        return "" if found is None else found.message or found.reason


# --- calls ----------------------------------------------------------------------------------------------------------


class CallResult(_Model):
    """What a call gave. `outputs` are the outputs by name as JSON has them; `array` and `frame` make more of them."""

    success: bool = True
    error: str = Field("", validation_alias=AliasChoices("errorMessage", "error"))
    outputs: Mapping[str, Any] = Field({}, validation_alias=AliasChoices("outputParameters", "outputs"))
    console: str = Field("", validation_alias=AliasChoices("consoleOutput", "console"))
    changed_files: tuple[str, ...] = ()
    files: Mapping[str, str | None] = Field({}, validation_alias=AliasChoices("outputFiles", "files"))
    request_id: str = ""

    def output(self, name: str = "") -> Any:
        """An output; without a name the only one. Raises InputInvalid when there is none of that name."""
        if not name:
            if len(self.outputs) != 1:
                raise InputInvalid(f"there are {len(self.outputs)} outputs: name one of {_listed(self.outputs)}")
            return next(iter(self.outputs.values()))
        if name not in self.outputs:
            raise InputInvalid(f"there is no output {name!r}; there are {_listed(self.outputs)}")
        return self.outputs[name]

    def array(self, name: str = "") -> np.ndarray[Any, Any]:
        """A vector or matrix as numpy array."""
        return array_of(self.output(name), f"output {name!r}" if name else "the output")

    def frame(self, name: str = "") -> pd.DataFrame:
        """A data frame as pandas has it."""
        return frame_of(self.output(name), f"output {name!r}" if name else "the output")

    def file(self, name: str) -> bytes | None:
        """The content of a declared file; None when the call did not write it. Raises InputInvalid for no such file."""
        if name not in self.files:
            raise InputInvalid(f"there is no file {name!r}; there are {_listed(self.files)}")
        content = self.files[name]
        try:
            return None if content is None else base64.b64decode(content, validate=True)
        except binascii.Error:
            raise AnswerInvalid(f"file {name!r} is not in base64") from None


# --- batches --------------------------------------------------------------------------------------------------------


class Batch(_Model):
    """A batch that was started."""

    name: str
    version: str
    id: str


class BatchItem(CallResult):
    """What one item of a batch gave."""

    index: int


class BatchStatus(_Model):
    """How far a batch is. `results` are those that are there, in the order of the items, each with its index."""

    batch: Batch
    state: str
    completed: int = Field(0, validation_alias=AliasChoices("completedItemCount", "completed"))
    total: int = Field(0, validation_alias=AliasChoices("totalItemCount", "total"))
    results: tuple[BatchItem, ...] = ()

    @property
    def done(self) -> bool:
        return self.state.lower() in ("complete", "failed")

    @property
    def failed(self) -> tuple[BatchItem, ...]:
        """The results that are failures."""
        return tuple(item for item in self.results if not item.success)


# --- the server -----------------------------------------------------------------------------------------------------


class Component(_Model):
    """A part of the server: `status` is pass, warn or fail."""

    name: str
    status: str
    details: Mapping[str, Any] = {}
    components: tuple[Component, ...] = ()


class Node(_Model):
    """A compute node."""

    endpoint: str

    @property
    def name(self) -> str:
        return _host(self.endpoint)


def read(kind: type[T], body: Any, what: str) -> T:
    """`body` as this type. Raises AnswerInvalid, which names the request and the first field that does not fit."""
    try:
        return TypeAdapter(kind).validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise AnswerInvalid(f"{what}: {where}: {first['msg']}") from None


def _host(endpoint: str) -> str:
    """The node's name in the form in which Machine Learning Server names nodes, http://NODE:12805/."""
    return urlsplit(endpoint).hostname or endpoint


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
