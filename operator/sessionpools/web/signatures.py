"""How a service's inputs and outputs, and all else of it, are shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Parameter, ParameterType, SignatureParameter, WebService

__all__ = ["created_at", "inputs_of", "operation_id", "outputs_of", "owner_of", "shown"]

# Machine Learning Server knows no type that says nothing, and its Python client fails over one that it does not know.
# Of those that it knows, this is the one whose values it passes on as they are, whatever they are.
_ANY_SHOWN_AS = ParameterType.CHARACTER


def owner_of(service: WebService) -> str:
    """Who published it; "" for what was not published through this API."""
    return service.metadata.annotations.get(names.ANNOTATION_OWNER, "")


def operation_id(service: WebService) -> str | None:
    return service.metadata.annotations.get(names.ANNOTATION_OPERATION_ID) or None


def created_at(service: WebService) -> datetime:
    """To the microsecond where this API has published it: clients take the last of a list for the newest."""
    text = service.metadata.annotations.get(names.ANNOTATION_PUBLISHED_AT, "")
    made = service.metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)
    try:
        published = datetime.fromisoformat(text)
    except ValueError:
        return made
    return published if published.tzinfo else made


def inputs_of(service: WebService) -> Sequence[Parameter | SignatureParameter]:
    return service.status.inputs if service.spec.inputs is None else service.spec.inputs


def outputs_of(service: WebService) -> Sequence[Parameter | SignatureParameter]:
    return service.status.outputs if service.spec.outputs is None else service.spec.outputs


def shown(parameters: Sequence[Parameter | SignatureParameter]) -> list[dict[str, str]]:
    """As Machine Learning Server lists them."""
    return [
        {"name": each.name, "type": str(_ANY_SHOWN_AS if each.type is ParameterType.ANY else each.type)}
        for each in parameters
    ]
