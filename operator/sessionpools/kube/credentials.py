"""Where the API server is and who we are. Called by `kube.client` only.

The official `kubernetes` package reads the configuration: a pod's service account, or a kubeconfig with its contexts,
client certificates, tokens, exec plugins and identity providers. This module keeps what it found, and reads it again
when the server says 401: a service account's token is rotated hourly, an exec plugin's token lives minutes.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from sessionpools.kube.protocol import Unreachable

# A 401 that lasts (a revoked account) must not run an exec plugin, or read a file, for each of many calls in flight.
_RENEW_AT_MOST_EVERY_SECONDS: Final = 5.0

Load = Callable[[Configuration], Awaitable[None]]


class Credentials:
    """The address of an API server and what it takes to be let in. `await load()` before anything else."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._configuration = Configuration()
        self._renewed = float("-inf")
        self._lock = asyncio.Lock()
        self.ssl: ssl.SSLContext | bool = True

    @classmethod
    def discover(cls, context: str | None = None, kubeconfig: str | None = None) -> Credentials:
        """The kubeconfig's `context` if one is named; else the pod's service account; else the current context."""
        if context is None and kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return cls.in_cluster()
        return cls.from_kubeconfig(context, kubeconfig)

    @classmethod
    def in_cluster(cls) -> Credentials:
        async def load(configuration: Configuration) -> None:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]

        return cls(load)

    @classmethod
    def from_kubeconfig(cls, context: str | None, kubeconfig: str | None) -> Credentials:
        async def load(configuration: Configuration) -> None:
            path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
            await load_kube_config(path, context, configuration)  # type: ignore[no-untyped-call]

        return cls(load)

    @classmethod
    def anonymous(cls, url: str) -> Credentials:
        """No credentials at all, for a server that asks for none: the in-process one of the tests, `kubectl proxy`."""

        async def load(configuration: Configuration) -> None:
            configuration.host = url

        return cls(load)

    async def load(self) -> None:
        """Read everything (again). Unreachable if there is no usable configuration."""
        configuration = Configuration()
        try:
            await self._load(configuration)
            self.ssl = _ssl_context(configuration) if configuration.host.startswith("https") else True
        except (ConfigException, OSError, ValueError) as error:
            raise Unreachable(f"no usable Kubernetes configuration: {error}") from error
        self._configuration = configuration

    async def renew(self, used: str) -> bool:
        """After a 401 to a call that sent `used`: read them again. False if that gave nothing else to send."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._header() == used and now - self._renewed >= _RENEW_AT_MOST_EVERY_SECONDS:
                self._renewed = now
                await self.load()
            return self._header() != used

    def authorization(self) -> str:
        """The Authorization header to send now, "" for none."""
        hook = self._configuration.refresh_api_key_hook
        if hook is not None:  # in a cluster: reads the token's file, once a minute
            try:
                hook(self._configuration)
            except (ConfigException, OSError) as error:
                raise Unreachable(f"no usable Kubernetes configuration: {error}") from error
        return self._header()

    def _header(self) -> str:
        return str(self._configuration.api_key.get("BearerToken") or "").strip()

    @property
    def url(self) -> str:
        return str(self._configuration.host).rstrip("/")

    @property
    def server_name(self) -> str | None:
        """The name that the server's certificate must bear, if it is not the URL's."""
        return self._configuration.tls_server_name or None

    @property
    def proxy(self) -> str | None:
        return self._configuration.proxy or None


def _ssl_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
