"""Content on its way in or out, of any size: in memory while it is small, in a file of the temporary directory else.

Objects of a workspace have up to 512 MiB and bundles more; several requests at a time must not need as much memory.
Called by authoring.py and bundles.py.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionpools.web.store.errors import TooLarge
from sessionpools.web.store.room import Room, mib, temporary_folder, to_end

__all__ = ["Content", "Received", "receive", "sha256_of", "size_of"]

Content = bytes | Path  # a Path is a local file

_IN_MEMORY_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """What came in: gone, if it is a file, when the block of `receive` is left."""

    content: Content
    sha256: str
    size: int  # bytes


@contextlib.asynccontextmanager
async def receive(
    chunks: AsyncIterable[bytes], limit: int, what: str, room: Room, declared: int | None = None
) -> AsyncIterator[Received]:
    """Take content in, at most `limit` bytes; `declared`: that there are no more than so many. Raises TooLarge, naming
    `what` it is, as soon as there are more than `limit`; NoRoom for what is not small."""
    digest = hashlib.sha256()
    buffer = bytearray()
    size = 0
    async with contextlib.AsyncExitStack() as stack:
        file: Path | None = None
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"{what}: is larger than {mib(limit)}, the most that is kept of one: make it smaller")
            digest.update(chunk)
            buffer += chunk
            if len(buffer) >= _IN_MEMORY_BYTES:
                if file is None:
                    needed = limit if declared is None else min(declared, limit)
                    await stack.enter_async_context(room.take(needed, what))
                    file = stack.enter_context(temporary_folder()) / "content"
                await to_end(_append, file, bytes(buffer))
                buffer.clear()
        if file is not None:
            await to_end(_append, file, bytes(buffer))
        yield Received(bytes(buffer) if file is None else file, digest.hexdigest(), size)


def sha256_of(content: Content) -> str:
    """The digest of content; blocks for as long as a file takes to be read."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(content: Content) -> int:
    """Bytes of content."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _append(file: Path, data: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(data)
