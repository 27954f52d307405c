"""Nodes of different sizes: one has room for all that a pool wants there, the other has not."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from support.cluster import apply, kubectl, wait_for
from support.pools import DOUBLE, POOLS, WORKERS, Json, Pool, publish, session_pool, web_service

LARGE, SMALL = WORKERS
# A resource that nodes have when the test says so: their memory is also taken by what others run there.
PLACES: Final = "sessionpools.dev/test-places"
RESOURCES: Final = {"requests": {"memory": "32Mi", PLACES: "1"}, "limits": {"memory": "256Mi", PLACES: "1"}}


def places(node: str, number: int | None) -> None:
    """So many session pods of the test have room on the node."""
    quantity = None if number is None else str(number)
    body = json.dumps({"status": {"capacity": {PLACES: quantity}, "allocatable": {PLACES: quantity}}})
    kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", body)


def refused_by_the_kubelet(namespace: str) -> set[str]:
    """Uids of pods that the scheduler gave a place of which their kubelet had not heard yet: they fail at once."""
    selector = f"reason=OutOf{PLACES},involvedObject.kind=Pod"
    found = kubectl("get", "events", "-n", namespace, "--field-selector", selector, "-o", "json").stdout
    return {event["involvedObject"]["uid"] for event in json.loads(found)["items"]}


@pytest.fixture
def nodes() -> Iterator[None]:
    places(LARGE, 3)
    places(SMALL, 1)
    try:
        yield
    finally:
        for node in WORKERS:
            places(node, None)


def rows(pool: Pool) -> dict[str, Json]:
    return {row["name"]: row for row in pool.status()["nodes"]}


def test_a_small_node_says_what_it_lacks_beside_a_full_one_and_is_filled_and_updated_when_it_can_be(
    restricted: str, nodes: None
) -> None:
    service = web_service("sized", resources=RESOURCES)
    pool = publish(restricted, service, session_pool("sized", 2, 2))
    pool.until_stalled("Unschedulable")
    wait_for(lambda: rows(pool)[LARGE]["state"] == "Success" and rows(pool)[SMALL]["ready"] == 1, 60, "all are there")
    large, small = rows(pool)[LARGE], rows(pool)[SMALL]
    assert (large["ready"], large["message"]) == (2, "")
    assert (small["state"], small["desired"], small["message"]) == (
        "Pending",
        2,
        f"Unschedulable: Insufficient {PLACES}",
    )
    assert pool.status()["state"] == "Pending"
    for condition in (pool.condition("Ready"), pool.condition("Stalled")):
        assert condition["reason"] == "Unschedulable"
        assert condition["message"].startswith(f"node {SMALL}: Unschedulable: Insufficient {PLACES}")
    started = set(pool.lives())
    places(SMALL, 2)
    pool.until_success(60)
    # The pod that was held has its place, and no other was made for it, unless the kubelet has refused it.
    assert len(pool.lives()) == len(started)
    assert started - pool.lives().keys() <= refused_by_the_kubelet(restricted)

    # a rollout needs one place more than there is on the one, and has it on the other
    apply(web_service("sized", f"{DOUBLE}# changed\n", resources=RESOURCES), namespace=restricted)
    pool.until_stalled("SurgeUnschedulable")
    said = pool.condition("Stalled")["message"]
    assert said.startswith(f"node {SMALL}: Unschedulable: Insufficient {PLACES}")
    assert "set update.maxSurge 0 and update.maxUnavailable 1" in said
    wait_for(lambda: pool.status()["sessions"] == {"desired": 4, "ready": 4, "updated": 2, "old": 2}, 60, "half is new")
    assert {row["state"] for row in rows(pool).values()} == {"Success"}
    pool.patch(update={"maxSurge": 0, "maxUnavailable": 1})
    pool.until_success()
    assert pool.status()["sessions"]["updated"] == 4
    kubectl("delete", POOLS, "sized", "-n", restricted, "--cascade=foreground")
