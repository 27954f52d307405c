"""A session pod without a container: the real supervisor on free ports of this machine. Used by test_runtime_*.py."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, create_connection, socket
from typing import Any, TypeVar

from support.tools import ROOT

OPERATOR = ROOT / "operator"
POOL_UID = "pool-uid"
REVISION = "revision-1"
_SLOTS = 16  # ports kept free for one pod

T = TypeVar("T")


def eventually(what: Callable[[], T], seconds: float = 15.0, message: str = "") -> T:
    """The first true answer of `what`, or a failure when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {message or what}")
        time.sleep(0.01)


def free_ports() -> int:
    """The first of _SLOTS consecutive free ports, below those that the kernel gives to outgoing connections."""
    while True:
        base = random.randrange(10000, 32000 - _SLOTS)
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + _SLOTS):
                    sock = stack.enter_context(socket())
                    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def answer(self) -> Any:
        """The one output of a service, or the failure that came instead."""
        content = self.json
        assert content["success"], content["errorMessage"]
        values = list(content["outputParameters"].values())
        return values[0] if len(values) == 1 else content["outputParameters"]


def post(connection: http.client.HTTPConnection, inputs: Any, headers: Mapping[str, str] | None = None) -> Reply:
    body = inputs if isinstance(inputs, bytes) else json.dumps(inputs).encode()
    connection.request("POST", "/api/S/v1", body, {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


class Pod:
    """One supervisor and what it started. `code` is service.py; other session.json fields by keyword."""

    def __init__(
        self,
        directory: Path,
        code: str,
        *,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        base_port: int = 0,
        pool_uid: str = POOL_UID,
        cwd: str = "/",
        code_dir: str = "",
        **revision: Any,
    ) -> None:
        self.directory = directory
        self.work = directory / "work"
        self.termination_log = directory / "termination-log"
        self.host = host
        self.pool_uid = pool_uid
        self.base_port = base_port or free_ports() + 1
        self.control_port = self.base_port - 1
        self._env = dict(env or {})
        self._cwd = cwd
        self._settings = {"initialPoolSize": 1, "maxPoolSize": 1, **(settings or {})}
        for name in ("revision", "live", "code", "work"):
            (directory / name).mkdir(parents=True)
        (directory / "code" / "service.py").write_text(textwrap.dedent(code))
        content = {
            "format": 1,
            "service": {"name": "S", "version": "v1"},
            "code": code_dir or str(directory / "code"),
            "entrypoint": "service:predict",
            "script": "",
            "init": "",
            "modules": [],
            "warmup": None,
            "inputs": None,
            "outputs": None,
            "outputFiles": [],
            "forkSafe": True,
            **revision,
        }
        (directory / "revision" / "session.json").write_text(json.dumps(content))
        self.change()
        self._out = (directory / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Pod:
        flags = {
            "--config-dir": str(self.directory),
            "--work-dir": str(self.work),
            "--termination-log": str(self.termination_log),
            "--host": self.host,
            "--base-port": str(self.base_port),
            "--control-port": str(self.control_port),
            "--pool": f"{self.pool_uid}/{REVISION}",
        }
        path = os.pathsep.join([str(OPERATOR), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sessionpools.session", *(text for pair in flags.items() for text in pair)],
            env={**os.environ, "PYTHONPATH": path, **self._env},
            stdout=self._out,
            stderr=subprocess.STDOUT,
            cwd=self._cwd,
        )
        return self

    def wait_ready(self, seconds: float = 30.0) -> Pod:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"ended: {self.log_text}{self.termination}"
            return self.control("/readyz").status == 200

        eventually(ready, seconds, "ready")
        return self

    def change(self, **settings: Any) -> None:
        """Replace the live settings as the kubelet does it."""
        self._settings.update(settings)
        new = self.directory / "live" / "settings.new"
        new.write_text(json.dumps(self._settings))
        new.rename(self.directory / "live" / "settings")

    def wait_end(self, seconds: float = 20.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGINT)
                self.process.wait(10)
        self._out.close()

    # --- looking ----------------------------------------------------------------------------------------------------

    def control(self, path: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.control_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        except (ConnectionError, http.client.HTTPException):
            return Reply(0, {}, b"{}")
        finally:
            connection.close()

    def view(self) -> Any:
        return self.control("/sessions").json

    def slot(self, number: int = 0) -> Any:
        """The row of a slot; an empty one while the control port is not open yet."""
        return self.view()["sessions"][number]

    def wait_slot(self, number: int, seconds: float = 15.0, **fields: Any) -> Any:
        def matches() -> Any:
            row = self.slot(number)
            return row if all(row[key] == value for key, value in fields.items()) else None

        return eventually(matches, seconds, f"slot {number} {fields}")

    def wait_new_session(self, number: int, old_pid: int, seconds: float = 15.0) -> Any:
        def replaced() -> Any:
            row = self.slot(number)
            return row if row["pid"] not in (0, old_pid) and row["state"] == "idle" else None

        return eventually(replaced, seconds, f"a new session in slot {number}")

    @property
    def log_text(self) -> str:
        return (self.directory / "log").read_text()

    def events(self, name: str) -> list[Any]:
        lines = [json.loads(line) for line in self.log_text.splitlines() if line.startswith('{"time"')]
        return [line for line in lines if line["event"] == name]

    @property
    def termination(self) -> str:
        return self.termination_log.read_text() if self.termination_log.exists() else ""

    @property
    def template_pid(self) -> int:
        return int(self.events("template-loaded")[-1]["pid"])

    @property
    def spare_pids(self) -> set[int]:
        """The processes that wait for a slot."""
        return {pid for pid, name in children(self.template_pid).items() if name == "spare"}

    @property
    def spare_pid(self) -> int:
        """Of a pod that has one spare at most; 0 when there is none."""
        return next(iter(self.spare_pids), 0)

    def wait_spare(self, but: int = 0) -> int:
        return eventually(lambda: pid if (pid := self.spare_pid) != but else 0, message="a spare")

    def wait_spares(self, count: int) -> set[int]:
        return eventually(lambda: pids if len(pids := self.spare_pids) == count else set(), message=f"{count} spares")

    # --- calling ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def connection(self, slot: int = 0, timeout: float = 30.0) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.base_port + slot, timeout=timeout)
        try:
            yield connection
        finally:
            connection.close()

    def call(
        self, inputs: Any, slot: int = 0, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> Reply:
        with self.connection(slot, timeout) as connection:
            return post(connection, inputs, headers)

    @contextlib.contextmanager
    def dial(self, slot: int = 0) -> Iterator[socket]:
        with create_connection(("127.0.0.1", self.base_port + slot), timeout=30) as sock:
            yield sock

    def begin(self, sock: socket, inputs: Any) -> None:
        """Send a request and do not wait for its answer."""
        body = json.dumps(inputs).encode()
        sock.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def failed(pod: Pod, seconds: float = 20.0) -> str:
    """The first line of the termination log of a pod that must fail."""
    assert pod.wait_end(seconds) == 1
    return pod.termination.splitlines()[0]


def children(of: int) -> dict[int, str]:
    """The names of a process's children, by pid."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            name, fields = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            if int(fields.split()[1]) == of:
                found[int(stat.parent.name)] = name
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def read_answer(sock: socket) -> Reply:
    response = http.client.HTTPResponse(sock)
    response.begin()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def read_until_closed(sock: socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def ends_unanswered(sock: socket) -> bool:
    """Whether the session closes the connection with a call begun and no answer to it, when it does."""
    return read_until_closed(sock) == b"HTTP/1.1 "
