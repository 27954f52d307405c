"""HAProxy's complete configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.model import OpenSlot, Route

SERVER_OPTIONS: Final = "maxconn 1 pool-purge-delay 1s"


@dataclass(frozen=True, slots=True)
class Settings:
    directory: Path
    port: int = 12800
    bind: str = "*"
    api_namespace: str = "default"
    tls_certificate: str = ""
    access_log: bool = True
    max_connections: int = 4000


@dataclass(frozen=True, slots=True)
class Files:
    haproxy_cfg: str
    pools_map: str


def render(settings: Settings, allocation: Allocation, routes: Iterable[Route]) -> Files:
    """The files that HAProxy starts from."""
    raise NotImplementedError


def read_allocation(haproxy_cfg: str) -> Allocation:
    """What `render` was given, from the file that it made."""
    raise NotImplementedError


def map_value(route: Route, backend: str) -> str:
    """The value of a route in pools.map; "-" as backend: published, no pool."""
    raise NotImplementedError


def endpoint(slot: OpenSlot) -> str:
    """ "<address>:<port>" as HAProxy wants it."""
    raise NotImplementedError
