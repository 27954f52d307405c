"""The agent with a real HAProxy and real session supervisors, against the in-process API server."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import aiohttp
import pytest

from sessionpools.gateway import files
from sessionpools.kube.protocol import PODS
from support.gateway_world import NAMESPACE, World
from unit.session.runtime_pod import OPERATOR, free_ports


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as world:
        yield world


async def test_a_call_is_answered_by_a_session_of_its_pool(world: World) -> None:
    for pool in ("score", "other"):
        world.publish(pool)
        await world.start_pod(pool, name=f"{pool}-a")
    await world.start()
    await world.until_open("score-a:0", "other-a:0")
    assert await world.call("score") == (200, "score-a")
    assert await world.call("other") == (200, "other-a")
    status, said = await world.call("unknown")
    assert status == 404, said


async def test_a_ready_pod_is_served_within_50_ms(world: World) -> None:
    world.publish("score")
    await world.start()
    took = []
    for number in range(7):
        name = f"score-{number}"
        world.add_pod("score", name, f"127.99.9.{number + 1}", node=f"worker-{number}", ready=False)
        began = time.monotonic()
        world.set_ready(name, True)
        await world.until(lambda name=name: world.open_slots(name), "its slot is open")  # type: ignore[misc]
        took.append(time.monotonic() - began)
    assert statistics.median(took) <= 0.05, took


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_haproxy_restarted_while_the_agent_is_away_serves_everything_from_the_files(world: World) -> None:
    for pool in ("score", "other"):
        world.publish(pool)
        await world.start_pod(pool, name=f"{pool}-a", maxPoolSize=4)
    await world.start()
    slots = [f"{pool}-a:{n}" for pool in ("score", "other") for n in range(4)]
    await world.until_open(*slots)
    await world.stop_agent()
    await world.stop_haproxy()
    await world.start_haproxy()
    await world.until_open(*slots)
    assert await world.call("score") == (200, "score-a")
    assert await world.call("other") == (200, "other-a")


async def test_an_agent_that_starts_again_changes_nothing_that_is_right(world: World) -> None:
    world.publish("score")
    world.publish("other")
    await world.start_pod("score", name="score-a", maxPoolSize=4)
    await world.start()
    await world.until_open(*(f"score-a:{n}" for n in range(4)))
    servers, process = await world.servers(), await world.runtime.process()
    written = {path: path.stat().st_mtime_ns for path in world.files()}
    async with world.load("score", callers=4) as counts:
        await world.stop_agent()
        agent = await world.start_agent()
        await world.until(lambda: not agent.not_ready_because(), "the new agent has taken over")
        # what it does, it has done when a later change was made
        world.add_pod("other", "other-a", "127.99.9.9")
        await world.until(lambda: world.open_slots("other-a"), "the later change")
    assert [command for command in world.commands if "other-a" not in command] == []
    after = await world.servers()
    assert {name: after[name] for name in servers} == servers
    assert await world.runtime.process() == process
    assert agent.reloads == 0
    unchanged = [path for path, when in written.items() if path.stat().st_mtime_ns == when]
    assert {path.name for path in unchanged} >= {files.MAP, files.HOLD}
    assert list(counts) == ["200"], counts


async def test_haproxy_that_starts_again_gets_what_its_files_lacked(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    stale = {path: path.read_text() for path in world.files()}
    world.publish("later")
    await world.start_pod("later", name="later-a")
    await world.until_open("score-a:0", "later-a:0")
    await world.stop_haproxy()
    for path, text in stale.items():
        path.write_text(text)
    await world.start_haproxy()
    await world.until_open("score-a:0", "later-a:0")
    assert await world.call("later") == (200, "later-a")
    await world.until(lambda: "later-a" in world.read(files.CONFIG), "the files are mended, too")


async def test_what_changes_while_haproxy_is_away_is_served_when_it_is_back(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    await world.stop_haproxy()
    await world.start_pod("score", name="score-b", node="worker-2")
    world.delete_pod("score-a")
    await world.until(lambda: "score-b" in world.read(files.CONFIG), "the files have it")
    await world.start_haproxy()
    await world.until_open("score-b:0")
    assert await world.call("score") == (200, "score-b")


async def test_a_server_that_somebody_else_changed_is_put_right(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    (server,) = (await world.servers()).values()
    await world.runtime.ask_one(f"set server {server.backend}/{server.name} state maint")
    await world.until_open("score-a:0")


# --- pods come and go -------------------------------------------------------------------------------------------------


async def test_a_deleted_pod_is_closed_at_once_and_its_server_removed_when_its_call_is_over(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    running = asyncio.create_task(world.call("score", 1.5))
    await world.until(world.busy, "the call runs")
    began = time.monotonic()
    world.delete_pod("score-a")
    await world.until_open()
    assert time.monotonic() - began < 0.5
    assert not running.done()
    assert len(await world.servers()) == 1, "its call runs there"
    assert await running == (200, "score-a")

    async def removed() -> bool:
        return await world.servers() == {}

    await world.until(removed, "its server is removed")


async def test_calls_move_to_the_new_pod_as_the_old_one_is_deleted(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    async with world.load("score") as counts:
        await world.start_pod("score", name="score-b", node="worker-2")
        await world.until_open("score-a:0", "score-b:0")
        world.delete_pod("score-a")
        await world.until_open("score-b:0")
        before = sum(counts.values())
        await world.until(lambda: sum(counts.values()) > before + 20, "calls go on")
    assert list(counts) == ["200"], counts


async def test_an_address_that_went_to_another_pool_is_never_answered_by_the_wrong_one(world: World) -> None:
    for pool in ("score", "other"):
        world.publish(pool)
    old = await world.start_pod("score", name="score-a")
    await world.start_pod("score", name="score-b", node="worker-2")
    await world.start()
    await world.until_open("score-a:0", "score-b:0")
    await world.stop_agent()
    old.stop()
    world.delete_pod("score-a")
    world.forget_pod("score-a")
    await world.start_pod("other", name="other-a", address=old.address)
    answers = [await world.call("score") for _ in range(20)]
    assert answers == [(200, "score-b")] * 20, "the session said 425, and another one was asked"
    await world.start_agent()
    await world.until_open("score-b:0", "other-a:0")
    assert await world.call("other") == (200, "other-a")


async def test_a_pod_of_the_same_name_is_called_at_its_new_address(world: World) -> None:
    world.publish("score")
    first = await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    first.stop()
    await world.start_pod("score", name="again")
    world.delete_pod("again")
    world.set_ready("score-a", True, world.pods["again"].address)

    async def moved() -> bool:
        return [s.address for s in (await world.servers()).values() if s.open] == [world.pods["again"].address]

    await world.until(moved, "its server has the new address")
    assert await world.call("score") == (200, "again")


async def test_a_pod_that_cannot_be_reached_is_cut_off_and_comes_back(world: World) -> None:
    world.publish("score")
    lost = await world.start_pod("score", name="score-a", node="worker-1")
    await world.start_pod("score", name="score-b", node="worker-2")
    await world.start()
    await world.until_open("score-a:0", "score-b:0")
    async with world.load("score", callers=6) as counts:
        began = time.monotonic()
        lost.kill()
        await world.until_open("score-b:0")
        assert time.monotonic() - began < 3.0
        before = counts["200"]
        await world.until(lambda: counts["200"] > before + 50, "calls go on")
    # what ran in it, and what its kernel had taken for it between its end and the end of its socket
    assert sum(count for key, count in counts.items() if key != "200") <= 2, counts
    assert not any(key.startswith("503") for key in counts), counts
    lost.start()
    await world.until_open("score-a:0", "score-b:0")
    await world.until(lambda: world.answered_by("score", "score-a"), "it answers calls again")


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_growth_opens_slots_when_the_pod_has_read_the_new_maximum(world: World) -> None:
    world.publish("score", maxPoolSize=2)
    pod = await world.start_pod("score", name="score-a", maxPoolSize=2)
    await world.start()
    await world.until_open("score-a:0", "score-a:1")
    world.edit_pool("score", maxPoolSize=4)
    world.publish("marker")
    await world.until(lambda: "marker" in world.read(files.MAP), "a later change is made")
    assert await world.open_slots() == ["score-a:0", "score-a:1"]
    pod.change(maxPoolSize=4)
    await world.until_open(*(f"score-a:{n}" for n in range(4)))
    answers = await asyncio.gather(*(world.call("score", 0.3) for _ in range(4)))
    assert answers == [(200, "score-a")] * 4


async def test_shrink_closes_the_highest_slots_first(world: World) -> None:
    world.publish("score", maxPoolSize=4)
    await world.start_pod("score", name="score-a", maxPoolSize=4)
    await world.start()
    await world.until_open(*(f"score-a:{n}" for n in range(4)))
    async with world.load("score", callers=4) as counts:
        world.edit_pool("score", maxPoolSize=2)
        await world.until_open("score-a:0", "score-a:1")
    assert list(counts) == ["200"], counts


async def test_growth_after_a_shrink_waits_until_the_pod_has_read_it(world: World) -> None:
    world.publish("score", maxPoolSize=4)
    pod = await world.start_pod("score", name="score-a", maxPoolSize=4)
    await world.start()
    await world.until_open(*(f"score-a:{n}" for n in range(4)))
    world.edit_pool("score", maxPoolSize=1)
    await world.until_open("score-a:0")
    world.edit_pool("score", maxPoolSize=3)
    world.publish("later", maxPoolSize=2)
    await world.start_pod("later", name="later-a", maxPoolSize=2)
    await world.until(lambda: _opened(world, "later-a:1"), "a pod that was asked later has answered")
    assert await world.open_slots("score-a") == ["score-a:0"], "the pod says 4, and may read the 1 first"
    pod.change(maxPoolSize=3)
    await world.until_open(*(f"score-a:{n}" for n in range(3)), "later-a:0", "later-a:1")


async def _opened(world: World, slot: str) -> bool:
    return slot in await world.open_slots()


async def test_calls_of_a_pool_without_a_session_wait_for_its_first_slot(world: World) -> None:
    world.publish("score")
    await world.start()
    waiting = asyncio.create_task(world.call("score"))
    await world.until(lambda: world.held(1), "the call is held")
    await world.start_pod("score", name="score-a")
    assert await waiting == (200, "score-a")


# --- pools ------------------------------------------------------------------------------------------------------------


async def test_fifty_pools_come_and_go_and_no_call_of_another_fails(world: World) -> None:
    for pool in ("score", "other"):
        world.publish(pool)
        await world.start_pod(pool, name=f"{pool}-a")
    await world.start()
    await world.until_open("score-a:0", "other-a:0")
    assert world.agent is not None
    agent = world.agent
    async with world.load("score") as counts, world.load("other") as more:
        for number in range(50):
            world.publish(f"pool-{number}", maxPoolSize=1)
            world.add_pod(f"pool-{number}", f"pod-{number}", f"127.99.9.{number + 1}")
            await asyncio.sleep(0.01)
        await world.until(lambda: _has(world, 52), "all pools are served", 30)

        async def opened() -> bool:
            return len(await world.open_slots()) == 52

        await world.until(opened, "all slots are open")
        for number in range(50):
            world.delete_pool(f"pool-{number}")
        await world.until_open("score-a:0", "other-a:0")
        await world.until(lambda: len(_lent(world)) == 2, "their backends are spare again")
        reloads = agent.reloads
        for number in range(50, 100):
            world.publish(f"pool-{number}")
        await world.until(lambda: _has(world, 52), "as many again", 30)
        assert agent.reloads == reloads, "what was given back is lent again"
    assert list(counts) == ["200"], counts
    assert list(more) == ["200"], more
    assert reloads <= 4
    assert sum(counts.values()) > 50


def _lent(world: World) -> list[str]:
    assert world.agent is not None
    return [uid for uid in world.agent.allocation.backends.values() if uid]


async def _has(world: World, pools: int) -> bool:
    return sum(not value.startswith("-|") for value in (await world.map()).values()) == pools


async def test_a_deleted_pool_is_named_in_the_answer(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    world.delete_pool("score")
    await world.until_open()
    status, said = await world.call("score")
    assert (status, "no pool" in said) == (503, True), said


async def test_a_new_queue_timeout_moves_the_pool_and_loses_no_waiting_call(world: World) -> None:
    world.publish("score", maxPoolSize=1)
    await world.start_pod("score", name="score-a", maxPoolSize=1)
    await world.start()
    await world.until_open("score-a:0")
    (server,) = (await world.servers()).values()
    running = asyncio.create_task(world.call("score", 1.0))
    await world.until(world.busy, "one call runs")
    waiting = [asyncio.create_task(world.call("score")) for _ in range(3)]
    await world.until(lambda: world.queued(3), "three calls wait")
    world.edit_pool("score", queue={"timeoutSeconds": 30})

    async def moved() -> bool:
        return any(value.startswith("q30-") for value in (await world.map()).values())

    await world.until(moved, "new calls go to the new backend")
    assert await world.call("score") == (200, "score-a")
    assert await asyncio.gather(running, *waiting) == [(200, "score-a")] * 4

    async def left() -> bool:
        return {s.backend for s in (await world.servers()).values()} == {world.backend("score")}

    await world.until(left, "the old backend has no server")
    assert world.backend("score") != server.backend
    await world.until(lambda: len(_lent(world)) == 1, "the old backend is a spare again")


# --- without the API server -------------------------------------------------------------------------------------------


async def test_an_agent_that_has_not_synced_writes_nothing(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    written = {path: path.stat().st_mtime_ns for path in world.files()}
    await world.stop_agent()
    world.delete_pool("score")
    world.server.fail("list", PODS, 500, times=float("inf"))
    agent = await world.start_agent()
    await world.until(lambda: world.refused(PODS) > 2, "the list of pods fails")
    assert agent.not_ready_because() == "caches are filling"
    assert world.commands == []
    assert {path: path.stat().st_mtime_ns for path in world.files()} == written
    assert await world.call("score") == (200, "score-a")
    world.server.heal()
    await world.until_open()


async def test_while_the_api_server_is_away_nothing_changes(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    before = list(world.commands)
    async with world.load("score") as counts:
        await world.server.stop()
        await world.until(lambda: sum(counts.values()) > 200, "calls go on")
        assert world.commands == before
        await world.server.start()
        world.publish("later")
        await world.until(lambda: "later" in world.read(files.MAP), "what comes later is served", 30)
    assert list(counts) == ["200"], counts
    await world.server.stop()
    await world.stop_haproxy()
    await world.start_haproxy()
    await world.until_open("score-a:0")
    assert await world.call("score") == (200, "score-a"), "HAProxy may even start again meanwhile"


# --- the programs -----------------------------------------------------------------------------------------------------


def _start(command: str, env: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "sessionpools.gateway", command]
    return subprocess.Popen(program, env=env, stdout=log, stderr=log)


async def test_the_programs_of_a_gateway_pod_serve_what_the_cluster_says(world: World, tmp_path: Path) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    cluster = {"name": "c", "cluster": {"server": world.server.url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        str({"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
             "users": [{"name": "u", "user": {}}], "current-context": "c"})
    )  # fmt: skip
    http_port = free_ports()
    env = {
        **os.environ,
        "PYTHONPATH": str(OPERATOR),
        "KUBECONFIG": str(kubeconfig),
        "SESSIONPOOLS_GATEWAY_DIR": str(world.settings.directory),
        "SESSIONPOOLS_GATEWAY_PORT": str(world.settings.port),
        "SESSIONPOOLS_HTTP_PORT": str(http_port),
        "SESSIONPOOLS_API_NAMESPACE": NAMESPACE,
        "SESSIONPOOLS_MAX_CONNECTIONS": "500",
        "POD_NAME": "",
    }
    log = (tmp_path / "programs.log").open("wb")
    with log:
        haproxy = await asyncio.to_thread(_start, "haproxy", env, log)
        agent = await asyncio.to_thread(_start, "agent", env, log)
        try:
            async with aiohttp.ClientSession() as http:

                async def get(path: str) -> tuple[int, str]:
                    try:
                        async with http.get(f"http://127.0.0.1:{http_port}{path}") as response:
                            return response.status, await response.text()
                    except aiohttp.ClientError:
                        return 0, ""

                async def ready() -> bool:
                    return await get("/readyz") == (200, "ok")

                await world.until(ready, "/readyz", 30)
                assert await world.call("score") == (200, "score-a")
                assert (await get("/livez"))[0] == 200

                async def counted() -> bool:
                    return 'outcome="ok"} 1' in (await get("/metrics"))[1]

                await world.until(counted, "the call is counted")

                async def demand() -> bool:
                    return world.uid("score") in (await get("/demand"))[1]

                await world.until(demand, "the demand is offered")
            agent.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(agent.wait, 10) == 0, (tmp_path / "programs.log").read_text()
            assert await world.call("score") == (200, "score-a"), "HAProxy serves on"
        finally:
            for process in (agent, haproxy):
                process.terminate()
                await asyncio.to_thread(process.wait, 20)
