"""Nodes that join, leave, are cordoned or lost, on real kubelets. The cluster is as before afterwards."""

from collections.abc import Iterator

import pytest

from support.cluster import CLUSTER, cluster_script, docker, kubectl, wait_for
from support.faults import leading_controller, stopped_node
from support.pools import POOLS, WORKERS, Pool, publish, session_pool, web_service

IMAGES = ("session-pools:dev", "session-pools-session:dev")
JOINED = f"{CLUSTER}-worker3"


def row(pool: Pool, node: str) -> dict[str, object]:
    return next((r for r in pool.status().get("nodes", []) if r["name"] == node), {})


@pytest.fixture
def pool(restricted: str) -> Iterator[Pool]:
    made = publish(restricted, web_service("nodes"), session_pool("nodes"))
    made.until_success()
    yield made
    kubectl("delete", POOLS, "nodes", "-n", restricted, "--cascade=foreground")


def test_a_cordoned_node_keeps_its_session_and_gets_none(pool: Pool) -> None:
    worker = WORKERS[1]
    kubectl("cordon", worker)
    try:
        pool.patch(initialPoolSize=2)
        wait_for(lambda: len(pool.ready_pods(WORKERS[0])) == 2, 60, "the other node has grown")
        wait_for(lambda: row(pool, worker).get("state") == "Pending", 20, "the cordoned node is Pending")
        assert str(row(pool, worker)["message"]).startswith("Cordoned")
        assert len(pool.pods(worker)) == 1
        assert pool.condition("Ready")["status"] == "True"
    finally:
        kubectl("uncordon", worker)
    pool.until_success()


def test_a_node_that_joins_is_filled_and_one_that_is_removed_disappears(pool: Pool) -> None:
    try:
        cluster_script("add-node", CLUSTER)
        cluster_script("load", *IMAGES)
        wait_for(lambda: row(pool, JOINED).get("state") == "Success", 120, "the joined node is Success")
        assert pool.status()["nodeCounts"]["total"] == 3
    finally:
        docker("rm", "--force", "--volumes", JOINED)
        kubectl("delete", "node", JOINED, "--ignore-not-found")
    wait_for(lambda: not row(pool, JOINED), 90, "its row is gone")
    pool.until_success()


def test_a_lost_node_is_reported_not_churned_and_used_again_when_it_is_back(pool: Pool) -> None:
    # the leader's node: the other controller is the one to say so
    taken = leading_controller()["spec"]["nodeName"]
    worker, other = sorted(WORKERS, key=lambda name: name != taken)
    uids = {pod["metadata"]["uid"] for pod in pool.pods()}
    with stopped_node(worker):
        wait_for(lambda: row(pool, worker).get("state") == "Pending", 120, "the lost node is Pending")
        assert str(row(pool, worker)["message"]).startswith("NodeNotReady")
        assert row(pool, other)["state"] == "Success"
        assert pool.condition("Ready")["status"] == "True"
        assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids
    pool.until_success(180)
    assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids
