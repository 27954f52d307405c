"""Signatures of what follows; see the commit's message."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Version:
    e_tag: str
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    size: int  # bytes
    modified: datetime  # UTC
    e_tag: str


class ObjectStore:
    """One store. Every method raises StoreUnavailable; keys are ours (letters, digits, . _ = - and /)."""

    url: str  # without credentials, for messages and /status

    @classmethod
    def open(cls, url: str) -> ObjectStore: ...  # ValueError for a URL that is none
    async def put(self, key: str, data: bytes | Path) -> None: ...
    async def put_if_absent(self, key: str, data: bytes | Path) -> bool: ...  # False: there is one
    async def update(self, key: str, data: bytes, version: Version) -> Version: ...  # Changed
    async def get(self, key: str) -> Stored: ...  # NotFound
    async def size(self, key: str) -> int: ...  # NotFound
    def stream(self, key: str) -> AsyncIterator[bytes]: ...  # NotFound at the first chunk
    async def delete(self, key: str) -> None: ...  # nothing when there is none
    def list(self, prefix: str) -> AsyncIterator[Entry]: ...
    async def check(self) -> None: ...  # for /status and readiness: cheap
    async def verify(self) -> None: ...  # once at start: can we write, and does compare-and-swap work
