"""What survives the restart of an agent, of HAProxy, of the API server, and the loss of the Lease: with a real HAProxy
and real session supervisors.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from sessionpools.gateway import files
from sessionpools.kube.protocol import PODS
from support.gateway_world import World

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
    await world.until(lambda: world.answered_by("later", "later-a"), "what the files lacked is served")
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


async def test_a_call_that_is_held_while_haproxy_reloads_is_answered_and_logged_once(world: World) -> None:
    world.publish("score")
    await world.start()
    assert world.agent is not None
    agent = world.agent
    waiting = asyncio.create_task(world.call("score"))
    await world.until(lambda: world.held(1), "the call is held")
    reloads = agent.reloads
    for number in range(200):
        world.publish(f"pool-{number}")
    await world.until(lambda: agent.reloads > reloads and not agent.not_ready_because(), "HAProxy has reloaded")
    assert not waiting.done()
    await world.start_pod("score", name="score-a")
    assert await waiting == (200, "score-a")
    await world.until(lambda: world.log_lines('"service":"score"'), "it is logged")
    assert world.log_lines('"service":"score"') == 1


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


# --- another gateway is active ----------------------------------------------------------------------------------------


async def test_a_gateway_that_lost_its_part_closes_its_callers_connections_after_their_answers(world: World) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    await world.start()
    await world.until_open("score-a:0")
    assert world.agent is not None
    holder = "this"
    world.agent.elsewhere = lambda: holder == "another"
    async with aiohttp.ClientSession() as http:

        async def closes() -> bool:
            async with http.post(world.url("score"), json={"seconds": 0}) as response:
                assert response.status == 200, await response.text()
                return response.headers.get("Connection") == "close"

        assert not await closes()
        holder = "another"
        await world.until(closes, "answers close the connection")
        await world.stop_haproxy()
        await world.start_haproxy()
        await world.until_open("score-a:0")
        assert await closes(), "a HAProxy that starts again knows it, too"
        holder = "this"
        await world.until(lambda: _keeps(closes), "connections are kept again")


async def _keeps(closes: Callable[[], Awaitable[bool]]) -> bool:
    return not await closes()
