"""The web API in the test's own process: the real application over a real (in-process) API server and a real directory.

    async with WebWorld(tmp_path) as world:
        ada = world.client("ada", Role.CONTRIBUTOR)
        answer = await ada.post("/services/Score/v1", json={"code": "answer = x"})

Requests go through ASGI, all else over HTTP: the API server, batches' gateway. `replica()` is a further process's worth
of the same, on the same API server and store.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import httpx
from fastapi import FastAPI

from sessionpools.api import names
from sessionpools.kube.protocol import NODES, SECRETS, SESSION_POOLS, WEB_SERVICES, Json
from sessionpools.web.app import create_app
from sessionpools.web.auth import keys as deciding
from sessionpools.web.auth import tokens
from sessionpools.web.auth.identity import ADMIN, Principal, Role
from sessionpools.web.auth.keys import Key, KeySet, make_key
from sessionpools.web.auth.keystore import SECRET_KEYS
from sessionpools.web.parts import Parts, assemble
from sessionpools.web.settings import Settings
from sessionpools.web.store.objects import ObjectStore
from support.apiserver import ApiServer
from support.auth import hashed
from support.kubelet import make_node
from support.waiting import until

NAMESPACE: Final = "demo"  # of web services and pools
RELEASE: Final = "session-pools"
ADMIN_PASSWORD: Final = "correct horse"
SCRIPT: Final[Json] = {
    "code": "answer = x + offset",
    "initCode": "offset = 1",
    "description": "adds",
    "operationId": "add",
    "inputParameterDefinitions": [{"name": "x", "type": "numeric"}],
    "outputParameterDefinitions": [{"name": "answer", "type": "numeric"}],
    "outputFileNames": [],
    "runtimeType": "Python",
}


@cache
def signing_keys() -> tuple[Key, Key]:
    """The key that signs now, and the next one: the same in a whole run, as they are slow to make."""
    now = int(time.time())
    return make_key(now - 7200, now - 3600), make_key(now - 3600, now + 20 * 24 * 3600)


@dataclass
class Replica:
    """One process of the web API."""

    parts: Parts
    app: FastAPI
    _running: asyncio.Task[None]

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def client(self, name: str = "admin", role: Role | None = Role.OWNER, *, token: str = "") -> httpx.AsyncClient:
        """A caller; with `role` None one that has no token."""
        headers = {}
        if role is not None and not token:
            token = tokens.issue(signing_keys()[0], Principal(name, role), time.time()).token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, client=("10.0.0.7", 4711))
        return httpx.AsyncClient(transport=transport, base_url="http://web", headers=headers, timeout=30)


class WebWorld:
    """`server`: one that runs already, with nodes of its own; without it there is a new one with these `nodes`."""

    def __init__(
        self,
        folder: Path,
        *,
        server: ApiServer | None = None,
        nodes: tuple[str, ...] = ("worker-1", "worker-2"),
        **settings: Any,
    ) -> None:
        self._own_server = server is None
        self.server = server or ApiServer(bookmark_seconds=0.05)
        self.folder = folder
        self.store_url = str(folder / "store")
        self._nodes = nodes
        self._settings = settings
        self._stack = AsyncExitStack()
        self.replicas: list[Replica] = []
        self._clients: list[httpx.AsyncClient] = []
        self._users = ""

    async def __aenter__(self) -> Self:
        if self._own_server:
            await self._stack.enter_async_context(self.server)
            for name in self._nodes:
                self.server.store.create(NODES, make_node(name))
        content = base64.b64encode(deciding.dump(KeySet.of(signing_keys())).encode()).decode()
        secret = {"metadata": {"name": SECRET_KEYS}, "type": "Opaque", "data": {"keys.json": content}}
        self.server.store.create(SECRETS, secret, RELEASE)
        (self.folder / "password").write_text(ADMIN_PASSWORD)
        await self.replica()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()
        for replica in self.replicas:
            await replica.stop()
        await self._stack.aclose()

    async def replica(self, **settings: Any) -> Replica:
        """A further one; the first is made by itself."""
        api = await self.server.connect(component="session-pools-web")
        fields: dict[str, Any] = {
            "namespace": RELEASE,
            "api_namespace": NAMESPACE,
            "store_url": self.store_url,
            "bundles_url": "http://session-pools-web.session-pools:12803",
            "gateway_url": "http://127.0.0.1:9",  # nobody
            "admin_password": self.folder / "password",
            "users": self.folder / "users.yaml",
            "pod": f"web-{len(self.replicas)}",
        }
        parts = assemble(api, Settings(**(fields | self._settings | settings)), ObjectStore.open(self.store_url))
        replica = Replica(parts, create_app(parts), asyncio.create_task(parts.run()))
        self.replicas.append(replica)
        await until(lambda: not parts.not_ready_because() or replica._running.done(), "the replica is ready")
        if replica._running.done():
            replica._running.result()
        return replica

    @property
    def parts(self) -> Parts:
        return self.replicas[0].parts

    @property
    def app(self) -> FastAPI:
        return self.replicas[0].app

    def client(self, name: str = "admin", role: Role | None = Role.OWNER, *, token: str = "") -> httpx.AsyncClient:
        """A caller of the first replica, closed with the world."""
        return self.of(self.replicas[0], name, role, token=token)

    def of(
        self, replica: Replica, name: str = "admin", role: Role | None = Role.OWNER, *, token: str = ""
    ) -> httpx.AsyncClient:
        if role is not None and name != ADMIN:
            self._know(name, role)
        client = replica.client(name, role, token=token)
        self._clients.append(client)
        return client

    def _know(self, name: str, role: Role) -> None:
        """In the users file, unless the test has written one itself."""
        file = self.folder / "users.yaml"
        if file.exists() and file.read_text() != self._users:
            return
        if f"name: {name}\n" not in self._users:
            self._users += f"- name: {name}\n  passwordHash: {hashed('correct horse')}\n  role: {role.value}\n"
            file.write_text(self._users)

    # --- what the cluster has, and what others do in it -----------------------------------------------------------

    def services(self) -> list[Json]:
        return self.server.store.all(WEB_SERVICES, NAMESPACE)

    def service(self, name: str = "Score", version: str = "v1") -> Json:
        (found,) = [s for s in self.services() if (s["spec"]["name"], s["spec"]["version"]) == (name, version)]
        return found

    def pools(self) -> list[Json]:
        return self.server.store.all(SESSION_POOLS, NAMESPACE)

    def pool(self) -> Json:
        (found,) = self.pools()
        return found

    async def kubectl_service(
        self, name: str = "Score", version: str = "v1", *, object_name: str = "made-by-hand", **metadata: Any
    ) -> Json:
        """A WebService that was not published through the API, once the API knows of it."""
        spec = {
            "name": name,
            "version": version,
            "code": {"inline": {"service.py": "def predict(x: float) -> float:\n    return x\n"}},
            "entrypoint": "service:predict",
        }
        created = self._make(WEB_SERVICES, "WebService", object_name, spec, metadata)
        await until(lambda: self.parts.cluster.service(name, version), "the API knows the service")
        return created

    async def kubectl_pool(
        self,
        name: str = "Score",
        version: str = "v1",
        *,
        object_name: str = "made-by-hand",
        initial: int = 1,
        maximum: int = 2,
        **metadata: Any,
    ) -> Json:
        spec = {"serviceName": name, "serviceVersion": version, "initialPoolSize": initial, "maxPoolSize": maximum}
        created = self._make(SESSION_POOLS, "SessionPool", object_name, spec, metadata)
        await until(lambda: self.parts.cluster.pool(name, version), "the API knows the pool")
        return created

    def _make(self, resource: Any, kind: str, name: str, spec: Json, metadata: Mapping[str, Any]) -> Json:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
            "spec": spec,
        }
        return self.server.store.create(resource, body, NAMESPACE)


def error_of(response: httpx.Response) -> str:
    """The message of an answer that has the error body, and nothing else."""
    body = response.json()
    assert body.keys() == {"message", "link", "exceptionType"}, body
    assert body["exceptionType"], body
    return str(body["message"])
