"""/services/N/V/pool: an upsert that is accepted at once, and rows that say what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionpools.kube.protocol import SESSION_POOLS
from support.simulation import Simulation
from support.waiting import until
from support.web import NAMESPACE, SCRIPT, WebWorld, error_of

POOL = "/services/Score/v1/pool"
NODES = ("http://worker-1:12805/", "http://worker-2:12805/")


def rows(*statuses: str) -> list[dict[str, str]]:
    return [{"computeNodeEndpoint": node, "status": status} for node, status in zip(NODES, statuses, strict=True)]


async def published(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/services/Score/v1", json=SCRIPT)).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        {"InitialPoolSize": 5, "MaxPoolSize": 10},
        {"initialPoolSize": 5, "maxPoolSize": 10},
        {"initial_pool_size": 5, "max_pool_size": 10},
    ],
)
async def test_a_pool_is_created_with_keys_in_any_casing(
    world: WebWorld, admin: httpx.AsyncClient, body: dict[str, int]
) -> None:
    await published(admin)
    answer = await admin.post(POOL, json=body)
    assert (answer.status_code, answer.json()) == (200, "Created.")
    assert world.pool()["spec"] == {
        "serviceName": "Score",
        "serviceVersion": "v1",
        "initialPoolSize": 5,
        "maxPoolSize": 10,
    }
    assert (await admin.get(POOL)).json() == rows("Pending", "Pending")


async def test_a_second_request_changes_the_sizes_and_keeps_those_it_leaves_out(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    await published(admin)
    await admin.post(POOL, json={"InitialPoolSize": 1, "MaxPoolSize": 2})
    answer = await admin.post(POOL, json={"MaxPoolSize": 7})
    assert (answer.status_code, answer.json()) == (200, "Updated.")
    assert (world.pool()["spec"]["initialPoolSize"], world.pool()["spec"]["maxPoolSize"]) == (1, 7)


async def test_sizes_that_are_left_out_are_0_for_a_new_pool(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await published(admin)
    assert (await admin.post(POOL, json={})).status_code == 200
    assert (world.pool()["spec"]["initialPoolSize"], world.pool()["spec"]["maxPoolSize"]) == (0, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"InitialPoolSize": 5, "MaxPoolSize": 4}, "initialPoolSize (5) must not exceed maxPoolSize (4)"),
        ({"InitialPoolSize": -1, "MaxPoolSize": 4}, "body.initialPoolSize"),
        ({"InitialPoolSize": 1, "MaxPoolSize": 1001}, "body.maxPoolSize"),
        ({"InitialPoolSize": "5", "MaxPoolSize": 10}, "body.initialPoolSize"),
        ({"InitialPoolSize": True, "MaxPoolSize": 10}, "body.initialPoolSize"),
        ({"InitialPoolSize": 1.5, "MaxPoolSize": 10}, "body.initialPoolSize"),
        ({"initial_pool_size": 1, "maximum_pool_size": 10}, "body.maximum_pool_size"),  # a sample of ML Server's docs
        ([], "body"),
    ],
)
async def test_wrong_sizes_are_refused_and_named(
    world: WebWorld, admin: httpx.AsyncClient, body: Any, field: str
) -> None:
    await published(admin)
    answer = await admin.post(POOL, json=body)
    assert answer.status_code == 400
    assert field in error_of(answer)
    assert world.pools() == []


async def test_a_pool_of_no_service_is_refused(world: WebWorld, admin: httpx.AsyncClient) -> None:
    answer = await admin.post(POOL, json={"MaxPoolSize": 1})
    assert answer.status_code == 404
    assert "publish it first" in error_of(answer)
    assert world.pools() == []


async def test_where_there_is_no_pool_every_compute_node_is_not_found(admin: httpx.AsyncClient) -> None:
    assert (await admin.get(POOL)).json() == rows("NotFound", "NotFound")


async def test_a_pool_that_kubectl_made_is_seen_resized_and_deleted(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await world.kubectl_service()
    await world.kubectl_pool(labels={"team": "a"})
    assert (await admin.get(POOL)).json() == rows("Pending", "Pending")
    assert (await admin.post(POOL, json={"InitialPoolSize": 2, "MaxPoolSize": 4})).json() == "Updated."
    assert world.pool()["spec"]["maxPoolSize"] == 4
    assert world.pool()["metadata"]["labels"] == {"team": "a"}
    answer = await admin.delete(POOL)
    assert (answer.status_code, answer.json()) == (200, "Deleted.")
    assert world.pools() == []
    assert (await admin.delete(POOL)).status_code == 200  # it is deleted already


async def test_usage_of_a_pool_that_is_not_there_says_how_to_make_one(admin: httpx.AsyncClient) -> None:
    answer = await admin.get(f"{POOL}/usage")
    assert answer.status_code == 404
    assert "POST /services/Score/v1/pool" in error_of(answer)


# --- with the controller and kubelets --------------------------------------------------------------------------------


class Alive:
    """The web API beside a controller, and kubelets of two nodes."""

    def __init__(self, sim: Simulation, world: WebWorld) -> None:
        self.sim = sim
        self.world = world
        self.admin = world.client()

    async def statuses(self) -> list[str]:
        return [row["status"] for row in (await self.admin.get(POOL)).json()]

    async def until_all(self, status: str, seconds: float = 20) -> list[list[str]]:
        """What was seen on the way, each change once."""
        seen: list[list[str]] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    now = await self.statuses()
                    if not seen or seen[-1] != now:
                        seen.append(now)
                    if set(now) == {status}:
                        return seen
        except TimeoutError:
            pytest.fail(f"never {status} everywhere: {seen}")


@pytest.fixture
async def alive(tmp_path: Path) -> AsyncIterator[Alive]:
    async with Simulation() as sim:
        for name in ("worker-1", "worker-2"):
            sim.add_node(name)
        async with WebWorld(tmp_path, server=sim.server) as world:
            await world.kubectl_service()
            yield Alive(sim, world)


async def test_a_pool_is_pending_then_success_and_after_its_deletion_not_found(alive: Alive) -> None:
    await alive.admin.post(POOL, json={"InitialPoolSize": 2, "MaxPoolSize": 4})
    assert await alive.statuses() == ["Pending", "Pending"]
    await alive.until_all("Success")
    alive.sim.kubelet.finish_deletions = False
    assert (await alive.admin.delete(POOL)).status_code == 200
    assert await alive.statuses() == ["Pending", "Pending"]  # its sessions are not gone yet
    assert (await alive.admin.delete(POOL)).status_code == 200  # a second time changes nothing
    alive.sim.kubelet.finish_deletions = True
    seen = await alive.until_all("NotFound")
    assert ["Success", "Success"] not in seen
    await until(lambda: not alive.world.pools(), "the object is gone")


async def test_the_status_after_a_resize_is_not_the_one_before_it(alive: Alive) -> None:
    await alive.admin.post(POOL, json={"InitialPoolSize": 1, "MaxPoolSize": 4})
    await alive.until_all("Success")
    await alive.sim.stop_controller()  # nobody has looked at what follows
    await alive.admin.post(POOL, json={"InitialPoolSize": 3})
    assert await alive.statuses() == ["Pending", "Pending"]
    await alive.sim.start_controller()
    await alive.until_all("Success")
    assert len(alive.sim.ready_pods()) == 6


async def test_a_pool_deleted_in_the_background_is_counted_by_the_pods_that_are_left(alive: Alive) -> None:
    await alive.world.kubectl_pool(object_name="of-another-name", initial=1)
    await alive.until_all("Success")
    alive.sim.kubelet.finish_deletions = False
    api = await alive.sim.server.connect()
    await api.delete(SESSION_POOLS, "of-another-name", namespace=NAMESPACE)
    await until(lambda: alive.world.parts.cluster.pool("Score", "v1") is None, "the API knows that the pool is gone")
    assert await alive.statuses() == ["Pending", "Pending"]
    alive.sim.kubelet.finish_deletions = True
    await alive.until_all("NotFound")


async def test_a_new_pool_may_begin_while_the_old_one_is_leaving(alive: Alive) -> None:
    await alive.admin.post(POOL, json={"InitialPoolSize": 1, "MaxPoolSize": 1})
    await alive.until_all("Success")
    alive.sim.kubelet.finish_deletions = False
    await alive.admin.delete(POOL)
    answer = await alive.admin.post(POOL, json={"InitialPoolSize": 1, "MaxPoolSize": 1})
    assert (answer.status_code, answer.json()) == (200, "Created.")
    assert len(alive.world.pools()) == 2
    alive.sim.kubelet.finish_deletions = True
    await until(lambda: len(alive.world.pools()) == 1, "the old pool is gone")
    await alive.until_all("Success")


async def test_a_node_that_joins_is_pending_until_it_is_filled(alive: Alive) -> None:
    await alive.admin.post(POOL, json={"InitialPoolSize": 1, "MaxPoolSize": 1})
    await alive.until_all("Success")
    await alive.sim.stop_controller()
    alive.sim.add_node("worker-3")
    await until(lambda: len(alive.world.parts.cluster.nodes()) == 3, "the API knows the node")
    assert await alive.statuses() == ["Success", "Success", "Pending"]
