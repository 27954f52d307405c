"""The keys that verify tokens, from their ConfigMap to HAProxy; and the web API's address, from its name."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from sessionpools.gateway.config import Tokens, WebApi
from sessionpools.kube.protocol import CONFIG_MAPS
from support.apiserver_objects import Refused
from support.gateway_world import KEYS, NAMESPACE, World
from support.tokens import Key, key
from support.web_api import web_api

FIRST, SECOND, THIRD = key("first"), key("second"), key("third")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A web service with one session; calls need a token."""
    async with World(tmp_path, tokens=Tokens()) as world:
        world.publish("score")
        await world.start_pod("score", name="score-a")
        world.token = FIRST.token()
        yield world


def publish(world: World, *keys: Key, **others: str) -> None:
    """These public keys and no other; `others`: further entries, by name without ".pem"."""
    data: dict[str, str | None] = {f"{key.kid}.pem": key.pem for key in keys}
    data |= {f"{name}.pem": text for name, text in others.items()}
    try:
        held = world.server.store.get(CONFIG_MAPS, KEYS, NAMESPACE)
    except Refused:
        world.server.store.create(CONFIG_MAPS, {"metadata": {"name": KEYS}, "data": data}, NAMESPACE)
    else:
        gone = dict.fromkeys(held["data"].keys() - data.keys())
        world.server.store.edit(CONFIG_MAPS, KEYS, {"data": data | gone}, NAMESPACE)


async def reloaded(world: World, times: int) -> None:
    """So often since the agent began, and it has nothing more to do."""
    agent = world.agent
    assert agent is not None
    await world.until(lambda: agent.reloads == times and not agent.not_ready_because(), f"{times} reloads")


def known_to(world: World) -> list[str]:
    """The kids that the agent sees published."""
    assert world.agent is not None
    return sorted(world.agent.cluster.keys)


def key_files(world: World) -> list[str]:
    return sorted(file.name for file in (world.settings.directory / "keys").glob("*"))


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_first_start_has_the_published_keys(world: World) -> None:
    publish(world, FIRST)
    await world.start()
    await world.until_open("score-a:0")
    assert await world.call("score") == (200, "score-a")
    world.token = SECOND.token()
    assert (await world.call("score"))[0] == 401
    assert world.agent is not None
    assert world.agent.reloads == 0


async def test_before_there_is_a_key_calls_are_told_so_and_its_coming_is_noticed(world: World) -> None:
    await world.start()
    await world.until_open("score-a:0")
    status, said = await world.call("score")
    assert (status, "no key" in said) == (503, True)
    publish(world, FIRST)
    await world.until(lambda: world.answered_by("score", "score-a"), "calls are answered")


async def test_no_call_is_lost_while_keys_are_replaced(world: World) -> None:
    """Two rotations, as the web API makes them: the next key is published, signs, and the last one goes."""
    publish(world, FIRST)
    await world.start()
    await world.until_open("score-a:0")
    agent = world.agent
    assert agent is not None
    async with world.load("score", callers=4) as counts:

        async def further_calls() -> None:
            before = sum(counts.values())
            await world.until(lambda: sum(counts.values()) > before + 50, "calls go on")

        for number, (old, new) in enumerate(((FIRST, SECOND), (SECOND, THIRD))):
            publish(world, old, new)
            await reloaded(world, 2 * number + 1)
            await further_calls()
            world.token = new.token()
            await further_calls()
            publish(world, new)
            await reloaded(world, 2 * number + 2)
            await further_calls()
    assert list(counts) == ["200"], counts
    assert sum(counts.values()) > 300
    assert key_files(world) == ["third.pem"]
    for gone in (FIRST, SECOND):
        world.token = gone.token()
        assert (await world.call("score"))[0] == 401


async def test_a_call_that_is_held_while_keys_are_replaced_is_answered_and_logged_once(world: World) -> None:
    """The process that held it hands it on, token and all."""
    publish(world, FIRST)
    world.publish("empty")
    await world.start()
    waiting = asyncio.create_task(world.call("empty"))
    await world.until(lambda: world.held(1), "the call is held")
    publish(world, FIRST, SECOND)
    await reloaded(world, 1)
    assert not waiting.done()
    await world.start_pod("empty", name="empty-a")
    assert await waiting == (200, "empty-a")
    await world.until(lambda: world.log_lines('"service":"empty"'), "it is logged")
    assert world.log_lines('"service":"empty"') == world.log_lines('"principal":"ada"') == 1


