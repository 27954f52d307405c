"""What HAProxy's configuration depends on beside the pools, and the limits that it has in more than one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BUFFER_BYTES", "MAX_BODY_BYTES", "MIB", "STANDBY", "SUCCESSOR", "Settings", "Tokens", "WebApi"]

MIB: Final = 1 << 20
MAX_BODY_BYTES: Final = 64 * MIB  # as a session's
BUFFER_BYTES: Final = 64 << 10  # a request up to this size is complete before it takes a session, and can be retried
# In pools.map while another gateway takes the callers: a route's key has two slashes.
STANDBY: Final = "standby"
SUCCESSOR: Final = "successor"  # a backend that is no pool's

# Both stand in the configuration as they are.
_CLAIM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,45}")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Calls need a token that one of the known keys has signed, with these claims."""

    issuer: str = "session-pools"
    audience: str = "session-pools"

    def __post_init__(self) -> None:
        for field, value in (("issuer", self.issuer), ("audience", self.audience)):
            if not _CLAIM.fullmatch(value):
                raise ValueError(f"{field} {value!r}: use letters, digits, '.', '_', ':', '/', '@', '-', at most 200")


@dataclass(frozen=True, slots=True)
class WebApi:
    """Where the REST API is."""

    host: str  # a name, looked up again and again, or an address
    port: int
    max_body_mib: int = 512

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host) or not 1 <= self.port <= 65535:
            raise ValueError(f"{self.host}:{self.port}: use HOST:PORT, as in session-pools-web.session-pools:12802")

    @classmethod
    def parse(cls, text: str, max_body_mib: int) -> WebApi:
        """From HOST:PORT, an IPv6 address in brackets. Raises ValueError."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        return cls(host, int(port) if port.isdecimal() and len(port) <= 5 else 0, max_body_mib)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    directory: Path  # of the files and sockets; short, as a socket's path has 107 bytes at most
    port: int = 12800
    bind: str = "*"  # address; "*": all, IPv4 and IPv6
    api_namespace: str = "default"  # what ML Server's own /api/ paths mean
    tls_certificate: str = ""  # path of a PEM file with certificate and key; "": no TLS
    access_log: bool = True  # the log lines on stdout; the agent gets them in any case
    max_connections: int = 4000  # of callers; HAProxy does not start unless `ulimit -n` allows twice as many
    client_seconds: int = 10  # for a request's head, for its first 64 kB, and between two pieces of what follows
    tokens: Tokens | None = None  # None: everybody may call
    web: WebApi | None = None  # None: there is none, and its paths are unknown

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w./-]+", str(self.directory)) or len(str(self.directory)) > 80:
            raise ValueError(f"{self.directory}: HAProxy wants a path of at most 80 letters, digits, '.', '_', '-'")
