"""Failures on real kubelets whose cause goes away: nobody touches the pool, and it is well again within the time that
docs/concepts.md names ("Well again after"), and that a session takes to start.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

from support.caller import Caller, caller, service_url
from support.cluster import SESSION_IMAGE, another_name, apply, get, kubectl, wait_for
from support.faults import evict
from support.healing import AT_ONCE_SECONDS, FIRST_BACK_OFF_SECONDS, START_SECONDS, published, uids, well_again
from support.pools import WORKERS, Json, Pool, session_pool, web_service

KUBELET_SECONDS: Final = 30.0  # until it tries a container that lacks a Secret again
VOLUME_SECONDS: Final = 122.0  # a volume that lacks one: the kubelet's longest back-off
SCHEDULER_SECONDS: Final = 10.0
CONTAINER_SECONDS: Final = 40.0  # the kubelet's back-off of a container that has failed three times
IMAGE_SECONDS: Final = 60.0  # the same of an image, and its look at such a pod each 10 to 15 s
VOLUME_STATISTICS_SECONDS: Final = 150.0  # the kubelet measures a volume each 1 to 2 min if kind.yaml says nothing

POISONED = """
import os
import signal


def predict(x: float = 0, die: bool = False) -> float:
    if die:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 2 * x
"""
READS_A_SECRET = """
import os
import pathlib


def load():
    assert os.environ.get("PASSWORD") or pathlib.Path("/credentials/PASSWORD").read_text()


def predict(x: float) -> float:
    return 2 * x
"""
NEEDS_A_SERVICE = """
import socket


def load():
    socket.getaddrinfo("later", 80)


def predict(x: float) -> float:
    return 2 * x
"""
FILLS_A_VOLUME = """
def predict(x: float = 0, fill: bool = False) -> float:
    if fill:
        with open("/scratch/big", "wb") as big:
            big.write(bytes(8 << 20))
    return 2 * x
