"""What is in a stored bundle: all of it as local files, for one that is mostly the same, or the texts at its top.

A bundle begins with the files of its top folder (web.store.bundles), so that the code of a service that is shown in a
list costs the first kilobytes of a bundle, whatever models follow. As a digest always means the same bytes, what was
read is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tarfile
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from sessionpools.web.store.bundles import check_path
from sessionpools.web.store.errors import NotFound, StoreError
from sessionpools.web.store.room import temporary_folder, to_end

__all__ = ["Texts", "unpacked"]

HEAD_BYTES: Final = 256 << 10  # of compressed bytes that are read for the texts of a bundle
UNPACKED_HEAD_BYTES: Final = 4 << 20
TEXT_BYTES_AT_MOST: Final = 256 << 10  # a list has the texts of all services; a longer one is not shown
REMEMBERED_BYTES: Final = 64 << 20  # of memory, of all texts together
ASKED_AT_ONCE: Final = 16
ANSWER_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 10.0


class Source(Protocol):
    """The part of `Bundles` that is needed."""

    def stream(self, sha256: str) -> AsyncIterator[bytes]: ...


@contextlib.asynccontextmanager
async def unpacked(source: Source, sha256: str, only: Collection[str] = ()) -> AsyncIterator[dict[str, Path]]:
    """The files of a bundle by their paths, or `only` these of them, until the block is left. The caller has room for
    `Bundles.room_of`. Raises NotFound, StoreUnavailable."""
    with temporary_folder() as folder:
        archive = folder / "bundle.tar.gz"
        with await asyncio.to_thread(archive.open, "wb") as file:
            async for chunk in source.stream(sha256):
                await to_end(file.write, chunk)
        files = await to_end(_extracted, archive, folder / "files", only)
        archive.unlink()
        yield files


def _extracted(archive: Path, into: Path, only: Collection[str]) -> dict[str, Path]:
    """Bundles are regular files under checked paths and nothing else (web.store.bundles), which is held here too: the
    oldest Pythons 3.11, Debian's among them, have no filter for extractall."""
    files: dict[str, Path] = {}
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isreg() else None
            if content is None or (only and member.name not in only):
                continue
            check_path(member.name)
            files[member.name] = into / member.name
            files[member.name].parent.mkdir(parents=True, exist_ok=True)
            with files[member.name].open("wb") as file:
                shutil.copyfileobj(content, file)
    return dict(sorted(files.items()))


class Texts:
    """The texts at the top of bundles, by name, as far as they can be had: the store may be away, a text too large.

    They are shown beside what matters, so they are not waited for: a store that does not answer in time is left alone
    for a while, and lists come without them. `clock` is in seconds and never goes back."""

    def __init__(self, source: Source, names: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._names = frozenset(names)
        self._clock = clock
        self._known: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self._remembered = 0  # bytes
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._not_before = 0.0

    async def of(self, sha256: str) -> Mapping[str, str]:
        if sha256 in self._known:
            self._known.move_to_end(sha256)
            return self._known[sha256]
        try:
            async with self._asking:
                if self._clock() < self._not_before:
                    return MappingProxyType({})
                async with asyncio.timeout(ANSWER_SECONDS):
                    head = await self._head(sha256)
        except NotFound:
            return MappingProxyType({})
        except (StoreError, TimeoutError):
            self._not_before = self._clock() + PAUSE_SECONDS
            return MappingProxyType({})
        found = await asyncio.to_thread(lambda: dict(_texts(head, self._names)))
        self._remember(sha256, MappingProxyType(found))
        return found

    def _remember(self, sha256: str, texts: Mapping[str, str]) -> None:
        if sha256 in self._known:  # somebody else has asked meanwhile
            return
        self._known[sha256] = texts
        self._remembered += _memory(texts)
        while self._remembered > REMEMBERED_BYTES:
            _, forgotten = self._known.popitem(last=False)
            self._remembered -= _memory(forgotten)

    async def _head(self, sha256: str) -> bytes:
        head = bytearray()
        chunks = self._source.stream(sha256)
        async for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()  # the store need not read on
        return bytes(head)


def _memory(texts: Mapping[str, str]) -> int:
    """Bytes, with an entry's own share of the cache."""
    return 1024 + sum(sys.getsizeof(text) for text in texts.values())


def _texts(packed: bytes, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Those that are whole in the beginning of a gzipped tar, and not too long."""
    try:
        content = zlib.decompressobj(wbits=31).decompress(packed, UNPACKED_HEAD_BYTES)
    except zlib.error:  # no bundle of ours: sessions say so too
        return
    at = 0
    while at + tarfile.BLOCKSIZE <= len(content):
        try:
            info = tarfile.TarInfo.frombuf(content[at : at + tarfile.BLOCKSIZE], "utf-8", "replace")
        except tarfile.HeaderError:  # the end, or no tar
            return
        at += tarfile.BLOCKSIZE
        data = content[at : at + info.size]
        if len(data) < info.size:
            return
        if info.isreg() and info.name in names and info.size <= TEXT_BYTES_AT_MOST:
            yield info.name, data.decode(errors="replace")
        at += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
