"""One gateway takes the callers, and there is always one: by the Lease and the label that the Service selects."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sessionpools.api import names
from sessionpools.gateway import active
from sessionpools.gateway.active import Active, GatewayPod, label_changes
from sessionpools.kube import client
from sessionpools.kube.lease import Record
from sessionpools.kube.protocol import LEASES, PODS
from support.apiserver import ApiServer
from support.waiting import until

NAMESPACE, LEASE = "session-pools", "session-pools-gateway"
SELECTOR = "app.kubernetes.io/instance=session-pools,app.kubernetes.io/component=gateway"
LABELS = dict(part.split("=") for part in SELECTOR.split(","))
LEASE_SECONDS, RENEW_SECONDS = 2.0, 0.3


# --- which labels are to change ---------------------------------------------------------------------------------------


def test_the_holder_is_labelled_before_the_label_is_taken_from_others() -> None:
    pods = [GatewayPod("a", True), GatewayPod("b", False), GatewayPod("c", True)]
    assert label_changes(pods, "b") == [("b", True), ("a", False), ("c", False)]


def test_nothing_changes_when_the_holder_alone_is_labelled() -> None:
    assert label_changes([GatewayPod("a", True), GatewayPod("b", False)], "a") == []


def test_a_holder_that_is_not_seen_yet_is_labelled_all_the_same() -> None:
    assert label_changes([GatewayPod("a", True)], "b") == [("b", True), ("a", False)]


# --- gateways ---------------------------------------------------------------------------------------------------------


@dataclass
class Gateway:
    active: Active
    haproxy: dict[str, bool]
    task: asyncio.Task[None] = field(init=False)

    def start(self) -> None:
        self.task = asyncio.create_task(self.active.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def nothing() -> None:
            return None

        monkeypatch.setattr(self.active._election, "_release", nothing)
        await self.stop()


Start = Callable[..., Gateway]


def add_pod(server: ApiServer, name: str, labels: dict[str, str] | None = None) -> None:
    body = {
        "metadata": {"name": name, "labels": LABELS | (labels or {})},
        "spec": {"nodeName": "worker-1", "containers": [{"name": "agent"}]},
    }
    server.store.create(PODS, body, NAMESPACE)


def labelled(server: ApiServer) -> set[str]:
    """The pods that the Service selects."""
    selector = f"{SELECTOR},{names.LABEL_GATEWAY}={names.GATEWAY_ACTIVE}"
    return {pod["metadata"]["name"] for pod in server.store.all(PODS, NAMESPACE, selector)}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(active, "RETRY_SECONDS", 0.05)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer(bookmark_seconds=0.05) as server:
        yield server


@pytest.fixture
async def gateway(server: ApiServer) -> AsyncIterator[Start]:
    api = await server.connect(rng=random.Random(1))
    started: list[Gateway] = []

    def gateway(name: str, **options: Any) -> Gateway:
        haproxy = {"answers": True}

        async def answers() -> bool:
            return haproxy["answers"]

        options = {"lease_seconds": LEASE_SECONDS, "renew_seconds": RENEW_SECONDS, **options}
        made = Gateway(
            Active(api, namespace=NAMESPACE, pod=name, lease=LEASE, selector=SELECTOR, answers=answers, **options),
            haproxy,
        )
        made.start()
        started.append(made)
        return made

    yield gateway
    await asyncio.gather(*(each.stop() for each in started))


async def serves(server: ApiServer, name: str, seconds: float = 10.0) -> None:
    await until(lambda: labelled(server) == {name}, f"{name} alone to carry the label", seconds)


@pytest.fixture
async def pair(server: ApiServer, gateway: Start) -> tuple[Gateway, Gateway]:
    """`a`, which takes the callers, and `b`, which stands by."""
    for name in ("a", "b"):
        add_pod(server, name)
    a = gateway("a")
    await serves(server, "a")
    b = gateway("b")
    await until(lambda: b.active.holder == "a" and b.active.fit, "b to stand by")
    return a, b


async def test_one_of_two_takes_the_callers(server: ApiServer, pair: tuple[Gateway, Gateway]) -> None:
    a, b = pair
    assert (a.active.active, b.active.active) == (True, False)
    assert labelled(server) == {"a"}


async def test_one_that_ends_hands_over_at_once_and_there_is_always_one(
    server: ApiServer, pair: tuple[Gateway, Gateway]
) -> None:
    ended = time.monotonic()
    await pair[0].stop()
    await serves(server, "b")
    assert time.monotonic() - ended < LEASE_SECONDS / 2
    changes = [request for request in server.writes(PODS) if request.time > ended]
    assert [(request.name, request.body) for request in changes[:2]] == [
        ("b", {"metadata": {"labels": {names.LABEL_GATEWAY: "active"}}}),
        ("a", {"metadata": {"labels": {names.LABEL_GATEWAY: None}}}),
    ]


async def test_one_that_crashes_with_its_machine_loses_the_label_when_its_lease_ends(
    server: ApiServer, pair: tuple[Gateway, Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = time.monotonic()
    await pair[0].crash(monkeypatch)
    assert labelled(server) == {"a"}
    await serves(server, "b")
    assert LEASE_SECONDS - RENEW_SECONDS <= time.monotonic() - crashed <= LEASE_SECONDS + RENEW_SECONDS + 1


async def test_the_lease_of_a_pod_that_is_gone_is_taken_at_once(
    server: ApiServer, gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        add_pod(server, name)
    a = gateway("a", lease_seconds=60.0)
    await serves(server, "a")
    b = gateway("b")
    await until(lambda: b.active.holder == "a", "b to stand by")
    await a.crash(monkeypatch)
    server.store.delete(PODS, "a", NAMESPACE, grace=0)
    await serves(server, "b")


async def test_an_evicted_pod_is_gone_too(server: ApiServer, gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        add_pod(server, name)
    a = gateway("a", lease_seconds=60.0)
    await serves(server, "a")
    b = gateway("b")
    await until(lambda: b.active.holder == "a", "b to stand by")
    await a.crash(monkeypatch)
    server.store.edit(PODS, "a", {"status": {"phase": "Failed"}}, NAMESPACE)
    await serves(server, "b")


async def test_one_whose_haproxy_does_not_answer_makes_way(server: ApiServer, pair: tuple[Gateway, Gateway]) -> None:
    a, b = pair
    a.haproxy["answers"] = False
    await serves(server, "b", 3.0)
    a.haproxy["answers"] = True
    b.haproxy["answers"] = False
    await serves(server, "a", 3.0)


async def test_a_haproxy_that_hangs_does_not_answer(server: ApiServer, gateway: Start) -> None:
    api = await server.connect()

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    add_pod(server, "a")
    add_pod(server, "b")
    hung = Active(api, namespace=NAMESPACE, pod="a", lease=LEASE, selector=SELECTOR, answers=hangs)
    running = asyncio.create_task(hung.run())
    try:
        gateway("b")
        await serves(server, "b")
        assert not hung.fit
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_gateway_whose_haproxy_has_not_answered_yet_does_not_contend(server: ApiServer, gateway: Start) -> None:
    add_pod(server, "a")
    a = gateway("a")
    a.haproxy["answers"] = False
    seen = len(server.requests)
    await until(lambda: len(server.requests) > seen, "a look at the pods")
    assert labelled(server) == set()
    a.haproxy["answers"] = True
    await serves(server, "a")


async def test_the_last_one_keeps_its_label_though_its_haproxy_is_silent(server: ApiServer, gateway: Start) -> None:
    add_pod(server, "a")
    a = gateway("a")
    await serves(server, "a")
    a.haproxy["answers"] = False
    await until(lambda: Record.parse(server.store.get(LEASES, LEASE, NAMESPACE)).holder == "", "a release")
    assert labelled(server) == {"a"}


async def test_a_pod_that_is_being_deleted_makes_way_while_it_still_serves(
    server: ApiServer, pair: tuple[Gateway, Gateway]
) -> None:
    server.store.delete(PODS, "a", NAMESPACE)  # it has 30 s
    await serves(server, "b")
    assert not pair[0].active.fit


async def test_while_the_api_server_is_away_nobody_stands_down_and_no_label_moves(
    server: ApiServer, pair: tuple[Gateway, Gateway]
) -> None:
    a, b = pair
    patches = len(server.writes(PODS))
    await server.stop()
    gone = time.monotonic()
    await until(lambda: time.monotonic() - gone > 1.5 * LEASE_SECONDS, "longer than a lease")
    assert a.active.active and not b.active.active
    await server.start()
    before = server.store.get(LEASES, LEASE, NAMESPACE)
    await until(lambda: server.store.get(LEASES, LEASE, NAMESPACE) != before, "a renewal")
    await until(lambda: server.watches == 2, "both to watch the pods again")
    assert a.active.active and not b.active.active
    assert labelled(server) == {"a"}
    assert len(server.writes(PODS)) == patches


async def test_a_label_that_someone_else_gave_or_took_is_put_right(
    server: ApiServer, pair: tuple[Gateway, Gateway]
) -> None:
    server.store.edit(PODS, "b", {"metadata": {"labels": {names.LABEL_GATEWAY: "active"}}}, NAMESPACE)
    await serves(server, "a")
    server.store.edit(PODS, "a", {"metadata": {"labels": {names.LABEL_GATEWAY: None}}}, NAMESPACE)
    await serves(server, "a")


@pytest.mark.parametrize("status", [409, 429, 500, 0])
async def test_a_label_that_could_not_be_given_is_given_later(server: ApiServer, gateway: Start, status: int) -> None:
    add_pod(server, "old", {names.LABEL_GATEWAY: "active"})
    add_pod(server, "a")
    server.fail("patch", PODS, status, times=3, retry_after=0.05)
    gateway("a")
    await until(lambda: "a" in labelled(server), "a's label")
    await serves(server, "a")


async def test_another_releases_pods_keep_their_label(server: ApiServer, gateway: Start) -> None:
    other = {"app.kubernetes.io/instance": "team-b", names.LABEL_GATEWAY: "active"}
    add_pod(server, "theirs", other)
    add_pod(server, "old", {names.LABEL_GATEWAY: "active"})
    add_pod(server, "a")
    gateway("a")
    await serves(server, "a")
    assert server.store.get(PODS, "theirs", NAMESPACE)["metadata"]["labels"][names.LABEL_GATEWAY] == "active"


async def test_once_all_is_settled_leases_are_all_that_is_written(
    server: ApiServer, pair: tuple[Gateway, Gateway]
) -> None:
    writes = len(server.writes())
    leases = len(server.writes(LEASES))
    await until(lambda: len(server.writes(LEASES)) >= leases + 3, "three renewals")
    assert len(server.writes()) == writes


def test_the_selector_of_the_active_one_finds_all() -> None:
    assert active._without_active(f"{SELECTOR},{names.LABEL_GATEWAY}=active") == SELECTOR
