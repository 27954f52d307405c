"""Bundles: the code of a published service as one archive, stored under the digest of its bytes.

A bundle is a gzipped tar of plain files with relative paths, made so that the same files always give the same bytes:
sorted, no times, one mode, no owner. What is equal is stored once, a second publication of the same code changes no
revision, and who knows the digest can check what arrived. `publish_files` says what is in the bundle of a service that
one of Machine Learning Server's clients publishes; native ones bring their files as they are.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import keyword
import re
import tarfile
import unicodedata
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sessionpools.web.store.content import put_fresh
from sessionpools.web.store.errors import NotFound, Refused, TooLarge
from sessionpools.web.store.objects import ObjectStore
from sessionpools.web.store.received import Content, sha256_of, size_of
from sessionpools.web.store.room import mib, temporary_folder, to_end

__all__ = [
    "INIT",
    "MAX_BYTES",
    "MAX_ENTRIES",
    "MAX_PACKED_BYTES",
    "PREFIX",
    "SCRIPT",
    "Bundle",
    "Bundles",
    "Content",
    "check_path",
    "check_variable",
    "key_of",
    "packed_at_most",
    "publish_files",
    "sha256_of_key",
]

PREFIX: Final = "bundles"
# What a session pod takes (session/unpack.py and fetch.py): more would be stored and never served.
MAX_ENTRIES: Final = 20_000  # files, and the folders that they are in
MAX_BYTES: Final = 2 << 30  # of all files before compression; an authoring session holds no more
MAX_PACKED_BYTES: Final = 512 << 20
SCRIPT: Final = "service_script.py"  # a WebService's script ...
INIT: Final = "service_init:load"  # ... and its init, of what `publish_files` makes

_MAX_PATH: Final = 255
_MAX_SEGMENT_BYTES: Final = 255  # as file systems have it, here and in session pods
# As the kind has it for inline code (api/scalars.py): segments without separators, control characters and a second dot.
_SEGMENT: Final = r"\.?[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
_PATH: Final = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# Dill files and models are numbers, which higher levels compress hardly better: 1 takes a fifth of the time of 9.
_COMPRESSION: Final = 1
_TAR_BYTES: Final = 128 << 20  # headers of MAX_ENTRIES files, names that take further ones included
_BLOCK_BYTES: Final = 4096  # a file takes whole ones of a disk
_INIT_MODULE: Final = Path(__file__).with_name("service_init.py")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A stored archive."""

    sha256: str
    size: int  # bytes


def check_path(path: str) -> None:
    """Whether a bundle may hold a file of this name. Raises Refused."""
    if len(path) > _MAX_PATH or not _PATH.fullmatch(path) or not _encodable(path):
        raise Refused(
            f'file {path!r}: must be a relative path of at most {_MAX_PATH} characters without "..", "\\" and control '
            "characters, such as lib/model.py"
        )
    if any(len(segment.encode()) > _MAX_SEGMENT_BYTES for segment in path.split("/")):
        raise Refused(
            f"file {path!r}: has a name of more than {_MAX_SEGMENT_BYTES} bytes in UTF-8, which no file may have: use "
            "a shorter one"
        )


def check_variable(name: str) -> None:
    """Whether an object may be called so: it becomes a variable of the service's code. Raises Refused."""
    fits = name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name
    if not fits or name.startswith("__") or len(name) > 128:
        raise Refused(
            f"object {name!r}: must be a Python identifier of at most 128 characters that does not begin with __, "
            "as it becomes a variable of the service's code, such as model"
        )
    check_path(_object_path(name))


def publish_files(
    code: str, init_code: str, objects: Mapping[str, Content], files: Mapping[str, Content]
) -> dict[str, Content]:
    """What the bundle of a service holds that is a block of code, an init block and dill objects. Raises Refused.

    `service_script.py` is the code, run for each call; `service_init.py` a module of ours whose `load()` makes the
    variables it starts with: `objects/NAME.dill` each loaded as NAME, then `init_block.py` run over them, all in one
    namespace. Files are below `files`, which is the current directory of the init block.
    """
    for what, text in (("code", code), ("initCode", init_code)):
        if not _encodable(text):
            raise Refused(f"{what}: holds characters that are no text (lone surrogates): send it as UTF-8")
    made: dict[str, Content] = {
        SCRIPT: code.encode(),
        "service_init.py": _INIT_MODULE.read_bytes(),
        "init_block.py": init_code.encode(),
    }
    for name, content in objects.items():
        check_variable(name)
        made[_object_path(name)] = content
    for path, content in files.items():
        check_path(path)
        made[f"files/{path}"] = content
    return made


