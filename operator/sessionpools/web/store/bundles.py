"""Signatures of what follows; see the commit's message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessionpools.web.store.objects import ObjectStore

Content = bytes | Path  # a Path is a local file, for what is too large to be in memory


@dataclass(frozen=True, slots=True)
class Bundle:
    sha256: str
    size: int  # bytes of the archive


def publish_files(
    code: str, init_code: str, objects: Mapping[str, Content], files: Mapping[str, Content]
) -> dict[str, Content]: ...  # Refused


class Bundles:
    def __init__(self, store: ObjectStore) -> None: ...
    async def put(self, files: Mapping[str, Content]) -> Bundle: ...  # Refused, TooLarge
    async def size(self, sha256: str) -> int: ...  # NotFound
    def stream(self, sha256: str) -> AsyncIterator[bytes]: ...
