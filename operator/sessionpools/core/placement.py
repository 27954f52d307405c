"""Which nodes a pool is on, as the DaemonSet controller would decide it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from sessionpools.api.v1alpha1 import Placement, Toleration
from sessionpools.core.model import Failure, NodeView, Taint

__all__ = ["NODE_PRESSURE", "Place", "place"]

# Taints that Kubernetes sets and takes away by itself as a node's condition changes. They say "no new pods now", not
# "this is no node for the pool".
_LIFECYCLE: Final = "node.kubernetes.io/"
# Of these, the ones that say that the node is short of something: memory, disk or process ids. Others pass by
# themselves within a moment, as a node joins.
_PRESSURE: Final = "-pressure"
NODE_PRESSURE: Final = "NodePressure"


@dataclass(frozen=True, slots=True)
class Place:
    """What a node is to a pool. `closed` says why it gets no new sessions now; None if it does."""

    node: NodeView
    compute_node: bool  # sessions belong here
    may_stay: bool  # sessions that are here may go on
    closed: Failure | None = None

    @property
    def counts(self) -> bool:
        """Whether the pool's Ready condition waits for this node."""
        return self.compute_node and self.node.ready and self.node.schedulable


def place(placement: Placement, node: NodeView) -> Place:
    if any(node.labels.get(key) != value for key, value in placement.node_selector.items()):
        return Place(
            node, compute_node=False, may_stay=False, closed=_no_place("the node does not match placement.nodeSelector")
        )
    barring = [t for t in node.taints if t.effect in ("NoSchedule", "NoExecute")]
    bars = [t for t in barring if not any(_tolerates(toleration, t) for toleration in placement.tolerations)]
    # Tolerated for a while only: a new session would be evicted after that, and then the next one.
    briefly = [t for t in barring if t not in bars and t.effect == "NoExecute" and _only_briefly(placement, t)]
    own = [t for t in bars if not t.key.startswith(_LIFECYCLE)] + briefly
    if own:
        stays = all(t.effect == "NoSchedule" or t in briefly for t in own)
        why = _no_place(f"the node's taint {own[0].key} is not tolerated")
        return Place(node, compute_node=False, may_stay=stays, closed=why)
    return Place(node, compute_node=True, may_stay=True, closed=_closed(node, bars))


def _no_place(why: str) -> Failure:
    return Failure("NodeNotEligible", why, lasts=False)


def _closed(node: NodeView, bars: Iterable[Taint]) -> Failure | None:
    if not node.ready:
        return _for_now("NodeNotReady", "is not ready")
    if not node.schedulable:
        return _for_now("Cordoned", "is cordoned and gets no new sessions")
    for taint in bars:
        if taint.key.endswith(_PRESSURE):
            why = f"has the taint {taint.key} and gets no new sessions until that is over"
            return replace(_for_now(NODE_PRESSURE, why), lasts=True)
        return _for_now("NodeTainted", f"has the taint {taint.key} and gets no new sessions")
    return None


def _for_now(reason: str, why: str) -> Failure:
    return Failure(reason, f"{reason}: the node {why}", lasts=False)


def _only_briefly(placement: Placement, taint: Taint) -> bool:
    return all(t.toleration_seconds is not None for t in placement.tolerations if _tolerates(t, taint))


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return not toleration.key or toleration.key == taint.key
    return toleration.key == taint.key and toleration.value == taint.value
