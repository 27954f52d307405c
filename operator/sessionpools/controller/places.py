"""What each compute node is to pools of a placement, decided once for each change of a node: with 1,000 nodes that is
most of what a look at a pool would take.
"""

from collections.abc import Callable, Collection, Iterable

from sessionpools.api.v1alpha1 import Placement
from sessionpools.core.model import NodeView
from sessionpools.core.placement import Place, place

__all__ = ["Places"]

PLACEMENTS_AT_MOST = 256  # that are remembered; most pools of a cluster share a few


class Places:
    """`nodes` are those there are, `node` the one of a name."""

    def __init__(self, nodes: Callable[[], Iterable[NodeView]], node: Callable[[str], NodeView | None]) -> None:
        self._nodes = nodes
        self._node = node
        self._known: dict[str, tuple[Placement, dict[str, Place]]] = {}  # compute nodes by name

    def of(self, placement: Placement, holding: Collection[str]) -> dict[str, Place]:
        """Every compute node, and what else there is of the nodes named `holding`; by name."""
        key = placement.model_dump_json()
        if key not in self._known:
            if len(self._known) >= PLACEMENTS_AT_MOST:
                self._known.clear()
            all_places = (place(placement, node) for node in self._nodes())
            self._known[key] = placement, {p.node.name: p for p in all_places if p.compute_node}
        compute_nodes = self._known[key][1]
        others = (self._node(name) for name in holding if name not in compute_nodes)
        return compute_nodes | {node.name: place(placement, node) for node in others if node}

    def node_changed(self, old: NodeView | None, new: NodeView | None) -> None:
        for placement, known in self._known.values():
            if old:
                known.pop(old.name, None)
            if new and (now := place(placement, new)).compute_node:
                known[new.name] = now
