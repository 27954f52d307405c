"""One object store, by URL: a directory (a volume), S3, Google Cloud Storage or Azure, over obstore.

What the rest of the web API needs of a store, and no more: whole objects that are written at once or not at all, two
conditional writes (create, compare-and-swap) on which every lease and every claim of a batch rests, reading, listing,
deleting. Each operation has a deadline; what obstore raises becomes one of ours, with the store's URL and the key.
Credentials come from the environment as the provider's own tools read them, never from the URL.

The content of an object that is created or swapped under a condition has to tell its writer (a holder and a number):
when a write is repeated because its answer was lost, the object is read back, and content equal to ours means that it
was us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, from_url

from sessionpools.web.store.errors import (
    FULL,
    Changed,
    NotFound,
    Refused,
    StoreFull,
    StoreUnavailable,
    StoreUnfit,
)
from sessionpools.web.store.volume import Volume, digest

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Remote

__all__ = ["Entry", "ObjectStore", "Stored", "Version"]

_SCHEMES: Final = ("s3", "gs", "az")
_KEY: Final = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
_MAX_SEGMENT: Final = 255  # characters, which are bytes here: what file systems take
_MAX_KEY: Final = 1024  # what S3 takes
_USERINFO: Final = re.compile(r"//[^/\s@]*@")
_OPERATION_SECONDS: Final = 30.0  # without the content's own time: three tries of 5 s to connect, and what lies between
_SECONDS_PER_BYTE: Final = 1 / (1 << 20)  # slower than 1 MiB/s is not worth waiting for
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 20  # from one piece of an answer to the next
_REQUEST_SECONDS: Final = 900  # of obstore's own: it counts an answer's whole body, we bound that by its size
_RETRY_SECONDS: Final = 20
_RETRIES: Final = 3
_CHUNK_BYTES: Final = 1 << 20
_LIST_CHUNK: Final = 1000  # what S3 gives in one answer
_THREADS: Final = 8  # a volume that hangs takes these and not the threads of the rest of the process

_READING: Final = ("read", "look at")  # operations that find no object, where others find no store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version:
    """Which content of an object: what the store calls it, to be given back with an update."""

    e_tag: str
    generation: str = ""  # Google's stores compare this in place of the ETag


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's content, and which it is."""

    data: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a list."""

    key: str
    size: int  # bytes
    modified: datetime  # UTC, by the store's clock


class ObjectStore:
    """Every method raises StoreUnavailable. Keys are ours: letters, digits, `._=-`, and `/` between segments."""

    def __init__(self, url: str, remote: Remote, volume: Volume | None) -> None:
        self.url = url
        self._remote = remote
        self._volume = volume
        self._threads = ThreadPoolExecutor(_THREADS, "volume") if volume else None

    @classmethod
    def open(cls, url: str) -> ObjectStore:
        """A store by URL: file:///path or /path, s3://bucket/path, gs://bucket/path, az://container/path.

        Raises ValueError for what is none of these, StoreUnavailable for a directory that can't be made. Connects to
        nothing: see `verify`.
        """
        parts = urlsplit(url)
        if parts.scheme in ("", "file"):
            return cls._open_directory(url, Path(unquote(parts.path)))
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(
                f"store {_shown(url)!r}: must be a directory (/path or file:///path), s3://BUCKET/PATH, "
                "gs://BUCKET/PATH or az://CONTAINER/PATH"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"store {_shown(url)!r}: credentials and options belong into the environment, not the URL")
        client: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=_READ_SECONDS),
            "timeout": timedelta(seconds=_REQUEST_SECONDS),
        }
        if _endpoint().startswith("http://"):  # who names such an endpoint has said that plain HTTP is meant
            client["allow_http"] = True
        retry: dict[str, Any] = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)}
        try:
            remote = from_url(url, client_options=client, retry_config=retry)  # type: ignore[call-overload]
        except BaseError as error:
            raise ValueError(f"store {url!r}: {_cause(error)}") from None
        return cls(url.rstrip("/"), remote, None)

    @classmethod
    def _open_directory(cls, url: str, path: Path) -> ObjectStore:
        if not path.is_absolute():
            raise ValueError(f"store {url!r}: must be an absolute path, such as /var/lib/session-pools")
        shown = f"file://{path}"
        try:
            volume = Volume(path)
        except OSError as error:
            raise StoreUnavailable(f"store {shown}: {error.strerror}: make the directory writable") from error
        return cls(shown, LocalStore(path), volume)

    # --- writing ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, of bytes or of a local file, whether there is one or not."""
        async with self._within("write", key) as deadline:
            size = (await asyncio.to_thread(data.stat)).st_size if isinstance(data, Path) else len(data)
            deadline.reschedule(_later(size))
            if self._volume:
                await self._thread(self._volume.put, key, data)
            else:
                await obstore.put_async(self._remote, key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; whether this is its content now."""
        async with self._within("create", key, len(data)):
            if self._volume:
                if await self._thread(self._volume.create, key, data):
                    return True
            else:
                with contextlib.suppress(AlreadyExistsError, PreconditionError):
                    await obstore.put_async(self._remote, key, data, mode="create")
                    return True
        return await self._holds(key, data) is not None

    async def update(self, key: str, data: bytes, version: Version) -> Version:
        """Write an object if it still is of this version; its new version. Raises Changed, also when it is gone."""
        async with self._within("update", key, len(data)):
            if self._volume:
                if await self._thread(self._volume.update, key, data, version.e_tag):
                    return Version(digest(data))
            else:
                mode = {"e_tag": version.e_tag} | ({"version": version.generation} if version.generation else {})
                with contextlib.suppress(AlreadyExistsError, PreconditionError, FileNotFoundError):
                    done = await obstore.put_async(self._remote, key, data, mode=mode)  # type: ignore[arg-type]
                    return _version(done)
        if (ours := await self._holds(key, data)) is not None:
            return ours
        raise Changed(f"store {self.url}: {key} was written by somebody else: read it again")

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        async with self._within("delete", key):
            if self._volume:
                await self._thread(self._volume.delete, key)
            else:
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._remote, key)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Stored:
        """An object with its version: for what is small. Raises NotFound."""
        async with self._within("read", key) as deadline:
            found = await obstore.get_async(self._remote, key)
            deadline.reschedule(_later(found.meta["size"]))
            data = bytes(await found.bytes_async())
            return Stored(data, Version(digest(data)) if self._volume else _version(found.meta))

    async def size(self, key: str) -> int:
        """Bytes of an object. Raises NotFound."""
        async with self._within("look at", key):
            return int((await obstore.head_async(self._remote, key))["size"])

    async def end(self, key: str, count: int) -> bytes:
        """The last bytes of an object that has as many. Raises NotFound."""
        async with self._within("read", key):
            size = int((await obstore.head_async(self._remote, key))["size"])
            return bytes(await obstore.get_range_async(self._remote, key, start=size - count, end=size))

    async def modified(self, key: str) -> datetime:
        """When an object was last written, UTC by the store's clock. Raises NotFound."""
        async with self._within("look at", key):
            return (await obstore.head_async(self._remote, key))["last_modified"]

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """An object in pieces of about 1 MiB. Raises NotFound before the first."""
        async with self._within("read", key):
            pieces = (await obstore.get_async(self._remote, key)).stream(min_chunk_size=_CHUNK_BYTES)
        while True:
            async with self._within("read", key):
                piece = await anext(pieces, b"")
            if not piece:
                return
            yield bytes(piece)

    async def list(self, prefix: str) -> AsyncIterator[Entry]:
        """Objects below a prefix of whole segments, in no certain order."""
        chunks = obstore.list(self._remote, prefix, chunk_size=_LIST_CHUNK)
        while True:
            async with self._within("list", prefix):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            for meta in chunk:
                yield Entry(meta["path"], meta["size"], meta["last_modified"])

    # --- health -----------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Whether the store answers: one small request. Raises StoreUnavailable when it does not."""
        if self._volume:
            async with self._within("write", "health"):
                await self._thread(self._volume.check)
        else:
            async for _ in self.list("health"):
                return

    async def verify(self) -> None:
        """Whether we may write, and whether the store heeds the conditions of a write. For once, at start.

        Raises StoreUnavailable, and StoreUnfit for a store that takes a write whose condition does not hold: it would
        let two replicas run one batch, so that it must not be used at all.
        """
        key = f"health/{uuid.uuid4().hex}"
        heeds = await self._heeds_conditions(key)
        await self.delete(key)
        if not heeds:
            raise StoreUnfit(
                f"store {self.url}: ignores the conditions of writes (If-Match, If-None-Match), on which batches and "
                "leases rest: use a store that has them"
            )

    async def _heeds_conditions(self, key: str) -> bool:
        if not await self.put_if_absent(key, b"1") or await self.put_if_absent(key, b"2"):
            return False
        first = (await self.get(key)).version
        try:
            await self.update(key, b"3", first)
        except Changed:
            return False
        with contextlib.suppress(Changed):
            await self.update(key, b"4", first)
            return False
        return True

    # --- the rest ---------------------------------------------------------------------------------------------------

    async def _holds(self, key: str, data: bytes) -> Version | None:
        """The object's version if this is its content: a write of ours that was repeated finds its own work."""
        with contextlib.suppress(NotFound):
            now = await self.get(key)
            if now.data == data:
                return now.version
        return None

    @contextlib.asynccontextmanager
    async def _within(self, what: str, key: str, size: int = 0) -> AsyncIterator[asyncio.Timeout]:
        """Round one operation: its deadline, and its errors in our words."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"no key of an object: {key!r}")
        if len(key) > _MAX_KEY or max(map(len, key.split("/"))) > _MAX_SEGMENT:
            raise Refused(
                f"store {self.url}: {key[:_MAX_SEGMENT]}...: a name may have {_MAX_SEGMENT} characters between two "
                f"slashes, and {_MAX_KEY} in all: use a shorter one"
            )
        where = f"store {self.url}: can't {what} {key}"
        try:
            async with asyncio.timeout_at(_later(size)) as deadline:
                yield deadline
        except FileNotFoundError as error:
            if what in _READING:
                raise NotFound(f"store {self.url}: there is no object {key}") from None
            raise StoreUnavailable(f"{where}: there is no such bucket, container or directory: make it") from error
        except TimeoutError:
            raise StoreUnavailable(f"{where}: no answer in time") from None
        except (BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise StoreFull(
                    f"{where}: {_cause(error)}: delete services, snapshots or batches that are not needed, or make the "
                    "volume larger"
                ) from error
            raise StoreUnavailable(f"{where}: {_cause(error)}") from error

    async def _thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _later(size: int) -> float:
    return asyncio.get_running_loop().time() + _OPERATION_SECONDS + size * _SECONDS_PER_BYTE


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"] or "", meta["version"] or "")


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _shown(url: str) -> str:
    """A URL that may hold credentials, without them."""
    return _USERINFO.sub("//", url).partition("?")[0]


def _cause(error: Exception) -> str:
    """What went wrong, on one line: obstore prints trees of sources, and addresses with signatures in their queries."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r"\?[^\s\"')]*", "", str(error).partition("Debug source")[0])
    return _USERINFO.sub("//", " ".join(text.split()))[:500]
