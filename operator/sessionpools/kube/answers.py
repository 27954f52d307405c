"""What the API server answers, read: its errors, and what comes in lines. Used by client.py only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import aiohttp
import orjson

from sessionpools.kube.protocol import (
    Invalid,
    KubeError,
    NotFound,
    Resource,
    ServerError,
    Unreachable,
    error_from_status,
)

__all__ = ["error_of", "failures_as_kube_errors", "lines_of", "not_started"]

# The kubelet's words (kubelet_pods.go, validateContainerLogStatus). The API server passes them on as a BadRequest, as
# which it also refuses a container that the pod has not.
_NOT_STARTED: Final = ("is waiting to start", "is not available")


def not_started(error: Invalid) -> bool:
    """Whether a log was refused because its container has never run: there are no lines yet."""
    return any(words in error.message for words in _NOT_STARTED)


def error_of(status: int, body: bytes, retry_after: str, resource: Resource) -> KubeError:
    try:
        answer = orjson.loads(body)
        if not isinstance(answer, dict):
            raise ValueError
    except ValueError:  # not the API server's own answer: a proxy's page, or Go's "404 page not found"
        text = body[:200].decode(errors="replace").strip()
        answer = {"message": f"{resource}: {text}" if text else f"{resource}: HTTP {status}"}
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = 1.0
    error = error_from_status(answer, status, seconds)
    if isinstance(error, NotFound) and not error.reason:
        error.message = f"the server does not know {resource} ({resource.api_version}): is its CRD installed?"
    return error


@contextlib.contextmanager
def failures_as_kube_errors(method: str, path: str) -> Iterator[None]:
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        reason = str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
        raise Unreachable(f"{method} {path}: {reason}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{method} {path}: the answer is not JSON: {error}", status=502) from error


async def lines_of(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, however long, until the end or silence.

    StreamReader's own iteration refuses lines over 128 KiB, and a ConfigMap may have 1 MiB.
    """
    pending: list[bytes] = []
    while True:
        try:
            chunk = await stream.readany()
        except aiohttp.SocketTimeoutError:
            return
        if not chunk:
            return
        *whole, rest = chunk.split(b"\n")
        if whole:
            pending.append(whole[0])
            yield b"".join(pending)
            pending.clear()
            for line in whole[1:]:
                yield line
        if rest:
            pending.append(rest)
