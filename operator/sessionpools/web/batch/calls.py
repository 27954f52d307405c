"""One call of a batch: an HTTP POST to the gateway, and what its outcome says about whether the item ran.

    the gateway's answer                        the item                    what follows
    200, 400, 413, 500, 504, ...                ran, or never can           the answer is its result
    502                                         began, its session died     its result says so
    401, 429, 503                               did not run                 it waits and is sent again
    404                                         did not run                 likewise, while the service is published
    no connection                               did not run                 likewise
    (its owner is no user any more)             did not run                 its result says so
    connection lost after that                  may have run                its result says that this is not known

A call is never repeated here, and by the HTTP client neither.
"""

from __future__ import annotations

import base64
import binascii
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from sessionpools.web.batch.state import Service

__all__ = ["Gateway", "Headers", "Known", "NotRun", "OwnerGone", "Ran", "failure", "verdict"]

# What lets a call of this owner's into the gateway, {"Authorization": "Bearer ..."}: asked for each call. It raises
# OwnerGone; whatever else it raises, the call waits.
Headers = Callable[[Service, str], Awaitable[Mapping[str, str]]]
Known = Callable[[Service], bool]  # whether it is published, as far as this replica has heard

# The longest queue.timeoutSeconds and requestTimeoutSeconds are a day each; the gateway answers then at the latest.
_ANSWER_SECONDS: Final = 2 * 86_400.0 + 60.0
_CONNECT_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 60.0  # of a body of 64 MiB at most, within the cluster
_IDLE_SECONDS: Final = 20.0  # less than the gateway's own 60 s: no call meets a connection that is just being closed
# A gateway whose node is lost says nothing: the kernel asks after 30 s, and the call is over after 60 s.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0x10), 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_MAX_ANSWER_BYTES: Final = 128 << 20  # of one item, files included: a file may have 64 MiB as base64
_RETRY_SECONDS: Final = 1.0  # where the gateway does not say when to come again
_MAX_RETRY_SECONDS: Final = 60.0

# 401: the key of the token was replaced. 503 is what the gateway says when no session had the call, and what a session
# says that ends before it has begun it.
_NOT_RUN: Final = frozenset({401, 429, 503})

_FIELDS: Final = ("outputParameters", "consoleOutput", "changedFiles")


@dataclass(frozen=True, slots=True)
class Ran:
    """The item has its result: a JSON object as a call gives it, its output files apart."""

    result: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotRun:
    """The call certainly did not run: it may be made again, not before `seconds` from now."""

    seconds: float
    reason: str


class OwnerGone(LookupError):  # noqa: N818
    """Who started the batch is no user any more."""


def failure(message: str) -> dict[str, Any]:
    """The result of an item that has no answer of a session's."""
    return {
        "success": False,
        "errorMessage": message,
        "outputParameters": {},
        "consoleOutput": "",
        "changedFiles": [],
    }


def verdict(status: int, retry_after: str, body: bytes, known: bool = True) -> Ran | NotRun:
    """What an answer of the gateway's says about the item. `known`: whether the service is published; the gateway
    hears of it a moment later than the web API, and finds none until then."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        content = {}
    message = str(content.get("errorMessage") or content.get("message") or "")
    if status in _NOT_RUN or (status == 404 and known):
        return NotRun(_seconds(retry_after), message or f"HTTP status {status}")
    if status != 200 or "success" not in content:
        shown = message or body[:1000].decode("utf-8", "replace") or "without a message"
        return Ran(failure(f"The gateway answered {status}: {shown}"))
    empty = failure("")
    result = {
        "success": content["success"] is True,
        "errorMessage": message,
        **{name: content.get(name, empty[name]) for name in _FIELDS},
    }
    return Ran(result, _files(content.get("outputFiles")))


def _seconds(retry_after: str) -> float:
    """What Retry-After says; it may be a date, which nobody sends here."""
    try:
        return min(max(float(retry_after), 0.1), _MAX_RETRY_SECONDS)
    except ValueError:
        return _RETRY_SECONDS


def _files(given: object) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, text in given.items() if isinstance(given, dict) else ():
        if isinstance(text, str):  # null: the call did not write it
            try:
                files[name] = base64.b64decode(text, validate=True)
            except binascii.Error:
                continue
    return files


class Gateway:
    """Makes calls; one for all batches of a replica. `close` it. `certificate`: a PEM file that begins with the one
    certificate that is believed, whatever name it is for: callers from outside know the gateway by another than we."""

    def __init__(
        self, url: str, headers: Headers, certificate: Path | None = None, known: Known = lambda _: True
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = headers
        self._known = known
        transport = httpx.AsyncHTTPTransport(
            verify=_pinned(certificate) if certificate else True,
            retries=0,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=_IDLE_SECONDS),
            socket_options=list(_KEEPALIVE),
        )
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, write=_SEND_SECONDS),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, service: Service, owner: str, request_id: str, item: bytes) -> Ran | NotRun:
        """Make one call. Raises nothing on purpose."""
        path = "/".join(quote(part, safe="") for part in (service.namespace, "api", service.name, service.version))
        try:
            login = await self._headers(service, owner)
        except OwnerGone as error:
            return Ran(failure(f"{error}; the item did not run."))
        except Exception as error:  # whatever it is: nothing was sent
            return NotRun(_RETRY_SECONDS, f"the call has no token: {error or type(error).__name__}")
        headers = {
            **login,
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "X-Request-Id": request_id,
        }
        try:
            async with self._client.stream(
                "POST", f"{self._url}/namespaces/{path}", content=item, headers=headers
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_ANSWER_BYTES:
                        return Ran(failure(f"The answer is larger than {_MAX_ANSWER_BYTES >> 20} MiB, and not kept."))
                retry_after = response.headers.get("Retry-After", "")
                return verdict(response.status_code, retry_after, bytes(body), self._known(service))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotRun(_RETRY_SECONDS, f"the gateway can't be reached: {error or type(error).__name__}")
        except httpx.HTTPError as error:
            return Ran(
                failure(
                    f"The outcome of this item is unknown: the connection to the gateway was lost "
                    f"({error or type(error).__name__}). The item may have run or not; it is not repeated."
                )
            )


def _pinned(certificate: Path) -> ssl.SSLContext:
    """Raises OSError (no such file) or ValueError (no certificate in it)."""
    first, end, _ = certificate.read_text().partition("-----END CERTIFICATE-----")
    try:
        context = ssl.create_default_context(cadata=first + end)
    except ssl.SSLError:
        raise ValueError(f"{certificate}: begins with no certificate in PEM") from None
    context.check_hostname = False
    # It need not be an authority's, nor be followed up to one.
    context.verify_flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context
