"""Calls that take seconds, and are inside when their session has to go: it is told to end, answers them, and ends then.
In the order of the tests: the same pools, one of each isolation. All nodes are as they were after each test.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from sessionpools.api import names
from support.caller import Caller, Load, caller, service_url
from support.cluster import apply, kubectl, temporary_namespace, wait_for
from support.faults import rollout_settles
from support.pools import POOLS, WHERE, WORKERS, Json, PodProxy, Pool, publish, session_pool, web_service

CALL_SECONDS: Final = 10  # longer than a change takes to reach a session pod, and its preStop
DRAIN_SECONDS: Final = 15
COLLECTED_SECONDS: Final = 5.0  # until a pool is gone whose last session pod has ended
ISOLATIONS: Final = {"single": "Pod", "forked": "Process"}

Leaves = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class World:
    namespace: str
    client: Caller
    proxy: PodProxy
    pools: list[Pool]
    short: Pool  # whose calls take no time

    def sessions(self, pods: Iterable[Json]) -> list[Json]:
        return [row for pod in pods for row in self.proxy.control(pod)["sessions"]]

    def begin(self) -> list["Begun"]:
        """Gives each session of each pool a call; returns when all have begun."""
        before = [pool.pods() for pool in self.pools]
        numbers = [str(len(self.sessions(pods))) for pods in before]
        begun = []
        for pool, pods, number in zip(self.pools, before, numbers, strict=True):
            url = service_url(self.namespace, pool.name)
            load = self.client.load(url, {"seconds": CALL_SECONDS}, "--connections", number, "--calls", number)
            begun.append(Begun(pool, pods, load))
        wait_for(lambda: all(self.are_busy(pods) for pods in before), 10, "each session has a call")
        return begun

    def are_busy(self, pods: list[Json]) -> bool:
        return all(row["state"] == "busy" for row in self.sessions(pods))

    def told_to_end(self, pods: Iterable[Json]) -> None:
        """Waits until the supervisors of these pods have been told while all their sessions have calls."""
        waited = list(pods)

        def all_are() -> bool:
            waited[:] = [pod for pod in waited if not self.drains_with_calls(pod)]
            return not waited

        wait_for(all_are, CALL_SECONDS, "the supervisors are told to end")

    def drains_with_calls(self, pod: Json) -> bool:
        view = self.proxy.control(pod)
        return view.get("phase") == "draining" and all(row["state"] == "busy" for row in view["sessions"])

    def has_maximum(self, pod: Json, maximum: int) -> bool:
        return bool(self.proxy.control(pod)["settings"]["maxPoolSize"] == maximum)


@dataclass(frozen=True)
class Begun:
    """A call that each session of a pool had."""

    pool: Pool
    pods: list[Json]
    load: Load

    def are_answered(self, each: int) -> None:
        """By the sessions that had them: so many a pod."""
        found = self.load.result()
        assert found["statuses"] == {"200": each * len(self.pods)}, found
        assert found["answers"] == {pod["metadata"]["name"]: each for pod in self.pods}, found


@pytest.fixture(scope="module")
def world(proxy: PodProxy) -> Iterator[World]:
    times = {"requestTimeoutSeconds": DRAIN_SECONDS, "drainTimeoutSeconds": DRAIN_SECONDS}
    # without surge: what is old is told to end at once, however long others take to start
    update = {"maxSurge": 0, "maxUnavailable": 2}
    with caller(WORKERS[0]) as client, temporary_namespace("long") as namespace:
        pools = [
            publish(
                namespace,
                web_service(name, WHERE, warmup={}),
                session_pool(name, 2, 2, isolation=isolation, update=update, **times),
            )
            for name, isolation in ISOLATIONS.items()
        ]
        short = publish(namespace, web_service("short"), session_pool("short", 1, 1))
        for pool in (*pools, short):
            pool.until_success()
        yield World(namespace, client, proxy, pools, short)


def sessions_a_pod(pool: Pool, a_node: int) -> int:
    return a_node if ISOLATIONS[pool.name] == "Process" else 1


def test_a_rollout_ends_no_call(world: World) -> None:
    revisions = [pool.status()["revision"] for pool in world.pools]
    begun = world.begin()
    for pool in world.pools:
        apply(web_service(pool.name, f"{WHERE}# changed\n", warmup={}), namespace=world.namespace)
    world.told_to_end(pod for each in begun for pod in each.pods)
    for each in begun:
        each.are_answered(sessions_a_pod(each.pool, 2))
    for pool, revision in zip(world.pools, revisions, strict=True):
        pool.until_success()
        assert pool.status()["revision"] != revision


def test_a_lower_maximum_ends_no_call(world: World) -> None:
    begun = world.begin()
    single, forked = begun
    for each in begun:
        each.pool.patch(initialPoolSize=1, maxPoolSize=1)

    def leaving() -> list[Json]:
        staying = {pod["metadata"]["uid"] for pod in single.pool.pods()}
        return [pod for pod in single.pods if pod["metadata"]["uid"] not in staying]

    wait_for(lambda: len(leaving()) == len(WORKERS), 5, "one of each node leaves")
    world.told_to_end(leaving())
    for pod in forked.pods:
        wait_for(partial(world.has_maximum, pod, 1), CALL_SECONDS, "it has the new maximum")
        assert world.are_busy([pod])
    for each in begun:
        each.are_answered(sessions_a_pod(each.pool, 2))
    for pool in world.pools:
        pool.until_success()
    wait_for(lambda: len(world.sessions(forked.pods)) == len(WORKERS), 10, "one slot of each node is closed")
    assert len(single.pool.pods()) == len(WORKERS)


@contextmanager
def drained(node: str) -> Iterator[None]:
    """As its administrator does it, who waits until it is done."""
    # emptyDir: a session's work directory is one
    command = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
    with ThreadPoolExecutor() as beside:
        done = beside.submit(kubectl, *command)
        try:
            yield
            done.result()
        finally:
            kubectl("uncordon", node)


@contextmanager
def executing(node: str) -> Iterator[None]:
    taint = "example.com/held=yes:NoExecute"
    kubectl("taint", "node", node, taint)
    try:
        yield
    finally:
        kubectl("taint", "node", node, f"{taint}-")


def has_none(pool: Pool, node: str) -> bool:
    return not pool.pods(node)


def has_row(pool: Pool, node: str, states: list[str]) -> bool:
    return [row["state"] for row in pool.status()["nodes"] if row["name"] == node] == states


@pytest.mark.parametrize(("leaves", "row"), [(drained, ["NotFound"]), (executing, [])], ids=["drained", "tainted"])
def test_a_node_that_is_drained_or_tainted_ends_its_sessions_and_no_call(
    world: World, leaves: Leaves, row: list[str]
) -> None:
    other, node = WORKERS  # the caller is on the other one
    url = service_url(world.namespace, world.short.name)
    short = world.client.load(url, {"x": 1}, "--connections", "2", "--rate", "20")
    begun = world.begin()
    with leaves(node):
        world.told_to_end(pod for each in begun for pod in each.pods if pod["spec"]["nodeName"] == node)
        for each in begun:
            each.are_answered(1)
        for pool in (*world.pools, world.short):
            wait_for(partial(has_none, pool, node), 10, "no session pod is left there")
            wait_for(partial(has_row, pool, node, row), 10, f"the node's row is {row}")
            assert has_row(pool, other, ["Success"])
    for pool in (*world.pools, world.short):
        wait_for(partial(pool.ready_pods, node), 60, "the node is filled again")
    found = short.end()
    assert set(found["statuses"]) == {"200"}, found
    for component in ("controller", "gateway"):
        rollout_settles(component)


def test_a_deleted_pool_answers_what_it_can_in_time_and_is_gone_in_time(world: World) -> None:
    lasting: dict[int, list[Load]] = {seconds: [] for seconds in (CALL_SECONDS, 10 * DRAIN_SECONDS)}
    for pool in world.pools:
        url = service_url(world.namespace, pool.name)
        for seconds, loads in lasting.items():
            loads.append(world.client.load(url, {"seconds": seconds}, "--calls", "1"))
    wait_for(lambda: all(world.are_busy(pool.pods()) for pool in world.pools), 10, "each session has a call")
    began = time.monotonic()
    kubectl("delete", POOLS, *ISOLATIONS, "-n", world.namespace, "--cascade=foreground")
    took = time.monotonic() - began
    at_most = names.PRE_STOP_SECONDS + DRAIN_SECONDS + names.DRAIN_MARGIN_SECONDS + COLLECTED_SECONDS
    print(f"gone after {took:.1f} s, at most {at_most:g} s")
    assert took <= at_most
    short, long = ([load.result()["statuses"] for load in loads] for loads in lasting.values())
    assert short == [{"200": 1}] * len(world.pools)
    assert long == [{"504": 1}] * len(world.pools)
