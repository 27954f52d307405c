"""Tenants of one cluster: a limit of sessions on each node that all pools share, and a release with Roles only that a
tenant has beside the one for everybody, which leaves its namespace out. The latter is as before afterwards.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.caller import caller
from support.cluster import CLUSTER, helm, kubectl, script, temporary_namespace, wait_for
from support.pools import POOLS, READY_SECONDS, SERVICES, WORKERS, Pool, publish, session_pool, web_service
from support.tools import ROOT

LIMIT = 3
RELEASE = "tenant"
CONTROLLER, GATEWAY, WEB = (f"{RELEASE}-session-pools-{part}" for part in ("controller", "gateway", "web"))
READ_NODES = "tenancy-test-read-nodes"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def tenant(controller: None) -> Iterator[str]:
    """A namespace that the release for everybody leaves out. That release has a limit of sessions on a node."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with temporary_namespace("tenant", labels=labels) as namespace:
        try:
            script(
                "deploy", CLUSTER,
                "--set", f"limits.maxSessionsPerNode={LIMIT}",
                "--set", f"watch.ignoreNamespaces={{{namespace}}}",
            )  # fmt: skip
            wait_for(lambda: not sessions(), READY_SECONDS, "sessions of tests before this one are gone")
            yield namespace
        finally:
            kubectl("delete", f"{POOLS},{SERVICES}", "--all", "-n", namespace, "--wait=false")
            script("deploy", CLUSTER)


def sessions() -> Counter[str]:
    """Session pods by node, of all namespaces and of whatever state."""
    found = kubectl("get", "pods", "--all-namespaces", "-l", "sessionpools.dev/pool-uid", "-o", "json").stdout
    return Counter(pod["spec"].get("nodeName", "") for pod in json.loads(found)["items"])


def test_pools_of_two_namespaces_share_the_limit_of_a_node_and_the_younger_waits_for_the_older(tenant: str) -> None:
    with temporary_namespace("older") as older, temporary_namespace("younger") as younger:
        first = publish(older, web_service("first"), session_pool("first", 2, 2))
        first.until_success()
        second = publish(younger, web_service("second"), session_pool("second", 2, 2))
        status = second.until_stalled("NodeLimitReached")
        assert status["state"] == "Pending"
        for row in status["nodes"]:
            assert row["message"].startswith(f"NodeLimitReached: no more than {LIMIT} sessions of all pools")
            assert "limits.maxSessionsPerNode" in row["message"]
            assert older not in row["message"] and "first" not in row["message"]
        wait_for(lambda: len(second.ready_pods()) == 2, READY_SECONDS, "the younger has what the older leaves")
        assert [len(second.pods(node)) for node in WORKERS] == [1, 1]
        assert max(sessions().values()) == LIMIT
        assert "NodeLimitReached" in second.warnings()
        kubectl("delete", POOLS, "first", "-n", older)
        status = second.until_success()
        assert status["sessions"]["ready"] == 4
        assert first.pods() == []


def test_a_rollout_at_the_limit_is_told_what_to_do_and_then_done(tenant: str) -> None:
    with temporary_namespace("full") as namespace:
        pool = publish(namespace, web_service("full"), session_pool("full", LIMIT, LIMIT))
        pool.until_success()
        before = pool.lives()
        kubectl(
            "patch", SERVICES, "full", "-n", namespace, "--type=merge",
            "-p", json.dumps({"spec": {"env": [{"name": "NEW", "value": "yes"}]}}),
        )  # fmt: skip
        pool.until_stalled("SurgeUnschedulable")
        assert "update.maxSurge 0 and update.maxUnavailable 1" in pool.condition("Stalled")["message"]
        assert pool.lives() == before
        pool.patch(update={"maxSurge": 0, "maxUnavailable": 1})
        wait_for(
            lambda: pool.status()["sessions"]["updated"] == LIMIT * len(WORKERS), 3 * READY_SECONDS, "it is rolled out"
        )
        assert not before.keys() & pool.lives().keys()


def values_of(tenant: str, *nodes: str) -> Json:
    return {
        "rbac": {"clusterScoped": False},
        "crds": {"enabled": False},
        "watch": {"namespaces": [tenant], "nodes": list(nodes)},
        "controller": {"replicas": 1},
        "gateway": {"replicas": 1},
        "web": {"store": {"persistence": {"enabled": False}}},
        "auth": {"enabled": False},
    }


def install(tenant: str, place: Path, values: Json, *arguments: str) -> None:
    path = place / "values.json"
    path.write_text(json.dumps(values))
    chart = str(ROOT / "charts/session-pools")
    helm("upgrade", "--install", RELEASE, chart, "--namespace", tenant, "--values", str(path), *arguments)


@pytest.fixture
def release(tenant: str, tmp_path: Path) -> Iterator[Path]:
    """A release with Roles only, in the tenant's own namespace, for the sessions of one node that is named."""
    try:
        install(tenant, tmp_path, values_of(tenant, WORKERS[0]), "--wait", "--timeout", "180s")
        yield tmp_path
    finally:
        kubectl("delete", f"clusterrolebinding/{READ_NODES}", f"clusterrole/{READ_NODES}", "--ignore-not-found")
        helm("uninstall", RELEASE, "--namespace", tenant, "--ignore-not-found", "--wait", "--timeout", "120s")


def may(tenant: str, account: str, verb: str, resource: str, where: str) -> bool:
    who = f"--as=system:serviceaccount:{tenant}:{account}"
    scope = [f"--namespace={where}"] if where else ["--all-namespaces"]
    return kubectl("auth", "can-i", verb, resource, who, *scope, check=False).stdout.strip() == "yes"


def last_words(tenant: str) -> str:
    """Of the controllers' containers that have ended."""
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=controller"
    pods = json.loads(kubectl("get", "pods", "-n", tenant, "-l", selector, "-o", "json").stdout)["items"]
    ended = [pod["metadata"]["name"] for pod in pods if any(s["restartCount"] for s in _statuses(pod))]
    return "".join(kubectl("logs", "-n", tenant, name, "--previous", check=False).stdout for name in ended)


def _statuses(pod: Json) -> list[Json]:
    found: list[Json] = pod["status"].get("containerStatuses", [])
    return found


def test_a_release_with_roles_only_serves_its_namespace_on_named_nodes_beside_the_one_for_everybody(
    tenant: str, release: Path
) -> None:
    with temporary_namespace("everybody") as everybody, caller(WORKERS[1]) as client:
        others = publish(everybody, web_service("theirs"), session_pool("theirs", 1, 1))
        others.until_success()
        lives_of_others = others.lives()

        mine = publish(tenant, web_service("mine"), session_pool("mine", 2, 4))
        status = mine.until_success()
        assert [(row["name"], row["ready"]) for row in status["nodes"]] == [(WORKERS[0], 2)]
        assert {pod["spec"]["nodeName"] for pod in mine.pods()} == {WORKERS[0]}

        for account in (CONTROLLER, GATEWAY, WEB):
            assert may(tenant, account, "list", "pods", tenant)
            assert not may(tenant, account, "list", "pods", everybody)
            assert not any(may(tenant, account, "list", kind, "") for kind in ("nodes", "pods", POOLS))

        gateway = f"http://{GATEWAY}.{tenant}:12800"
        answer = client.call(f"{gateway}/api/mine/v1", {"x": 21})
        assert (answer.status, answer.body["outputParameters"]) == (200, {"answer": 42})
        code, _, listed = client.request("GET", f"{gateway}/services")
        assert (code, [service["name"] for service in json.loads(listed)]) == (200, ["mine"])
        assert client.call(f"{gateway}/namespaces/{everybody}/api/theirs/v1", {"x": 1}).status == 404

        # both controllers look at what changes, and each leaves the other's alone
        lives = mine.lives()
        mine.patch(idleTimeoutSeconds=299)
        others.patch(idleTimeoutSeconds=299)
        mine.until_success()
        others.until_success()
        assert (mine.lives(), others.lives()) == (lives, lives_of_others)


def test_without_nodes_it_says_what_to_do_and_with_the_right_to_read_them_it_serves_all(
    tenant: str, release: Path
) -> None:
    mine = Pool("mine", tenant)
    publish(tenant, web_service("mine"), session_pool("mine", 1, 1)).until_success()
    install(tenant, release, values_of(tenant))
    said = wait_for(lambda: last_words(tenant), 120, "the controller ends")
    assert "SESSIONPOOLS_NODES names none" in said and "bind a ClusterRole" in said
    assert mine.ready_pods()  # they go on; a Deployment keeps the controller that works until the new one does
    kubectl("create", "clusterrole", READ_NODES, "--verb=get,list,watch", "--resource=nodes")
    accounts = [f"--serviceaccount={tenant}:{account}" for account in (CONTROLLER, WEB)]
    kubectl("create", "clusterrolebinding", READ_NODES, f"--clusterrole={READ_NODES}", *accounts)
    # the kubelet waits for up to 5 minutes before it starts a container again that has ended often
    kubectl("rollout", "restart", f"deployment/{CONTROLLER}", "-n", tenant)
    for deployment in (CONTROLLER, WEB):
        kubectl("rollout", "status", f"deployment/{deployment}", "-n", tenant, "--timeout=110s")
    wait_for(lambda: {row["name"] for row in mine.status()["nodes"]} == set(WORKERS), READY_SECONDS, "both nodes")
    status = mine.until_success()
    assert [row["ready"] for row in status["nodes"]] == [1, 1]
