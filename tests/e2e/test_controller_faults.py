"""Controllers that end, well or not, freeze, are killed while they work, or have no API server for two minutes: every
pool is as its spec says afterwards.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest

from support.caller import caller, service_url
from support.cluster import apply, get, kubectl, wait_for
from support.faults import NAMESPACE, frozen, kill, leader, leading_controller, release_pods, rollout_settles
from support.onlooker import pods_looked_at
from support.outage import begin_two_minutes_without_api_server, frozen_controllers, until_the_api_server_is_back
from support.pools import DOUBLE, POOLS, WORKERS, Json, Pool, publish, session_pool, web_service

KILLS: Final = 50
EXPIRIES: Final = 5  # of them are followed by the Lease's own end
SUCCEEDED_SECONDS: Final = 15.0
STOOD_STILL_SECONDS: Final = 75.0  # six probes, 10 s apart, that get no answer for 5 s
MAXIMUM: Final = 3
SURGE: Final = 1


@pytest.fixture
def pool(restricted: str) -> Iterator[Pool]:
    two_controllers()
    kubectl("rollout", "status", "deployment/session-pools-controller", "-n", NAMESPACE, "--timeout=90s")
    made = publish(restricted, web_service("leaders"), session_pool("leaders"))
    made.until_success()
    yield made
    kubectl("delete", POOLS, "leaders", "-n", restricted, "--cascade=foreground")


def two_controllers() -> None:
    wait_for(lambda: len(release_pods("controller")) == 2, 90, "two controllers")


def succeeded(before: str, seconds: float) -> None:
    """Another controller than the one before leads within the time."""
    wait_for(lambda: leader() not in ("", before), seconds, f"another controller than {before} leads")


def restarts(pod: Json) -> int:
    return sum(container["restartCount"] for container in pod["status"].get("containerStatuses", []))


def test_a_leader_that_freezes_is_succeeded_within_fifteen_seconds_and_does_not_lead_on(pool: Pool) -> None:
    first = leading_controller()
    name = first["metadata"]["name"]
    with frozen(first, "session-pools-c"):
        succeeded(name, SUCCEEDED_SECONDS)
        pool.patch(initialPoolSize=2)
        wait_for(lambda: len(pool.ready_pods()) == 2 * len(WORKERS), 60, "the pool has grown")
    uids = {pod["metadata"]["uid"] for pod in pool.pods()}
    time.sleep(5)  # what the frozen one still meant to do would be done by now
    assert leader() not in ("", name)
    assert {pod["metadata"]["uid"] for pod in pool.pods()} == uids


def test_a_leader_whose_pod_is_deleted_is_succeeded_at_once(pool: Pool) -> None:
    name = leader()
    kubectl("delete", "pod", name, "-n", NAMESPACE, "--wait=false")
    succeeded(name, 5)
    pool.patch(initialPoolSize=2)
    wait_for(lambda: len(pool.ready_pods()) == 2 * len(WORKERS), 60, "the pool has grown")
    pool.until_success()


def test_a_controller_that_stands_still_is_started_again_and_one_that_is_idle_is_not() -> None:
    two_controllers()
    rollout_settles("controller")
    leads = leading_controller()["metadata"]["name"]
    before = restarts_by_name()
    (still,) = [pod for pod in release_pods("controller") if pod["metadata"]["name"] != leads]
    name = still["metadata"]["name"]
    ended = ends_by_liveness(name)
    with frozen(still, "session-pools-c"):
        began = time.monotonic()
        wait_for(lambda: ends_by_liveness(name) > ended, STOOD_STILL_SECONDS, "its container is ended")
        print(f"noticed after {time.monotonic() - began:.0f} s, at most {STOOD_STILL_SECONDS:g} s")
    # it goes on now, and so ends before the kubelet kills it
    wait_for(lambda: restarts_by_name()[name] > before[name], 30, "it has been started again")
    rollout_settles("controller")
    assert restarts_by_name() == before | {name: before[name] + 1}


def restarts_by_name() -> dict[str, int]:
    return {pod["metadata"]["name"]: restarts(pod) for pod in release_pods("controller")}


def ends_by_liveness(pod: str) -> int:
    """How often the kubelet has said that it ends the pod's container for its liveness probe."""
    selector = f"involvedObject.name={pod},reason=Killing"
    found = json.loads(kubectl("get", "events", "-n", NAMESPACE, "--field-selector", selector, "-o", "json").stdout)
    return sum(each["count"] for each in found["items"] if "failed liveness probe" in each["message"])


def end_at_once(pod: Json, *, frees_lease: bool) -> None:
    """Kills the leader's process, and removes its pod, which would be let wait before it is started again. Where its
    Lease is freed, what is tried is what it leaves behind, not that the Lease expires 10 s later."""
    name = pod["metadata"]["name"]
    kill(pod, "session-pools-c")
    kubectl("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force")
    if frees_lease:
        freed = '{"spec": {"holderIdentity": ""}}'
        kubectl("patch", "lease", "session-pools-controller", "-n", NAMESPACE, "--type=merge", "-p", freed)


