"""What is deleted goes away, and nothing else does: with the controller down, with the release, with the namespace."""

from support.cluster import CLUSTER, get, helm, kubectl, script, temporary_namespace, wait_for
from support.faults import NAMESPACE, rollout_settles
from support.pools import POOLS, SERVICES, WORKERS, publish, session_pool, web_service

CONTROLLER = "deployment/session-pools-controller"


def test_a_pool_that_is_deleted_without_a_controller_leaves_no_session(restricted: str) -> None:
    pool = publish(restricted, web_service("orphan"), session_pool("orphan"))
    pool.until_success()
    replicas = get("deployment", "session-pools-controller", NAMESPACE)["spec"]["replicas"]
    kubectl("scale", CONTROLLER, "-n", NAMESPACE, "--replicas=0")
    try:
        kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=controller", "-n", NAMESPACE)
        kubectl("delete", POOLS, "orphan", "-n", restricted, "--wait=false")
        wait_for(lambda: not pool.pods(), 60, "Kubernetes has collected its session pods")
    finally:
        kubectl("scale", CONTROLLER, "-n", NAMESPACE, f"--replicas={replicas}")
        kubectl("rollout", "status", CONTROLLER, "-n", NAMESPACE, "--timeout=90s")


def test_a_namespace_with_pools_goes_in_time() -> None:
    with temporary_namespace("going") as namespace:
        pools = [
            publish(namespace, web_service(name), session_pool(name, isolation=isolation))
            for name, isolation in (("pods", "Pod"), ("processes", "Process"))
        ]
        for pool in pools:
            pool.until_success()
        kubectl("delete", "namespace", namespace, "--timeout=90s")


def test_the_release_can_be_uninstalled_and_installed_again_over_pools_that_serve(restricted: str) -> None:
    pool = publish(restricted, web_service("stays"), session_pool("stays", 2, 3))
    pool.until_success()
    before = pool.lives()
    assert len(before) == 2 * len(WORKERS)
    try:
        helm("uninstall", "session-pools", "--namespace", NAMESPACE, "--wait", "--timeout", "90s")
        kubectl("wait", "--for=delete", "pod", "--all", "-n", NAMESPACE, "--timeout=90s")
        kept = {kind: kubectl("get", kind, "-n", restricted, "-o", "name").stdout for kind in (POOLS, SERVICES)}
        assert all("stays" in names for names in kept.values()), kept
        assert pool.lives() == before
    finally:
        script("deploy", CLUSTER)
    rollout_settles("controller")
    pool.patch(maxPoolSize=4)  # so that the new controller has something to say
    pool.until_success()
    assert pool.lives() == before
