"""Nodes that join, leave, are cordoned, tainted, relabelled or lost, on real kubelets. All is as it was after each
test. What ends sessions that have calls (a drain, NoExecute) is in test_long_calls, what callers notice of a lost node
in test_gateway_faults.
"""

from collections.abc import Iterator

import pytest

from support.caller import Caller, caller, service_url
from support.cluster import CLUSTER, apply, cluster_script, docker, kubectl, wait_for
from support.faults import evict, leading_controller, stopped_node
from support.pools import POOLS, WHERE, WORKERS, Json, Pool, publish, session_pool, web_service

IMAGES = ("session-pools:dev", "session-pools-session:dev")
JOINED = f"{CLUSTER}-worker3"


def row(pool: Pool, node: str) -> dict[str, object]:
    return next((r for r in pool.status().get("nodes", []) if r["name"] == node), {})


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


@pytest.fixture
def pool(restricted: str) -> Iterator[Pool]:
    made = publish(restricted, web_service("nodes", WHERE, warmup={}), session_pool("nodes"))
    made.until_success()
    yield made
    kubectl("delete", POOLS, "nodes", "-n", restricted, "--cascade=foreground")


def test_a_cordoned_node_keeps_its_session_which_serves_and_gets_none(pool: Pool, client: Caller) -> None:
    worker = WORKERS[1]
    kubectl("cordon", worker)
    try:
        pool.patch(initialPoolSize=2)
        wait_for(lambda: len(pool.ready_pods(WORKERS[0])) == 2, 60, "the other node has grown")
        wait_for(lambda: row(pool, worker).get("state") == "Pending", 20, "the cordoned node is Pending")
        assert str(row(pool, worker)["message"]).startswith("Cordoned")
        assert len(pool.pods(worker)) == 1
        assert pool.condition("Ready")["status"] == "True"
        url = service_url(pool.namespace, pool.name)
        found = client.load(url, {"seconds": 2}, "--connections", "3", "--calls", "3").result()
        assert found["answers"] == {pod["metadata"]["name"]: 1 for pod in pool.pods()}, found
    finally:
        kubectl("uncordon", worker)
    pool.until_success()


def test_an_eviction_beyond_a_disruption_budget_is_refused(pool: Pool) -> None:
    budget: Json = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "nodes"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"sessionpools.dev/pool": pool.name}}},
    }
    apply(budget, namespace=pool.namespace)
    try:

        def allowed() -> str:
            path = "jsonpath={.status.observedGeneration} {.status.disruptionsAllowed}"
            return kubectl("get", "poddisruptionbudget", "nodes", "-n", pool.namespace, "-o", path).stdout

        wait_for(lambda: allowed() == "1 0", 30, "the budget is counted")
        refused = evict(pool.pods()[0])
        assert "violate the pod's disruption budget" in refused.stderr
        assert len(pool.ready_pods()) == 2
        pool.patch(initialPoolSize=2)
        wait_for(lambda: allowed() == "1 2", 60, "two may be evicted")
        evicted = evict(pool.pods()[0])
        assert evicted.returncode == 0, evicted.stderr
        pool.until_success()
    finally:
        kubectl("delete", "poddisruptionbudget", "nodes", "-n", pool.namespace)


def test_a_taint_keeps_new_sessions_away_and_leaves_those_that_are_there(pool: Pool) -> None:
    other, worker = WORKERS
    taint = "example.com/held=yes:NoSchedule"
    before = {pod["metadata"]["uid"] for pod in pool.pods(worker)}
    kubectl("taint", "node", worker, taint)
    try:
        pool.patch(initialPoolSize=2)
        wait_for(lambda: len(pool.ready_pods(other)) == 2, 60, "the other node has grown")
        assert {pod["metadata"]["uid"] for pod in pool.ready_pods(worker)} == before
    finally:
        kubectl("taint", "node", worker, f"{taint}-")
    wait_for(lambda: len(pool.ready_pods(worker)) == 2, 60, "the node has grown too")


def test_a_node_that_is_relabelled_joins_and_leaves_a_pool(restricted: str) -> None:
    here, there = WORKERS
    label = "example.com/group"
    kubectl("label", "node", here, f"{label}=models")
    try:
        placement = {"nodeSelector": {label: "models"}}
        pool = publish(restricted, web_service("grouped"), session_pool("grouped", placement=placement))
        pool.until_success()
        assert [found["name"] for found in pool.status()["nodes"]] == [here]
        kubectl("label", "node", there, f"{label}=models")
        wait_for(lambda: row(pool, there).get("state") == "Success", 60, "the other node has joined")
        kubectl("label", "node", here, f"{label}-")
        wait_for(lambda: not row(pool, here) and not pool.pods(here), 60, "the first node has left")
        pool.until_success()
        kubectl("delete", POOLS, "grouped", "-n", restricted, "--cascade=foreground")
    finally:
        for worker in WORKERS:
            kubectl("label", "node", worker, f"{label}-")


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
    leaving = publish(pool.namespace, web_service("leaving"), session_pool("leaving"))
    leaving.until_success()
    uids = {pod["metadata"]["uid"] for pod in pool.pods()}
    with stopped_node(worker):
        wait_for(lambda: row(pool, worker).get("state") == "Pending", 120, "the lost node is Pending")
        assert str(row(pool, worker)["message"]).startswith("NodeNotReady")
        assert row(pool, other)["state"] == "Success"
        assert pool.condition("Ready")["status"] == "True"
        assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids
        # foreground: the object stays until its last session pod has ended, which nobody can say of a lost node
        kubectl("delete", POOLS, "leaving", "-n", pool.namespace, "--cascade=foreground", "--wait=false")
        wait_for(lambda: row(leaving, other).get("state") == "NotFound", 60, "the other node has ended its session")
        assert row(leaving, worker)["state"] == "Pending"
    wait_for(lambda: not leaving.exists(), 180, "the pool is gone when the node is back")
    pool.until_success(180)
    assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids
