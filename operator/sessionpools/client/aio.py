"""The client for asyncio: client.py with `await`, and nothing else."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Self

from sessionpools.client.client import link_of
from sessionpools.client.drive import AsyncDriver, awaiting
from sessionpools.client.flows.batches import Batches as BatchFlows
from sessionpools.client.flows.calls import Calls as CallFlows
from sessionpools.client.flows.pools import Pools as PoolFlows
from sessionpools.client.flows.server import Server as ServerFlows
from sessionpools.client.flows.services import Services as ServiceFlows
from sessionpools.client.tokens import Store
from sessionpools.client.wire import base_url

__all__ = ["AsyncBatches", "AsyncClient", "AsyncPools", "AsyncServices"]


class _Part:
    def __init__(self, driver: AsyncDriver, flows: object) -> None:
        self._driver = driver
        self._flows = flows


class AsyncServices(_Part):
    """Web services."""

    list = awaiting(ServiceFlows.list)
    get = awaiting(ServiceFlows.get)
    publish = awaiting(ServiceFlows.publish)
    update = awaiting(ServiceFlows.update)
    delete = awaiting(ServiceFlows.delete)
    logs = awaiting(ServiceFlows.logs)


class AsyncPools(_Part):
    """Dedicated pools."""

    create_or_update = awaiting(PoolFlows.create_or_update)
    status = awaiting(PoolFlows.status)
    usage = awaiting(PoolFlows.usage)
    list = awaiting(PoolFlows.list)
    delete = awaiting(PoolFlows.delete)
    wait_until_ready = awaiting(PoolFlows.wait_until_ready)
    wait_until_gone = awaiting(PoolFlows.wait_until_gone)


class AsyncBatches(_Part):
    """Calls in the background."""

    start = awaiting(BatchFlows.start)
    list = awaiting(BatchFlows.list)
    poll = awaiting(BatchFlows.poll)
    wait = awaiting(BatchFlows.wait)
    cancel = awaiting(BatchFlows.cancel)
    files = awaiting(BatchFlows.files)
    file = awaiting(BatchFlows.file)


class _Calls(_Part):
    call = awaiting(CallFlows.call)
    swagger = awaiting(CallFlows.swagger)


class _Server(_Part):
    status = awaiting(ServerFlows.status)
    nodes = awaiting(ServerFlows.nodes)
    login = awaiting(ServerFlows.login)
    logout = awaiting(ServerFlows.logout)
    whoami = awaiting(ServerFlows.whoami)


class AsyncClient:
    """As Client, to be awaited; belongs to one event loop. Close it, or use it with `async with`.

    async with AsyncClient("http://localhost:12800", user="admin", password=...) as client:
        result = await client.call("Score", "v1.0.0", bmi=32.1)
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str | None = None,
        token: str | None = None,
        store: Store | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.url = base_url(url)
        link = link_of(user, password, token, store)
        self._driver = AsyncDriver(self.url, verify=verify)
        self.services = AsyncServices(self._driver, ServiceFlows(link))
        self.pools = AsyncPools(self._driver, PoolFlows(link))
        self.batches = AsyncBatches(self._driver, BatchFlows(link))
        calls = _Calls(self._driver, CallFlows(link))
        self.call = calls.call
        self.swagger = calls.swagger
        server = _Server(self._driver, ServerFlows(link))
        self.status = server.status
        self.nodes = server.nodes
        self.login = server.login
        self.logout = server.logout
        self.whoami = server.whoami

    async def close(self) -> None:
        """Close its connections. The token stays valid: `logout` ends it."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"
