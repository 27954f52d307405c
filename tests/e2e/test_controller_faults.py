"""Leaders that end, well or not, on the real cluster: the other controller goes on with the work."""

import time
from collections.abc import Iterator

import pytest

from support.cluster import kubectl, wait_for
from support.faults import frozen, leader, leading_controller, release_pods
from support.pools import POOLS, WORKERS, Pool, publish, session_pool, web_service


@pytest.fixture
def pool(restricted: str) -> Iterator[Pool]:
    wait_for(lambda: len(release_pods("controller")) == 2, 90, "two controllers")
    kubectl("rollout", "status", "deployment/session-pools-controller", "-n", "session-pools", "--timeout=90s")
    made = publish(restricted, web_service("leaders"), session_pool("leaders"))
    made.until_success()
    yield made
    kubectl("delete", POOLS, "leaders", "-n", restricted, "--cascade=foreground")


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