class Bundles:
    """The bundles of a store. Raises StoreUnavailable beside what is said."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, files: Mapping[str, Content]) -> Bundle:
        """Make the archive of these files and store it, unless it is there. The caller has room for `packed_at_most`
        of them. Raises Refused, TooLarge."""
        await asyncio.to_thread(_check, files)
        with temporary_folder() as folder:
            path = folder / "bundle.tar.gz"
            await to_end(_write, files, path)
            sha256, size = await to_end(lambda: (sha256_of(path), size_of(path)))
            await put_fresh(self._store, key_of(sha256), path)
        return Bundle(sha256, size)

    async def size(self, sha256: str) -> int:
        """Bytes of a stored archive. Raises NotFound."""
        return await self._store.size(_checked_key(sha256))

    async def room_of(self, sha256: str, unpacked_at_most: int = MAX_BYTES + _TAR_BYTES) -> int:
        """Bytes of disk that an archive takes with the files that it is unpacked to. Raises NotFound."""
        packed = await self.size(sha256)
        end = await self._store.end(_checked_key(sha256), 4)
        unpacked = min(int.from_bytes(end, "little"), unpacked_at_most)  # as gzip counts
        return packed + unpacked + min(8 * unpacked, MAX_ENTRIES * _BLOCK_BYTES)

    async def stream(self, sha256: str) -> AsyncIterator[bytes]:
        """A stored archive, in pieces. Raises NotFound before the first."""
        async for piece in self._store.stream(_checked_key(sha256)):
            yield piece


def packed_at_most(content_bytes: int) -> int:
    """Bytes of the archive of files that have so many in all: no more than is kept, a little more than there are."""
    return min(MAX_PACKED_BYTES, content_bytes + content_bytes // 100 + (8 << 20))


def key_of(sha256: str) -> str:
    """Where a bundle is stored."""
    return f"{PREFIX}/{sha256}.tar.gz"


def sha256_of_key(key: str) -> str:
    """The reverse; "" for a key that is no bundle's."""
    name = key.removeprefix(f"{PREFIX}/").removesuffix(".tar.gz")
    return name if _SHA256.fullmatch(name) and key_of(name) == key else ""


def _object_path(name: str) -> str:
    return f"objects/{name}.dill"


def _checked_key(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise NotFound(f"bundle {sha256!r}: there is none: its name is 64 lower-case hexadecimal digits")
    return key_of(sha256)


# --- the archive ----------------------------------------------------------------------------------------------------


def _check(files: Mapping[str, Content]) -> None:
    total = 0
    folders: set[str] = set()
    for path, content in files.items():
        check_path(path)
        total += size_of(content)
        _check_folders(path, files)
        folders.update(path[: at.start()] for at in re.finditer("/", path))
    if len(files) + len(folders) > MAX_ENTRIES:
        raise TooLarge(
            f"bundle: {len(files)} files in {len(folders)} folders are more than {MAX_ENTRIES} in all, the most of "
            "one: put them into an image"
        )
    if total > MAX_BYTES:
        raise TooLarge(f"bundle: the files are larger than {mib(MAX_BYTES)} in all, the most of one: use an image")


def _check_folders(path: str, files: Mapping[str, Content]) -> None:
    parts = path.split("/")
    for count in range(1, len(parts)):
        if "/".join(parts[:count]) in files:
            raise Refused(f"file {path!r}: there is a file {'/'.join(parts[:count])!r} too, which can't be its folder")


def _write(files: Mapping[str, Content], target: Path) -> None:
    """The archive, byte for byte the same for the same files. Raises TooLarge as soon as it is larger than one may."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(
            filename="",
            mode="wb",
            compresslevel=_COMPRESSION,
            fileobj=_Limited(raw),
            mtime=0,
        ) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        # The top folder first: what is shown of a service (web.bundlefiles) is read without the objects.
        for path in sorted(files, key=lambda path: ("/" in path, path)):
            content = files[path]
            info = tarfile.TarInfo(path)
            info.mode = 0o644
            info.size = size_of(content)
            with _opened(content) as file:
                archive.addfile(info, file)


class _Limited:
    """A file that takes no more than a bundle may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MAX_PACKED_BYTES

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(
                f"bundle: is larger than {mib(MAX_PACKED_BYTES)} when it is compressed, the most that sessions fetch: "
                "put large files into an image or on a volume"
            )
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _opened(content: Content) -> IO[bytes]:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