async def test_keys_stay_when_their_config_map_goes(world: World) -> None:
    publish(world, FIRST)
    await world.start()
    await world.until_open("score-a:0")
    world.server.store.delete(CONFIG_MAPS, KEYS, NAMESPACE)
    await world.until(lambda: not known_to(world), "the agent knows it")
    assert await world.call("score") == (200, "score-a")
    await world.stop_haproxy()
    await world.start_haproxy()
    await world.until(lambda: world.answered_by("score", "score-a"), "from the files alone")
    await world.stop_agent()
    await world.start_agent()
    await world.until(lambda: world.agent and not world.agent.not_ready_because(), "another agent")
    assert await world.call("score") == (200, "score-a")
    await world.stop_agent()
    await world.stop_haproxy()
    await world.start_haproxy()
    await world.until(lambda: world.answered_by("score", "score-a"), "without an agent")


async def test_an_empty_config_map_locks_nobody_out(world: World) -> None:
    publish(world, FIRST)
    await world.start()
    await world.until_open("score-a:0")
    publish(world, broken="no key")
    await world.until(lambda: not known_to(world), "the agent knows it")
    publish(world)
    assert await world.call("score") == (200, "score-a")
    assert key_files(world) == ["first.pem"]


async def test_entries_that_are_no_keys_are_left_out(world: World) -> None:
    weak = key("weak", 1024)
    publish(world, FIRST, weak, broken="no key", **{"../evil": FIRST.pem.replace("A", "B")})
    await world.start()
    await world.until_open("score-a:0")
    assert key_files(world) == ["first.pem"]
    assert await world.call("score") == (200, "score-a")
    world.token = weak.token()
    assert (await world.call("score"))[0] == 401


async def test_an_agent_that_starts_again_with_the_same_keys_reloads_nothing(world: World) -> None:
    publish(world, FIRST, SECOND)
    await world.start()
    await world.until_open("score-a:0")
    await world.stop_agent()
    agent = await world.start_agent()
    await world.until(lambda: not agent.not_ready_because(), "another agent")
    assert (agent.reloads, world.commands) == (0, [])


async def test_keys_that_came_while_no_agent_ran_are_loaded_by_the_next(world: World) -> None:
    publish(world, FIRST)
    await world.start()
    await world.until_open("score-a:0")
    await world.stop_agent()
    publish(world, SECOND)
    await world.start_agent()
    await reloaded(world, 1)
    world.token = SECOND.token()
    await world.until(lambda: world.answered_by("score", "score-a"), "the new key counts")


async def test_a_gateway_that_may_not_read_the_keys_is_not_ready(world: World) -> None:
    world.server.fail("list", CONFIG_MAPS, 403, times=float("inf"))
    agent = await world.start_agent()
    await world.until(lambda: world.refused(CONFIG_MAPS) > 1, "the list fails")
    assert agent.not_ready_because() == "caches are filling"
    world.server.heal()
    publish(world, FIRST)
    await world.start_haproxy()
    await world.until(world.haproxy_answers, "HAProxy has a configuration", 30)
    await world.until(lambda: world.answered_by("score", "score-a"), "calls are answered")


async def test_another_config_map_is_nothing_to_do_with_keys(world: World) -> None:
    for name in ("a", "z"):
        body = {"metadata": {"name": name}, "data": {"second.pem": SECOND.pem}}
        world.server.store.create(CONFIG_MAPS, body, NAMESPACE)
    publish(world, FIRST)
    await world.start()
    assert (key_files(world), known_to(world)) == (["first.pem"], ["first"])


# --- the web API's address --------------------------------------------------------------------------------------------


class Names:
    """What a name means, which a test changes."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def resolve(self, _: WebApi) -> list[str]:
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.addresses


async def test_a_web_api_is_found_when_its_name_is_and_calls_need_none(tmp_path: Path) -> None:
    names = Names()
    with web_api() as server:
        async with World(tmp_path, web=WebApi("session-pools-web.release", server.port)) as world:
            world.resolve = names.resolve
            world.publish("score")
            await world.start_pod("score", name="score-a")
            await world.start()
            await world.until_open("score-a:0")

            async def status() -> int:
                async with (
                    aiohttp.ClientSession() as http,
                    http.get(f"http://127.0.0.1:{world.settings.port}/status") as response,
                ):
                    return response.status

            async def found() -> bool:
                return await status() == 200

            async def lost() -> bool:
                return await status() == 503

            assert await world.call("score") == (200, "score-a")
            assert await lost()
            names.addresses = ["127.0.0.1", "127.0.0.2"]
            await world.until(found, "the web API is found")
            await world.stop_haproxy()
            await world.start_haproxy()
            names.addresses = []
            await world.until(found, "it is in the files")
            await world.stop_agent()
            await world.start_agent()
            await world.until(lambda: world.agent and not world.agent.not_ready_because(), "another agent")
            assert await found(), "an agent that can not look the name up keeps what was found"
            names.addresses = ["127.0.0.9"]  # nobody is there
            await world.until(lost, "its new address counts", 30)
            names.addresses = ["127.0.0.1"]
            await world.until(found, "and the next", 30)
            assert world.agent is not None
            assert world.agent.reloads == 0
            assert await world.call("score") == (200, "score-a")