@pytest.mark.timeout(540)
def test_fifty_leaders_killed_while_pools_change_leave_every_pool_as_its_spec_says(restricted: str) -> None:
    two_controllers()
    kinds = {"killed-a": "Pod", "killed-b": "Pod", "killed-c": "Process"}
    bodies = {
        name: session_pool(name, 1, MAXIMUM, isolation=kind, idleTimeoutSeconds=1) for name, kind in kinds.items()
    }
    pools = [publish(restricted, web_service(name), body) for name, body in bodies.items()]
    with standbys(2), pods_looked_at(*pools) as seen:
        kill_leaders_while_changing(pools, bodies)
        apply(*bodies.values(), namespace=restricted)  # those that were deleted last
        for pool in pools:
            pool.patch(initialPoolSize=2, maxPoolSize=MAXIMUM, isolation=kinds[pool.name])
        for pool in pools:
            pool.until_success(180)
    assert seen.most_pods <= MAXIMUM + SURGE
    for pool in pools:
        wanted = (2 if kinds[pool.name] == "Pod" else 1) * len(WORKERS)
        wait_for(partial(is_as_asked, pool, wanted), 60, f"{pool.name} has {wanted} session pods, and says so")
    rollout_settles("controller")


@contextmanager
def standbys(number: int) -> Iterator[None]:
    """So many, so that one is there soon after another was killed: it takes a controller some seconds to start."""

    def scale(replicas: int) -> None:
        kubectl("scale", "deployment/session-pools-controller", "-n", NAMESPACE, f"--replicas={replicas}")

    scale(1 + number)
    try:
        rollout_settles("controller")
        yield
    finally:
        scale(2)
        two_controllers()


def kill_leaders_while_changing(pools: list[Pool], bodies: dict[str, Json]) -> None:
    chance = random.Random(50)
    for number in range(KILLS):
        holder = leading_controller()
        change(pools[number % len(pools)], bodies, chance, number)
        time.sleep(chance.uniform(0, 0.3))
        expires = number % (KILLS // EXPIRIES) == 0
        end_at_once(holder, frees_lease=not expires)
        if expires:
            began = time.monotonic()
            succeeded(holder["metadata"]["name"], SUCCEEDED_SECONDS)
            print(f"succeeded after {time.monotonic() - began:.1f} s, at most {SUCCEEDED_SECONDS:g} s")


def change(pool: Pool, bodies: dict[str, Json], chance: random.Random, number: int) -> None:
    """One of what users do to a pool. One that was deleted is created again first, at its first sizes."""
    if not pool.exists():
        apply(bodies[pool.name], namespace=pool.namespace)
        return
    what = chance.choices(("sizes", "code", "isolation", "delete"), (5, 3, 1, 1))[0]
    if what == "sizes":
        maximum = chance.randint(1, MAXIMUM)
        pool.patch(initialPoolSize=chance.randint(0, maximum), maxPoolSize=maximum)
    elif what == "code":
        apply(web_service(pool.name, f"{DOUBLE}\n# {number}\n"), namespace=pool.namespace)
    elif what == "isolation":
        isolation = get(POOLS, pool.name, pool.namespace)["spec"]["isolation"]
        pool.patch(isolation="Pod" if isolation == "Process" else "Process")
    else:
        kubectl("delete", POOLS, pool.name, "-n", pool.namespace)


def is_as_asked(pool: Pool, pods: int) -> bool:
    said = {"desired": 4, "ready": 4, "updated": 4, "old": 0}
    return len(pool.ready_pods()) == len(pool.pods()) == pods and pool.status()["sessions"] == said


@pytest.mark.timeout(540)
def test_minutes_without_an_api_server_end_nothing_and_what_was_asked_before_is_done_after(restricted: str) -> None:
    rollout_settles("controller")
    pool = publish(restricted, web_service("away"), session_pool("away", 1, 3))
    pool.until_success()
    before = pool.lives()
    controllers = {pod["metadata"]["uid"]: restarts(pod) for pod in release_pods("controller")}
    with caller(WORKERS[0]) as client:
        arguments = ("--connections", "2", "--rate", "10", "--seconds", "120")
        load = client.load(service_url(restricted, "away"), {"x": 1}, *arguments)
        with frozen_controllers():  # so that they do not see it before the API server is away
            pool.patch(initialPoolSize=2)
            begin_two_minutes_without_api_server()
            away = datetime.now(UTC)
        until_the_api_server_is_back()
        began = time.monotonic()
        pool.until_success()
        print(f"as asked {time.monotonic() - began:.0f} s after the API server is back")
        found = load.result()
    assert set(found["statuses"]) == {"200"}, found
    assert before.items() <= pool.lives().items()
    added = [pod["metadata"] for pod in pool.pods() if pod["metadata"]["uid"] not in before]
    assert min(datetime.fromisoformat(pod["creationTimestamp"]) for pod in added) > away + timedelta(seconds=60)
    assert {pod["metadata"]["uid"]: restarts(pod) for pod in release_pods("controller")} == controllers
    rollout_settles("gateway")
