"""Controllers that end, well or not, freeze, are killed while they work, or have no API server for minutes: every pool
is as its spec says afterwards.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from support.caller import caller, service_url
from support.cluster import apply, kubectl, wait_for
from support.faults import (
    NAMESPACE,
    frozen,
    frozen_api_server,
    leader,
    leading_controller,
    release_pods,
    rollout_settles,
)
from support.pools import DOUBLE, POOLS, WORKERS, Json, Pool, publish, session_pool, web_service

_KILLS = 50
_MAXIMUM = 3
_SURGE = 1
_API_AWAY_SECONDS = 120


@pytest.fixture
def pool(restricted: str) -> Iterator[Pool]:
    wait_for(lambda: len(release_pods("controller")) == 2, 90, "two controllers")
    kubectl("rollout", "status", "deployment/session-pools-controller", "-n", "session-pools", "--timeout=90s")
    made = publish(restricted, web_service("leaders"), session_pool("leaders"))
    made.until_success()
    yield made
    kubectl("delete", POOLS, "leaders", "-n", restricted, "--cascade=foreground")


def kill(pod: str) -> None:
    """Ended at once, without a word; another takes its place."""
    kubectl("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")


def most_on_a_node(pools: list[Pool]) -> int:
    """Session pods of one pool on one node, those on their way out included."""
    found = json.loads(kubectl("get", "pods", "-n", pools[0].namespace, "-o", "json").stdout)["items"]
    counts = Counter((pod["metadata"]["labels"]["sessionpools.dev/pool"], pod["spec"].get("nodeName")) for pod in found)
    return max(counts.values(), default=0)


def succeeded(before: str, seconds: float) -> None:
    """Another controller than the one before leads within the time."""
    wait_for(lambda: leader() not in ("", before), seconds, f"another controller than {before} leads")


def test_a_leader_that_freezes_is_succeeded_within_fifteen_seconds_and_does_not_lead_on(pool: Pool) -> None:
    first = leading_controller()
    name = first["metadata"]["name"]
    with frozen(first, "session-pools-c"):
        succeeded(name, 15)
        pool.patch(initialPoolSize=2)
        wait_for(lambda: len(pool.ready_pods()) == 2 * len(WORKERS), 60, "the pool has grown")
    uids = {pod["metadata"]["uid"] for pod in pool.pods()}
    time.sleep(5)  # what the frozen one still meant to do would be done by now
    assert leader() not in ("", name)
    assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids


def test_a_leader_whose_pod_is_deleted_is_succeeded_at_once(pool: Pool) -> None:
    name = leader()
    kubectl("delete", "pod", name, "-n", "session-pools", "--wait=false")
    succeeded(name, 5)
    pool.patch(initialPoolSize=2)
    wait_for(lambda: len(pool.ready_pods()) == 2 * len(WORKERS), 60, "the pool has grown")
    pool.until_success()


def test_fifty_kills_while_pools_change_leave_every_pool_as_its_spec_says(restricted: str) -> None:
    kinds = {"killed-a": "Pod", "killed-b": "Pod", "killed-c": "Process"}
    pools = [
        publish(restricted, web_service(name), session_pool(name, 1, _MAXIMUM, isolation=isolation))
        for name, isolation in kinds.items()
    ]
    chance = random.Random(50)
    for number in range(_KILLS):
        pool = pools[number % len(pools)]
        if chance.random() < 0.3:
            apply(web_service(pool.name, f"{DOUBLE}\n# {number}\n"), namespace=restricted)
        else:
            pool.patch(initialPoolSize=chance.randint(0, _MAXIMUM))
        controllers = [
            pod["metadata"]["name"] for pod in wait_for(lambda: release_pods("controller"), 30, "controllers")
        ]
        holder = leader()
        kill(holder if holder in controllers and chance.random() < 0.7 else chance.choice(controllers))
        time.sleep(chance.uniform(0.2, 2.5))
        assert most_on_a_node(pools) <= _MAXIMUM + _SURGE
    for pool in pools:
        pool.patch(initialPoolSize=2)
    for pool in pools:
        status = pool.until_success(180)
        assert status["sessions"]["ready"] == 2 * len(WORKERS)
        assert len(pool.pods()) == (2 if kinds[pool.name] == "Pod" else 1) * len(WORKERS)
    rollout_settles("controller")


def test_minutes_without_an_api_server_end_nothing_and_what_was_asked_before_is_done_after(restricted: str) -> None:
    pool = publish(restricted, web_service("away"), session_pool("away", 1, 3))
    pool.until_success()
    before = pool.lives()
    restarts = {pod["metadata"]["name"]: _restarts(pod) for pod in release_pods("controller")}
    with caller(WORKERS[0]) as client:
        seconds = _API_AWAY_SECONDS + 10
        arguments = ("--connections", "2", "--rate", "10", "--seconds", str(seconds))
        load = client.load(service_url(restricted, "away"), {"x": 1}, *arguments)
        time.sleep(2)
        pool.patch(initialPoolSize=2)
        with frozen_api_server():
            time.sleep(_API_AWAY_SECONDS)
        pool.until_success(120)
        assert set(load.result(120)["statuses"]) == {"200"}
    assert before.items() <= pool.lives().items()
    assert {pod["metadata"]["name"]: _restarts(pod) for pod in release_pods("controller")} == restarts
    rollout_settles("gateway")


def _restarts(pod: Json) -> int:
    return sum(container["restartCount"] for container in pod["status"]["containerStatuses"])
