"""One address for all pools: routing, the queue's answers, growth on demand."""

import json
import re
from collections.abc import Iterator

import pytest

from support.caller import Caller, caller, service_url
from support.cluster import kubectl, wait_for
from support.faults import active_gateway
from support.pools import POOLS, SERVICES, WHERE, WORKERS, Pool, publish, session_pool, web_service


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


def published(namespace: str, name: str, initial: int, maximum: int, **spec: object) -> Pool:
    service = web_service(name, WHERE, warmup={"seconds": 0})
    return publish(namespace, service, session_pool(name, initial, maximum, **spec))


def test_a_call_is_answered_by_its_pool_under_the_callers_request_id(restricted: str, client: Caller) -> None:
    pool = published(restricted, "routed", 1, 1)
    pool.until_success()
    url = service_url(restricted, "routed")
    status, headers, body = client.request("POST", url, "{}", {"X-Request-Id": "mine-1"})
    assert status == 200, body
    assert headers["x-request-id"] == "mine-1"
    assert json.loads(body)["outputParameters"]["answer"] in {pod["metadata"]["name"] for pod in pool.pods()}
    _, headers, _ = client.request("POST", url, "{}")
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-request-id"])
    gateway = active_gateway()["metadata"]["name"]
    lines = kubectl("logs", gateway, "-n", "session-pools", "-c", "haproxy", "--tail=200").stdout.splitlines()
    line = next(json.loads(line) for line in lines if '"requestId":"mine-1"' in line)
    assert (line["namespace"], line["service"], line["version"], line["status"]) == (restricted, "routed", "v1", 200)
    assert line["pool"] == f"{restricted}/routed"
    assert line["node"] in WORKERS
    assert line["outcome"] == "ok"


def test_what_is_not_served_says_so(restricted: str, client: Caller) -> None:
    published(restricted, "said", 1, 1).until_success()
    url = service_url(restricted, "said")
    answer = client.call(service_url(restricted, "Said"), {})
    assert answer.status == 404
    assert answer.body["errorMessage"] == f"there is no web service Said version v1 in namespace {restricted}"
    assert client.request("GET", url)[0] == 405
    assert client.call(f"{url}%2Fx", {}).status == 400
    assert client.request("POST", url, "no json")[0] == 400
    kubectl("delete", POOLS, "said", "-n", restricted, "--cascade=foreground")
    answer = client.call(url, {})
    assert answer.status == 503
    assert "has no pool: create a SessionPool" in answer.body["errorMessage"]
    kubectl("delete", SERVICES, "said", "-n", restricted)
    wait_for(lambda: client.call(url, {}).status == 404, 10, "a deleted service is unknown")


def test_calls_wait_in_the_queue_and_what_is_beyond_it_is_refused_at_once(restricted: str, client: Caller) -> None:
    queue = {"maxLength": 2, "timeoutSeconds": 2}
    pool = published(restricted, "queued", 1, 1, isolation="Process", queue=queue)
    pool.until_success()
    url = service_url(restricted, "queued")
    # two sessions (one on each node) and two places in the queue; the seventh call and those after it find none
    found = client.load(url, {"seconds": 1.2}, "--connections", "6", "--calls", "6").result()
    assert found["statuses"] == {"200": 4, "429": 2}, found
    assert "2 calls wait, the most that queue.maxLength allows" in found["failures"][0]
    # those that wait longer than queue.timeoutSeconds
    found = client.load(url, {"seconds": 3}, "--connections", "4", "--calls", "4").result()
    assert found["statuses"] == {"200": 2, "503": 2}, found
    assert "within 2 s (queue.timeoutSeconds)" in found["failures"][0]


def test_a_call_that_takes_too_long_is_ended_and_its_session_replaced(restricted: str, client: Caller) -> None:
    pool = published(restricted, "slow", 1, 1, isolation="Process", requestTimeoutSeconds=1)
    pool.until_success()
    url = service_url(restricted, "slow")
    answer = client.call(url, {"seconds": 30})
    assert answer.status == 504
    assert "was not answered within 1 s" in answer.body["errorMessage"]
    found = client.load(url, {"seconds": 0}, "--calls", "20", "--connections", "4").result()
    assert found["statuses"] == {"200": 20}, found


@pytest.mark.parametrize("isolation", ["Pod", "Process"])
def test_the_first_call_of_an_empty_pool_starts_its_first_session(
    restricted: str, client: Caller, isolation: str
) -> None:
    name = f"empty-{isolation.lower()}"
    pool = published(restricted, name, 0, 1, isolation=isolation, queue={"timeoutSeconds": 60})
    pool.until_success()
    answer = client.call(service_url(restricted, name), {}, timeout=90)
    assert answer.status == 200, answer.body
    assert answer.body["outputParameters"]["answer"].startswith(name)


def test_a_process_pool_uses_every_node_before_it_climbs(restricted: str, client: Caller) -> None:
    pool = published(restricted, "spread", 1, 3, isolation="Process", idleTimeoutSeconds=5)
    pool.until_success()
    url = service_url(restricted, "spread")
    two = client.load(url, {"seconds": 0.5}, "--connections", "2", "--calls", "2").result()
    assert sorted(two["answers"].values()) == [1, 1]
    six = client.load(url, {"seconds": 1}, "--connections", "6", "--calls", "6").result()
    assert six["statuses"] == {"200": 6}
    assert sorted(six["answers"].values()) == [3, 3]
    assert six["max"] < 2500  # all at once: none waited for another


def test_a_pod_pool_grows_with_its_callers_and_shrinks_when_they_are_gone(restricted: str, client: Caller) -> None:
    pool = published(restricted, "growing", 1, 3, idleTimeoutSeconds=5, queue={"timeoutSeconds": 60})
    pool.until_success()
    first = {pod["metadata"]["uid"] for pod in pool.pods()}
    load = client.load(service_url(restricted, "growing"), {"seconds": 0.5}, "--connections", "6", "--seconds", "20")
    wait_for(lambda: len(pool.ready_pods()) == 6, 60, "three sessions on each node")
    assert pool.status()["state"] == "Success"
    found = load.result()
    assert set(found["statuses"]) == {"200"}, found
    assert len(found["answers"]) == 6
    wait_for(lambda: len(pool.pods()) == 2, 60, "the sessions above initial have retired")
    assert {pod["metadata"]["uid"] for pod in pool.pods()} == first