"""
SEATS = "sessionpools.dev/test-seats"  # a resource that nodes have when the test says so


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


@contextmanager
def there(body: Json, namespace: str) -> Iterator[None]:
    """The object exists meanwhile."""
    apply(body, namespace=namespace)
    try:
        yield
    finally:
        kubectl("delete", body["kind"].lower(), body["metadata"]["name"], "-n", namespace)


def deaths(pool: Pool) -> int:
    """Sessions that its pods have counted as killed by the poison."""
    counter = re.compile(r'^sessionpools_session_ends_total\{reason="killed by SIGSEGV"\} (\d+)$', re.MULTILINE)
    found = 0
    for pod in pool.pods():
        path = f"/api/v1/namespaces/{pool.namespace}/pods/{pod['metadata']['name']}:8999/proxy/metrics"
        found += sum(map(int, counter.findall(kubectl("get", "--raw", path).stdout)))
    return found


@pytest.mark.parametrize("isolation", ["Process", "Pod"])
def test_a_session_that_dies_with_each_call_is_replaced_and_counted_and_its_pool_stays_success(
    restricted: str, client: Caller, isolation: str
) -> None:
    calls = 40
    pool = session_pool("poisoned", 2, 2, isolation=isolation, queue={"maxLength": 10, "timeoutSeconds": 10})
    with published(restricted, web_service("poisoned", POISONED), pool) as poisoned:
        poisoned.until_success()
        lives = poisoned.lives()
        url = service_url(restricted, "poisoned")
        load = client.load(
            url, {"die": True}, "--connections", "4", "--rate", "5", "--calls", str(calls), "--seconds", "0"
        )
        began, states = time.monotonic(), set()
        while time.monotonic() - began < calls / 5:
            states.add(poisoned.status()["state"])
            time.sleep(0.2)
        found = load.result(120)
        assert found["statuses"] == {"502": calls}, found
        ended = time.monotonic()
        assert client.call(url, {"x": 2}).status == 200  # a kubectl exec, and no wait for a session
        print(f"poisoned: a call is answered again after {time.monotonic() - ended:.1f} s")
        assert time.monotonic() - ended < 10
        assert states == {"Success"}
        assert deaths(poisoned) == calls
        assert poisoned.lives() == lives  # no container was started again
        assert poisoned.warnings() == {}


def test_an_evicted_pod_is_replaced_at_once_and_one_that_is_evicted_again_and_again_after_a_back_off(
    restricted: str,
) -> None:
    with published(restricted, web_service("evicted"), session_pool("evicted", 1, 2)) as pool:
        pool.until_success()

        def evicted() -> float:
            victim = pool.pods(WORKERS[0])[0]
            assert evict(victim).returncode == 0
            assert victim["metadata"]["uid"] not in uids(pool)
            return time.monotonic()

        began = evicted()
        wait_for(lambda: len(pool.ready_pods(WORKERS[0])) == 1, START_SECONDS, "another has its place")
        print(f"evicted: well again after {time.monotonic() - began:.1f} s, at most {START_SECONDS:g} s")
        pool.until_success()
        began = evicted()  # a pod that has just been created
        status = pool.until_stalled("PodsDeleted", 10)
        assert [row["state"] for row in status["nodes"] if row["name"] == WORKERS[1]] == ["Success"]
        assert pool.pods(WORKERS[0]) == []
        well_again(pool, FIRST_BACK_OFF_SECONDS, began)
        assert pool.warnings() == {"PodsDeleted": 1}


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({"envFrom": [{"secretRef": {"name": "later"}}]}, KUBELET_SECONDS),
        (
            {
                "volumes": [{"name": "credentials", "secret": {"secretName": "later"}}],
                "volumeMounts": [{"name": "credentials", "mountPath": "/credentials", "readOnly": True}],
            },
            VOLUME_SECONDS,
        ),
    ],
    ids=["of the environment", "of a volume"],
)
def test_a_secret_that_is_created_later_is_all_that_was_missing(
    restricted: str, spec: dict[str, Any], seconds: float
) -> None:
    service = web_service("secretive", READS_A_SECRET, init="service:load", **spec)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"PASSWORD": "x"}}
    with published(restricted, service, session_pool("secretive")) as pool:
        if "envFrom" in spec:
            status = pool.until_stalled("CreateContainerConfigError", 60)
            assert any('secret "later" not found' in row["message"] for row in status["nodes"]), status
        else:
            wait_for(lambda: any("waits for its volumes" in text for text in pool.messages()), 60, "it is said")
        held = uids(pool)
        with there(secret, restricted):
            well_again(pool, seconds)
        assert uids(pool) == held
        assert "envFrom" not in spec or pool.warnings() == {"CreateContainerConfigError": 1}


def test_what_init_needs_of_others_may_come_later(restricted: str) -> None:
    service = web_service("dependent", NEEDS_A_SERVICE, init="service:load")
    later = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "later"}, "spec": {"ports": [{"port": 80}]}}
    with published(restricted, service, session_pool("dependent")) as pool:
        pool.until_stalled("SessionFailed", 90)
        held = uids(pool)
        with there(later, restricted):
            well_again(pool, CONTAINER_SECONDS)
        assert uids(pool) == held
        assert pool.warnings().get("SessionFailed") == 1


def test_an_image_that_comes_later_is_all_that_was_missing(restricted: str) -> None:
    image = f"localhost/session-pools-later:{secrets.token_hex(4)}"
    with (
        ExitStack() as there_by_now,
        published(restricted, web_service("imaged", image=image), session_pool("imaged")) as pool,
    ):
        pool.until_stalled("ImagePullBackOff", 60)
        held = uids(pool)
        for worker in WORKERS:
            there_by_now.enter_context(another_name(worker, SESSION_IMAGE, image))
        well_again(pool, IMAGE_SECONDS)
        assert uids(pool) == held
        assert pool.warnings().get("ImagePullBackOff") == 1


def test_a_pod_without_room_starts_when_there_is_some(restricted: str) -> None:
    def seats(number: str | None) -> None:
        body = json.dumps({"status": {"capacity": {SEATS: number}, "allocatable": {SEATS: number}}})
        for worker in WORKERS:
            kubectl("patch", "node", worker, "--subresource=status", "--type=merge", "-p", body)

    of_one = {"requests": {"memory": "32Mi", SEATS: "1"}, "limits": {"memory": "256Mi", SEATS: "1"}}
    with published(restricted, web_service("seated", resources=of_one), session_pool("seated")) as pool:
        try:
            pool.until_stalled("Unschedulable", 60)
            assert SEATS in pool.condition("Stalled")["message"]
            held = uids(pool)
            seats("1")
            well_again(pool, SCHEDULER_SECONDS)
            assert uids(pool) == held
            assert pool.warnings().get("Unschedulable") == 1
        finally:
            seats(None)


def test_a_pod_that_the_kubelet_evicts_is_said_and_replaced_after_the_back_off(restricted: str, client: Caller) -> None:
    volume = {
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    service = web_service("greedy", FILLS_A_VOLUME, **volume)
    with published(restricted, service, session_pool("greedy", 1, 1)) as pool:
        pool.until_success()
        before = uids(pool)
        assert client.call(service_url(restricted, "greedy"), {"fill": True}).status == 200
        # the kubelet does not say why where the container has ended by the time that it looks
        status = pool.until_stalled(("Evicted", "PodEnded"), VOLUME_STATISTICS_SECONDS)
        began = time.monotonic()
        said = [row["message"] for row in status["nodes"] if row["state"] == "Pending"]
        assert len(said) == 1, status
        assert "exceeds the limit" in said[0] or said[0].startswith("PodEnded: the kubelet"), status
        assert len(pool.ready_pods()) == 1  # the other node's serves on
        well_again(pool, FIRST_BACK_OFF_SECONDS, began)
        assert len(uids(pool) - before) == 1
        assert sum(pool.warnings().values()) == 1


def test_a_node_that_is_tainted_by_its_condition_gets_no_session_until_it_is_over(restricted: str) -> None:
    """As with memory, disk and PID pressure; but those the kubelet, which knows of none, would take back at once."""
    worker = WORKERS[1]

    def network_unavailable(condition: Json) -> None:
        body = json.dumps({"status": {"conditions": [{"type": "NetworkUnavailable"} | condition]}})
        kubectl("patch", "node", worker, "--subresource=status", "--type=strategic", "-p", body)

    def said() -> bool:
        rows = [row["message"] for row in pool.status()["nodes"] if row["name"] == worker]
        return bool(rows) and rows[0].startswith("NodeTainted: the node has the taint node.kubernetes.io/network-unav")

    with published(restricted, web_service("tainted"), session_pool("tainted", 1, 2)) as pool:
        pool.until_success()
        victim = pool.pods(worker)[0]
        try:
            network_unavailable({"status": "True", "reason": "Test", "message": "by a test"})
            wait_for(lambda: _taints(worker), 20, "the node is tainted")
            assert evict(victim).returncode == 0
            wait_for(said, 30, "the row says why it gets no session")
            wait_for(lambda: pool.condition("Ready").get("reason") == "NodeTainted", 10, "and so does the condition")
            assert pool.pods(worker) == []
            network_unavailable({"status": "False", "reason": "Test", "message": "over"})
            well_again(pool, AT_ONCE_SECONDS)
            assert pool.warnings() == {}  # a node that joins has such a taint too: nothing is wrong with the pool
        finally:
            network_unavailable({"$patch": "delete"})


def _taints(node: str) -> list[Json]:
    found: list[Json] = get("node", node)["spec"].get("taints", [])
    return found
