"""The status of a WebService: which pool serves it, with what signature."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from sessionpools.api.v1alpha1 import (
    Condition,
    PoolKind,
    SessionPool,
    SignatureParameter,
    WebService,
    WebServiceStatus,
)
from sessionpools.core.status import condition

__all__ = ["parameters", "pool_of", "service_status", "signature_needed"]


def pool_of(service: WebService, pools: Sequence[SessionPool]) -> SessionPool | None:
    """The dedicated pool of a service: the oldest that has its name and version."""
    same = [
        pool
        for pool in pools
        if pool.metadata.namespace == service.metadata.namespace
        and (pool.spec.service_name, pool.spec.service_version) == (service.spec.name, service.spec.version)
    ]
    return min(same, key=lambda p: (str(p.metadata.creation_timestamp or ""), p.metadata.uid), default=None)


def signature_needed(service: WebService, pool: SessionPool | None) -> bool:
    """Whether a running session has to be asked: the status does not show the signature of this revision yet."""
    if pool is None or not pool.status.revision:
        return False
    status = service.status
    return status.revision != pool.status.revision or not (status.inputs or status.outputs)


def service_status(
    service: WebService,
    duplicate_of: WebService | None,
    pool: SessionPool | None,
    signature: Mapping[str, Any] | None,
    now: datetime,
) -> WebServiceStatus:
    """`signature` is what a session of the pool's revision answered, None if none was asked or there is none yet."""
    before = service.status
    revision = pool.status.revision if pool else ""
    known = signature is not None or before.revision == revision
    asked = parameters(signature)
    inputs, outputs = asked if asked else (before.inputs, before.outputs) if known else ([], [])
    return WebServiceStatus(
        observed_generation=service.metadata.generation,
        revision=revision if known else "",
        pool=PoolKind.DEDICATED if pool and not duplicate_of else PoolKind.NONE,
        inputs=inputs or _declared(service.spec.inputs),
        outputs=outputs or _declared(service.spec.outputs),
        conditions=_conditions(service, duplicate_of, pool, now),
    )


def parameters(
    signature: Mapping[str, Any] | None,
) -> tuple[list[SignatureParameter], list[SignatureParameter]] | None:
    """Inputs and outputs of a session's answer; None if it is not of that form (the pod runs users' code)."""
    if signature is None:
        return None
    try:
        inputs = [SignatureParameter.model_validate(item) for item in signature["inputs"]]
        outputs = [SignatureParameter.model_validate(item) for item in signature["outputs"]]
    except (KeyError, TypeError, ValidationError):
        return None
    return inputs[:128], outputs[:128]


def _declared(given: Sequence[Any] | None) -> list[SignatureParameter]:
    return [SignatureParameter(name=p.name, type=p.type) for p in given or []]


def _conditions(
    service: WebService, duplicate_of: WebService | None, pool: SessionPool | None, now: datetime
) -> list[Condition]:
    generation, before = service.metadata.generation, service.status.conditions

    def make(type_: str, holds: bool, reason: str, message: str) -> Condition:
        return condition(before, type_, holds, reason, message, generation, now)

    if duplicate_of:
        message = (
            f"WebService {duplicate_of.metadata.name!r} is older and has the same name {service.spec.name!r} and "
            f"version {service.spec.version!r}; delete one of them"
        )
        return [
            make("Ready", False, "DuplicateService", message),
            make("Stalled", True, "DuplicateService", message),
        ]
    not_stalled = make("Stalled", False, "NoDuplicate", "no other WebService has this name and version")
    if pool is None:
        message = "no SessionPool has this service's name and version; create one"
        return [make("Ready", False, "NoPool", message), not_stalled]
    ready = next((c for c in pool.status.conditions if c.type == "Ready"), None)
    if ready and ready.status == "True":
        return [
            make("Ready", True, "PoolReady", f"SessionPool {pool.metadata.name!r} has its sessions ready"),
            not_stalled,
        ]
    detail = f": {ready.reason}" if ready else ""
    return [
        make("Ready", False, "PoolNotReady", f"SessionPool {pool.metadata.name!r} is not ready{detail}"),
        not_stalled,
    ]
