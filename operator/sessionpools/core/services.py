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
from sessionpools.core.transitions import POOL_STALLED

__all__ = ["parameters", "service_status", "signature_needed"]

# Within the bounds of the CRD's status.
MAX_PARAMETERS = 256
MAX_NAME = 512


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
    handled: int | None,
    now: datetime,
) -> WebServiceStatus:
    """`signature` is what a session of the pool's revision answered, None if none was asked or there is none yet: till
    then the revision and the signature of the sessions before stand. `handled` is the newest generation of the service
    that `pool.status` is about, None if that is not known (the controller has just started)."""
    before = service.status
    asked = parameters(signature)
    inputs, outputs = asked or (before.inputs, before.outputs)
    return WebServiceStatus(
        observed_generation=service.metadata.generation,
        revision=pool.status.revision if pool and asked else before.revision,
        pool=PoolKind.DEDICATED if pool and not duplicate_of else PoolKind.NONE,
        inputs=inputs or _declared(service.spec.inputs),
        outputs=outputs or _declared(service.spec.outputs),
        conditions=_conditions(service, duplicate_of, pool, handled, now),
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
    return _distinct(inputs), _distinct(outputs)


def _distinct(given: list[SignatureParameter]) -> list[SignatureParameter]:
    """What the CRD takes: distinct names of bounded length, and not too many."""
    return list({p.name: p for p in given if 0 < len(p.name) <= MAX_NAME}.values())[:MAX_PARAMETERS]


def _declared(given: Sequence[Any] | None) -> list[SignatureParameter]:
    return [SignatureParameter(name=p.name, type=p.type) for p in given or []]


def _conditions(
    service: WebService, duplicate_of: WebService | None, pool: SessionPool | None, handled: int | None, now: datetime
) -> list[Condition]:
    generation, before = service.metadata.generation, service.status.conditions

    def make(type_: str, holds: bool, reason: str, message: str) -> Condition:
        return condition(before, type_, holds, reason, message, generation, now)

    def verdict(ready: tuple[bool, str, str], reconciling: bool, stalled: tuple[str, str] | None) -> list[Condition]:
        reason, message = stalled or ("Progressing", "nothing is in the way")
        return [
            make("Ready", *ready),
            make("Reconciling", reconciling, "PoolReconciling" if reconciling else "UpToDate", ready[2]),
            make("Stalled", stalled is not None, reason, message),
        ]

    if duplicate_of:
        message = (
            f"WebService {duplicate_of.metadata.name!r} is older and has the same name {service.spec.name!r} and "
            f"version {service.spec.version!r}; delete one of them"
        )
        return verdict((False, "DuplicateService", message), False, ("DuplicateService", message))
    if pool is None:
        return verdict((False, "NoPool", "no SessionPool has this service's name and version; create one"), False, None)
    name = f"SessionPool {pool.metadata.name!r}"
    if handled is None and service.status.observed_generation == generation and pool.status.conditions and before:
        return list(before)  # what was said of this generation stands until the pool has been looked at again
    if (handled or 0) < generation:
        return verdict((False, "PoolNotReady", f"{name} has not seen this generation yet"), True, None)
    of_pool = {c.type: c for c in pool.status.conditions if c.status == "True"}
    stalled = None
    if "Stalled" in of_pool:
        stalled = (POOL_STALLED, f"{name}: {of_pool['Stalled'].reason}: {of_pool['Stalled'].message}")
    if "Ready" in of_pool:
        return verdict((True, "PoolReady", f"{name} has its sessions ready"), "Reconciling" in of_pool, stalled)
    return verdict((False, "PoolNotReady", stalled[1] if stalled else f"{name} is not ready"), stalled is None, stalled)
