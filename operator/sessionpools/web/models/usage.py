"""GET /services/N/V/pool/usage: what Machine Learning Server never told of a pool."""

from __future__ import annotations

from sessionpools.api.v1alpha1 import State
from sessionpools.web.models.base import Answer

__all__ = ["Condition", "NodeUsage", "PoolUsage", "Wait"]


class Condition(Answer):
    """One of the SessionPool's conditions (docs/concepts.md)."""

    type: str
    status: str
    reason: str
    message: str


class Wait(Answer):
    """How long calls waited for a session, since the gateways started."""

    count: int
    """Calls that waited, be it for no time at all; without those that were turned away at once."""
    mean_seconds: float | None
    p50_seconds: float | None
    """Half of the calls waited at most this long; the bound of a bucket, not exact. null: longer than all bounds."""
    p95_seconds: float | None
    p99_seconds: float | None


class NodeUsage(Answer):
    """The pool on one node."""

    node: str
    compute_node_endpoint: str
    status: State
    desired: int
    ready: int
    message: str
    """Why the node is not Success."""
    busy: int
    """Sessions that work on a call."""
    idle: int
    starting: int
    grown: int
    """Sessions above initialPoolSize."""


class PoolUsage(Answer):
    """What a pool's sessions do now, on all nodes."""

    name: str
    version: str
    status: State
    initial_pool_size: int
    max_pool_size: int
    busy: int
    idle: int
    starting: int
    queued: int
    """Calls that wait for a session."""
    grown: int
    wait_seconds: float | None
    """The mean; null while no call has waited or no gateway answers."""
    wait: Wait | None
    """null: no gateway answers."""
    gateways: int
    """Gateways that have answered; 0: queued and wait are not known."""
    nodes: list[NodeUsage]
    conditions: list[Condition]
