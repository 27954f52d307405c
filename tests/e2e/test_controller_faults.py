"""Controllers that are killed while they work, and while the API server is away: what they keep is as its spec says."""

import json
import random
import time
from collections import Counter

from support.caller import caller, service_url
from support.cluster import apply, kubectl, wait_for
from support.faults import NAMESPACE, frozen_api_server, leader, leading_controller, release_pods, rollout_settles
from support.pools import DOUBLE, WORKERS, Json, Pool, publish, session_pool, web_service

_KILLS = 50
_MAXIMUM = 3
_SURGE = 1
_API_AWAY_SECONDS = 120


def kill(pod: str) -> None:
    """Ended at once, without a word; another takes its place."""
    kubectl("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")


def most_on_a_node(pools: list[Pool]) -> int:
    """Session pods of one pool on one node, those on their way out included."""
    found = json.loads(kubectl("get", "pods", "-n", pools[0].namespace, "-o", "json").stdout)["items"]
    counts = Counter((pod["metadata"]["labels"]["sessionpools.dev/pool"], pod["spec"].get("nodeName")) for pod in found)
    return max(counts.values(), default=0)


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
        controllers = [pod["metadata"]["name"] for pod in release_pods("controller")]
        kill(leader() if chance.random() < 0.7 else chance.choice(controllers or [""]))
        time.sleep(chance.uniform(0.2, 2.5))
        assert most_on_a_node(pools) <= _MAXIMUM + _SURGE
    for pool in pools:
        pool.patch(initialPoolSize=2)
    for pool in pools:
        status = pool.until_success(180)
        assert status["sessions"]["ready"] == 2 * len(WORKERS)
        assert len(pool.pods()) == (2 if kinds[pool.name] == "Pod" else 1) * len(WORKERS)
    rollout_settles("controller")


def test_a_deleted_leader_hands_over_at_once_and_a_killed_one_within_fifteen_seconds(restricted: str) -> None:
    pool = publish(restricted, web_service("led"), session_pool("led", 1, 4))
    pool.until_success()
    for size, grace, seconds in ((2, "30", 8), (3, "0", 15)):
        rollout_settles("controller")
        before = leading_controller()["metadata"]["name"]
        force = ("--force",) if grace == "0" else ()
        command = ("delete", "pod", before, "-n", NAMESPACE, f"--grace-period={grace}", *force, "--wait=false")
        kubectl(*command)
        wait_for(lambda before=before: leader() not in ("", before), seconds, "another controller leads")  # type: ignore[misc]
        pool.patch(initialPoolSize=size)
        wait_for(lambda size=size: len(pool.pods()) == size * len(WORKERS), 20, "it does what the pool's spec says")  # type: ignore[misc]
    pool.until_success()
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
