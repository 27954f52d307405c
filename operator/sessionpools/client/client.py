"""The blocking client."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Self

from sessionpools.client.drive import CLOCK, Driver, blocking
from sessionpools.client.errors import InputInvalid
from sessionpools.client.exchange import Link, Login
from sessionpools.client.flows.batches import Batches as BatchFlows
from sessionpools.client.flows.calls import Calls as CallFlows
from sessionpools.client.flows.pools import Pools as PoolFlows
from sessionpools.client.flows.server import Server as ServerFlows
from sessionpools.client.flows.services import Services as ServiceFlows
from sessionpools.client.tokens import InMemory, Store, Tokens
from sessionpools.client.wire import base_url

__all__ = ["Batches", "Client", "Pools", "Services", "link_of"]


def link_of(user: str, password: str | None, token: str | None, store: Store | None) -> Link:
    """The way to the server with what there is of user and password, token, and store."""
    if (password is not None) != bool(user):
        raise InputInvalid("give user and password together")
    if sum(given for given in (bool(user), token is not None)) > 1:
        raise InputInvalid("give user and password, or a token, not both")
    if token is not None and store is not None:
        raise InputInvalid("give a token, or a store that has one, not both")
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise InputInvalid("the token is empty or has characters that no token has: give it as /login answered it")
    kept = store or InMemory(None if token is None else Tokens(token))
    return Link(Login(kept, CLOCK, user=user, password=password), CLOCK)


class _Part:
    def __init__(self, driver: Driver, flows: object) -> None:
        self._driver = driver
        self._flows = flows


class Services(_Part):
    """Web services."""

    list = blocking(ServiceFlows.list)
    get = blocking(ServiceFlows.get)
    publish = blocking(ServiceFlows.publish)
    update = blocking(ServiceFlows.update)
    delete = blocking(ServiceFlows.delete)
    logs = blocking(ServiceFlows.logs)


class Pools(_Part):
    """Dedicated pools."""

    create_or_update = blocking(PoolFlows.create_or_update)
    status = blocking(PoolFlows.status)
    usage = blocking(PoolFlows.usage)
    list = blocking(PoolFlows.list)
    delete = blocking(PoolFlows.delete)
    wait_until_ready = blocking(PoolFlows.wait_until_ready)
    wait_until_gone = blocking(PoolFlows.wait_until_gone)


class Batches(_Part):
    """Calls in the background."""

    start = blocking(BatchFlows.start)
    list = blocking(BatchFlows.list)
    poll = blocking(BatchFlows.poll)
    wait = blocking(BatchFlows.wait)
    cancel = blocking(BatchFlows.cancel)
    files = blocking(BatchFlows.files)
    file = blocking(BatchFlows.file)


class _Calls(_Part):
    call = blocking(CallFlows.call)
    swagger = blocking(CallFlows.swagger)


class _Server(_Part):
    status = blocking(ServerFlows.status)
    nodes = blocking(ServerFlows.nodes)
    login = blocking(ServerFlows.login)
    logout = blocking(ServerFlows.logout)
    whoami = blocking(ServerFlows.whoami)


class Client:
    """Session Pools at `url`, such as http://localhost:12800. Threads may share one; close it, or use it with `with`.

        with Client("http://localhost:12800", user="admin", password=...) as client:
            client.services.publish("Score", "v1.0.0", predict)
            client.pools.create_or_update("Score", "v1.0.0", 5, 10)
            client.pools.wait_until_ready("Score", "v1.0.0")
            client.call("Score", "v1.0.0", bmi=32.1).output()

    - user, password: the token is got with the first request, and renewed before it expires
    - token: an access token, used until it is refused
    - store: where tokens are kept between processes
    - none of these: a server that wants no token
    - verify: False trusts every certificate, a context says which; else SSL_CERT_FILE, or the usual authorities

    Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY).
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
        self._driver = Driver(self.url, verify=verify)
        self.services = Services(self._driver, ServiceFlows(link))
        self.pools = Pools(self._driver, PoolFlows(link))
        self.batches = Batches(self._driver, BatchFlows(link))
        calls = _Calls(self._driver, CallFlows(link))
        self.call = calls.call
        self.swagger = calls.swagger
        server = _Server(self._driver, ServerFlows(link))
        self.status = server.status
        self.nodes = server.nodes
        self.login = server.login
        self.logout = server.logout
        self.whoami = server.whoami

    def close(self) -> None:
        """Close its connections. The token stays valid: `logout` ends it."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"
