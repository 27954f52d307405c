"""HAProxy's runtime sockets: what the worker holds, changes to it, and reloads. Called by agent.py and demand.py.

Commands go over one connection a batch, as many at once as the batch has; HAProxy answers them in order. What it says
is parsed strictly: an answer of another shape is an error, never a guess.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "BackendStats",
    "HaproxyError",
    "Refused",
    "Runtime",
    "Server",
    "ServerStats",
    "Unreachable",
    "parse_backends",
    "parse_held",
    "parse_map",
    "parse_server_stats",
    "parse_servers",
    "parse_variable",
]

TIMEOUT_SECONDS: Final = 5.0
RELOAD_TIMEOUT_SECONDS: Final = 30.0
_PROMPT: Final = b"\n> "
# A command line of HAProxy's is at most a buffer (tune.bufsize) long; no command here comes near it.
_LINE_AT_MOST: Final = 4096
_UNSAFE: Final = re.compile(r"[\r\n;\\]")  # what ends a command, and what escapes


class HaproxyError(Exception):
    """HAProxy did not do what it was asked."""


class Unreachable(HaproxyError):  # noqa: N818  named after what was found
    """It does not answer: it is not running, or is about to end."""


class Refused(HaproxyError):  # noqa: N818
    """It answered something else than was expected; the message has its words."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as HAProxy has it."""

    backend: str
    name: str
    id: int
    address: str
    port: int
    # Calls are sent there, unless HAProxy finds that it cannot be reached; otherwise it is in maintenance: what runs
    # there goes on.
    open: bool


@dataclass(frozen=True, slots=True)
class BackendStats:
    """What a backend holds now, and how often connections from it have failed since HAProxy started."""

    name: str
    busy: int  # calls that a session has
    queued: int
    open: int  # servers that calls are sent to, those left out that cannot be reached
    errors: int  # connection errors, retries and redispatches


@dataclass(frozen=True, slots=True)
class ServerStats:
    backend: str
    name: str
    errors: int  # as of a backend, and answers that broke off


class Runtime:
    """The sockets of one HAProxy."""

    def __init__(self, admin: Path, master: Path) -> None:
        self._admin = admin
        self._master = master

    async def ask(self, commands: Iterable[str]) -> list[str]:
        """The answer of the worker to each command, without the line ends around it. Raises Unreachable."""
        commands = list(commands)
        for command in commands:
            if not command or _UNSAFE.search(command) or len(command.encode()) > _LINE_AT_MOST:
                raise ValueError(f"not one command: {command!r}")
        lines = ["prompt", *commands, "quit"]
        said = await _converse(self._admin, "\n".join(lines) + "\n", TIMEOUT_SECONDS)
        # the prompt before the first answer, then each answer with the prompt after it
        parts = (b"\n" + said).split(_PROMPT)
        if len(parts) != len(commands) + 2 or parts[0].strip() or parts[-1].strip():
            raise Unreachable(f"HAProxy gave {max(len(parts) - 2, 0)} of {len(commands)} answers")
        return [part.decode("utf-8", "replace").strip("\n") for part in parts[1:-1]]

    async def ask_one(self, command: str) -> str:
        return (await self.ask([command]))[0]

    async def process(self) -> str:
        """What tells one HAProxy worker from the next: its pid and when it started."""
        return parse_process(await self.ask_one("show info"))

    async def reload(self) -> None:
        """Replace the worker by one with the configuration file as it is now; the old one ends when its calls have.
        Raises Refused, with HAProxy's words, when it does not like the file: the old worker then stays."""
        said = (await _converse(self._master, "reload\n", RELOAD_TIMEOUT_SECONDS)).decode("utf-8", "replace").strip()
        first, _, rest = said.partition("\n")
        if first.strip() != "Success=1":
            words = " ".join(line.strip() for line in rest.splitlines() if line.strip(" -\n"))
            raise Refused(f"HAProxy did not reload: {words or first or 'no answer'}")


