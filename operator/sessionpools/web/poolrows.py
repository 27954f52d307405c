"""The rows of GET /services/N/V/pool: a pure function of what was observed.

The controller's status decides while it is about the pool as it stands. Where nobody has looked yet (just created, just
resized), a node that was Success is Pending: whoever polls after a change must not take the old answer for the new one.
A pool that is being deleted, or is gone, is counted by the pods that are left, which its status does no longer tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sessionpools.api.v1alpha1 import MAX_STATUS_NODES, Placement, SessionPool, State
from sessionpools.core.model import NodeView, PodView
from sessionpools.core.placement import place

__all__ = ["compute_nodes", "endpoint", "node_states"]

COMPUTE_NODE_PORT = 12805  # Machine Learning Server's; nothing listens there


def endpoint(node: str) -> str:
    return f"http://{node}:{COMPUTE_NODE_PORT}/"


def compute_nodes(placement: Placement, nodes: Iterable[NodeView]) -> list[str]:
    """The names of a placement's compute nodes, sorted."""
    return sorted(node.name for node in nodes if place(placement, node).compute_node)


def node_states(pool: SessionPool | None, nodes: Iterable[NodeView], pods: Sequence[PodView]) -> dict[str, State]:
    """The state of each compute node, and of each other node that still holds session pods, by name in order. `pods`
    are those of the pool, or of the pools that the service had."""
    placement = pool.spec.placement if pool else Placement()
    expected = compute_nodes(placement, nodes)
    if pool is None or pool.metadata.deletion_timestamp:
        left = {pod.owner.node for pod in pods if not pod.ended}
        return {
            name: State.PENDING if name in left else State.NOT_FOUND for name in sorted(left.union(expected))
        }  # fmt: skip
    status = pool.status
    current = status.observed_generation >= pool.metadata.generation
    rows = {row.name: row.state for row in status.nodes}
    # Nodes that are not Success come first in the status: past its bound there are only others.
    unsaid = (
        State.SUCCESS
        if len(rows) >= MAX_STATUS_NODES and State.SUCCESS in rows.values()
        else State.PENDING
    )  # fmt: skip
    blocked = current and status.state is State.NOT_FOUND
    found = {name: rows.get(name, State.NOT_FOUND if blocked else unsaid) for name in {*expected, *rows}}
    if not current:
        found = {name: State.PENDING if state is State.SUCCESS else state for name, state in found.items()}
    return dict(sorted(found.items()))
