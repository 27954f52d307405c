"""Calls that need more memory than there is: each costs its own session, which is there again at once, and no other."""

import time
from collections.abc import Iterator
from typing import Final

import pytest

from support.caller import Caller, caller, service_url
from support.cluster import wait_for
from support.healing import well_again
from support.pools import WORKERS, Json, PodProxy, Pool, publish, session_pool, web_service

SESSION_SECONDS: Final = 1.0  # "Well again after": the supervisor forks another
CONTAINER_SECONDS: Final = 10.0  # the kubelet's first back-off, where the kernel takes the whole container
# Of a session's own memory its limit knows. Of what processes share only the kernel does, which then kills.
HUNGRY: Final = """
import mmap


def predict(own: int = 0, shared: int = 0) -> int:
    kept = bytearray(own << 20)
    if shared:
        area = mmap.mmap(-1, shared << 20)
        for place in range(0, shared << 20, mmap.PAGESIZE):
            area[place] = 1
    return len(kept)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


def sessions(pods: list[Json], proxy: PodProxy) -> dict[tuple[str, int], int]:
    """The process that is ready on each slot, by pod and slot."""
    return {
        (pod["metadata"]["name"], row["slot"]): row["pid"]
        for pod in pods
        for row in proxy.control(pod).get("sessions", [])  # a pod that is killed says nothing
        if row["state"] == "idle"
    }


@pytest.fixture(scope="module")
def hungry(restricted: str) -> dict[str, Pool]:
    """A pool of each isolation, with two sessions on each node."""
    memory = {"requests": {"memory": "32Mi"}, "limits": {"memory": "96Mi"}}
    made = {}
    for name, isolation in (("forked", "Process"), ("single", "Pod")):
        service = web_service(name, HUNGRY, warmup={}, resources=memory)
        made[isolation] = publish(restricted, service, session_pool(name, 2, 2, isolation=isolation))
    for pool in made.values():
        pool.until_success()
    return made


@pytest.mark.parametrize("isolation", ["Process", "Pod"])
def test_a_call_beyond_the_memory_limit_costs_its_own_session_and_no_other(
    hungry: dict[str, Pool], client: Caller, proxy: PodProxy, isolation: str
) -> None:
    pool = hungry[isolation]
    url = service_url(pool.namespace, pool.name)
    pods, lives = pool.pods(), pool.lives()
    before = sessions(pods, proxy)
    assert len(before) == 4

    def others() -> int:
        """How many sessions are not those that were there before, once all are ready."""
        now = sessions(pods, proxy)
        return len(now.items() - before.items()) if now.keys() == before.keys() else 0

    answer = client.call(url, {"own": 1024})
    began = time.monotonic()
    assert (answer.status, answer.body["success"]) == (200, False)
    assert "MemoryError" in answer.body["errorMessage"]
    wait_for(others, SESSION_SECONDS, "its session is replaced")
    print(f"MemoryError, {isolation}: again after {time.monotonic() - began:.1f} s, at most {SESSION_SECONDS:g} s")
    assert others() == 1
    assert pool.lives() == lives

    before = sessions(pods, proxy)
    answer = client.call(url, {"shared": 1024})
    began = time.monotonic()
    assert answer.status == 502
    wait_for(lambda: others() or pool.lives() != lives, CONTAINER_SECONDS, "its session is replaced")
    took = time.monotonic() - began
    if pool.lives() == lives:
        print(f"killed, {isolation}: again after {took:.1f} s, at most {SESSION_SECONDS:g} s")
        assert took <= SESSION_SECONDS
        assert others() == 1
        assert pool.status()["state"] == "Success"
    else:  # cgroup v2: the container is killed with all that is in it
        well_again(pool, CONTAINER_SECONDS, began)
        assert sum(pool.lives().values()) == sum(lives.values()) + 1