async def _converse(path: Path, text: str, seconds: float) -> bytes:
    """Say all of it and hear all that is answered."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(text.encode())  # all of it is buffered: to wait here could wait for ever, as nobody reads
            return await reader.read()
    except TimeoutError:
        raise Unreachable(f"HAProxy did not answer on {path.name} within {seconds:g} s") from None
    except OSError as error:
        raise Unreachable(f"HAProxy cannot be reached on {path.name}: {error.strerror or error}") from None
    finally:
        if writer is not None:
            writer.close()


# --- what HAProxy says ------------------------------------------------------------------------------------------------


def parse_process(answer: str) -> str:
    fields = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
    try:
        return f"{int(fields['Pid'])}@{int(fields['Start_time_sec'])}"
    except (KeyError, ValueError):
        raise Refused(f"`show info` gave {answer[:200]!r}") from None


def parse_servers(answer: str) -> list[Server]:
    """`show servers state`, version 1."""
    lines = answer.splitlines()
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise Refused(f"`show servers state` gave {answer[:200]!r}")
    columns = lines[1][2:].split(" ")
    servers = []
    for line in lines[2:]:
        if not line:
            continue
        values = line.split(" ")
        if len(values) != len(columns):
            raise Refused(f"`show servers state` gave the line {line[:200]!r}")
        row = dict(zip(columns, values, strict=True))
        try:
            servers.append(
                Server(
                    backend=row["be_name"],
                    name=row["srv_name"],
                    id=int(row["srv_id"]),
                    address=row["srv_addr"],
                    port=int(row["srv_port"]),
                    # any other administrative state is maintenance or drain
                    open=int(row["srv_admin_state"]) == 0,
                )
            )
        except (KeyError, ValueError):
            raise Refused(f"`show servers state` gave the line {line[:200]!r}") from None
    return servers


def parse_backends(answer: str) -> dict[str, BackendStats]:
    """`show stat -1 2 -1`."""
    return {
        row["pxname"]: BackendStats(
            name=row["pxname"],
            busy=max(_number(row, "scur") - _number(row, "qcur"), 0),
            queued=_number(row, "qcur"),
            open=_number(row, "act"),
            errors=_number(row, "econ") + _number(row, "wretr") + _number(row, "wredis"),
        )
        for row in _rows(answer)
        if row["svname"] == "BACKEND"
    }


def parse_server_stats(answer: str) -> list[ServerStats]:
    """`show stat <backend> 4 -1`."""
    columns = ("econ", "eresp", "wretr", "wredis")
    return [
        ServerStats(row["pxname"], row["svname"], sum(_number(row, column) for column in columns))
        for row in _rows(answer)
    ]


def parse_held(answer: str) -> dict[str, int]:
    """`show held` of hold.lua: calls that wait for a slot to open, by backend."""
    held = {}
    for line in filter(None, answer.splitlines()):
        name, _, count = line.partition(" ")
        if not count.isdecimal():
            raise Refused(f"`show held` gave {answer[:200]!r}")
        held[name] = int(count)
    return held


def parse_map(answer: str) -> dict[str, str]:
    """`show map`: lines of "<reference> <key> <value>". A key that is there twice counts as it does for HAProxy: the
    first is found."""
    entries: dict[str, str] = {}
    for line in filter(None, answer.splitlines()):
        words = line.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("0x"):
            raise Refused(f"`show map` gave {answer[:200]!r}")
        entries.setdefault(words[1], words[2] if len(words) == 3 else "")
    return entries


def parse_variable(answer: str) -> str:
    """`get var`: "<name>: type=<type> value=<<value>>"; "" for one that is not there."""
    found = re.fullmatch(r"\S+: type=\w+ value=<(.*)>", answer.strip())
    if found is None and "not found" not in answer:
        raise Refused(f"`get var` gave {answer[:200]!r}")
    return found[1] if found else ""


def _rows(answer: str) -> Iterable[Mapping[str, str]]:
    if not answer.startswith("# pxname,svname,"):
        raise Refused(f"`show stat` gave {answer[:200]!r}")
    return csv.DictReader(io.StringIO(answer[2:]))


def _number(row: Mapping[str, str], column: str) -> int:
    value = row.get(column)
    if value is None or not (value.isdecimal() or not value):
        raise Refused(f"`show stat` has {value!r} as {column}")
    return int(value or 0)
