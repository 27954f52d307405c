"""What both kinds have in common: how models read and write JSON, metadata, conditions. Used by the kinds only."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from sessionpools.api.scalars import Count
from sessionpools.api.schema import RULES, JsonSchema, Schema

JsonObject = dict[str, Any]

MAX_CONDITION_MESSAGE = 32768  # characters; the bound of Kubernetes' own conditions

# status.observedGeneration of an object that no controller has looked at. It stands in the CRDs as a default: an object
# just made would have no status without it, which kstatus (Helm, Flux) takes for done.
NOT_OBSERVED = -1

# How server-side apply merges lists.
ATOMIC: JsonSchema = {"x-kubernetes-list-type": "atomic"}


def by(key: str) -> JsonSchema:
    """A list whose items are told apart by a field."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def checked(rules: list[JsonSchema]) -> ConfigDict:
    """The configuration of a model whose objects the API server checks by CEL rules."""
    return ConfigDict(json_schema_extra={RULES: list[Any](rules)})


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]


class Model(BaseModel):
    """What all parts of the kinds have in common: snake_case here, camelCase in the API, immutable once read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_json(self, *, defaults: bool = True) -> JsonObject:
        """As the API server takes it: camelCase, times as RFC 3339 in seconds, without None.

        Status is written with defaults, so that a 0 is shown as one; spec without, as its author would write it.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults)


class ObjectMeta(Model):
    """The part of an object's metadata that somebody here reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


class Condition(Model):
    """One aspect of an object's state, as `kubectl wait --for=condition=...`, Flux, Argo CD and Helm read it."""

    type: Annotated[str, Schema(minLength=1, maxLength=316)]
    """What the condition is about, in CamelCase, for example Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds: True, False or Unknown."""
    reason: Annotated[str, Schema(minLength=1, maxLength=1024)]
    """Why, as one CamelCase word for programs."""
    message: Annotated[str, Schema(maxLength=MAX_CONDITION_MESSAGE)]
    """Why, as a sentence for people."""
    observed_generation: Count = 0
    """metadata.generation of the object when this was observed."""
    last_transition_time: Time
    """When status last changed from one value to another."""
