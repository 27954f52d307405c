"""Places are remembered; nobody may see that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.api.v1alpha1 import Placement
from sessionpools.controller import places
from sessionpools.controller.places import Places
from sessionpools.core.model import NodeView, Taint
from sessionpools.core.placement import place

NAMES = ("a", "b", "c")
TAINTS = (Taint("gpu", "", "NoSchedule"), Taint("node.kubernetes.io/not-ready", "", "NoExecute"))
PLACEMENTS = (
    Placement(),
    Placement.model_validate({"nodeSelector": {"disk": "ssd"}}),
    Placement.model_validate({"tolerations": [{"operator": "Exists"}]}),
)
NODES = st.builds(
    NodeView,
    name=st.sampled_from(NAMES),
    uid=st.just("uid"),
    ready=st.booleans(),
    schedulable=st.booleans(),
    labels=st.sampled_from(({}, {"disk": "ssd"})),
    taints=st.sets(st.sampled_from(TAINTS)).map(tuple),
)
# A node as it is now, or one that is gone, or a look at the places of a placement.
STEPS = st.lists(st.one_of(NODES, st.sampled_from(NAMES), st.sampled_from(PLACEMENTS)), max_size=30)


@given(STEPS, st.sets(st.sampled_from(NAMES)))
def test_places_are_those_of_the_nodes_as_they_are_now(
    steps: list[NodeView | str | Placement], holding: set[str]
) -> None:
    nodes: dict[str, NodeView] = {}
    known = Places(nodes.values, nodes.get)
    for step in steps:
        if isinstance(step, Placement):
            of_all = {name: place(step, node) for name, node in nodes.items()}
            wanted = {name: p for name, p in of_all.items() if p.compute_node or name in holding}
            assert known.of(step, holding) == wanted
            continue
        name, new = (step, None) if isinstance(step, str) else (step.name, step)
        old = nodes.pop(name, None)
        if new:
            nodes[name] = new
        known.node_changed(old, new)


def test_more_placements_than_are_remembered_are_decided_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PLACEMENTS_AT_MOST", 1)
    node = NodeView("a", "uid", True, True)
    known = Places(lambda: [node], {"a": node}.get)
    for placement in PLACEMENTS * 2:
        assert known.of(placement, {"a"}) == {"a": place(placement, node)}
        known.node_changed(node, replace(node))
