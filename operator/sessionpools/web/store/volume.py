"""Writes to a store that is a directory: durable, atomic, and with the conditions that obstore's LocalStore lacks.

LocalStore has no compare-and-swap (an update is NotSupported) and leaves what it has written to the page cache, which a
node that loses power takes with it: a batch would then call again what it had noted as begun. So objects are read by
LocalStore and written here: into a file of another name, which is forced to disk, and moved to its own name under a
lock file that all writers of the object take, with the condition checked in between. Locks are `flock`'s; several pods
on one volume need a file system that has them across nodes (NFS version 4, CephFS), which `ObjectStore.verify` can't
tell from one that has not.

A volume may get full. What is large is refused before nothing is left, so that leases, the documents of sessions and
the states of batches can still be written, and what is no longer used can be removed.

The version of an object is the digest of its content: inode and time, which LocalStore makes an ETag of, may be those
of an earlier file again within a tick of the kernel's clock. Called by objects.py, in threads. Raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Volume", "digest"]

_STAGING: Final = ".staging"
_LOCKS: Final = ".locks"
_LOCK_COUNT: Final = 16  # objects share them: they are held for a move, not for the writing of the content
_SMALL_BYTES: Final = 64 << 10  # documents, unless they are unusual; batch.run._TAIL_BYTES leaves room for its record
_RESERVE_BYTES: Final = 64 << 20  # for these, or a twentieth of a smaller volume
_STALE_SECONDS: Final = 86_400  # a file that is still being written after a day is one of a process that died


def digest(data: bytes) -> str:
    """The version of an object with this content."""
    return hashlib.sha256(data).hexdigest()


class Volume:
    """The writing half of a store at `root`, which is made if it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for name in (_STAGING, _LOCKS):
            (root / name).mkdir(parents=True, exist_ok=True)
        self._tidy()

    def put(self, key: str, data: bytes | Path) -> None:
        """Write the object, whether there is one or not."""
        self._write(key, data, lambda target: True)

    def create(self, key: str, data: bytes) -> bool:
        """Write the object unless there is one; whether it was written."""
        return self._write(key, data, lambda target: not target.exists())

    def update(self, key: str, data: bytes, version: str) -> bool:
        """Write the object if it still is of this version; whether it was written."""

        def unchanged(target: Path) -> bool:
            try:
                return digest(target.read_bytes()) == version
            except FileNotFoundError:
                return False

        return self._write(key, data, unchanged)

    def delete(self, key: str) -> None:
        """Remove the object, if there is one, and the directories that are empty without it."""
        target = self._root / key
        with self._lock(key):
            target.unlink(missing_ok=True)
            _sync(target.parent)
        for parent in target.relative_to(self._root).parents[:-1]:
            try:
                (self._root / parent).rmdir()
            except OSError:  # not empty, or somebody else's removal was first
                return

    def check(self) -> None:
        """Raises OSError when the directory is gone, or is another's by now: a volume that is no longer mounted."""
        (self._root / _STAGING).stat()

    def _write(self, key: str, data: bytes | Path, allowed: Callable[[Path], bool]) -> bool:
        self._check_space(data.stat().st_size if isinstance(data, Path) else len(data))
        target = self._root / key
        staged = self._root / _STAGING / uuid.uuid4().hex
        try:
            with staged.open("wb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with self._lock(key):
                if not allowed(target):
                    return False
                self._move(staged, target)
            return True
        finally:
            staged.unlink(missing_ok=True)

    def _check_space(self, size: int) -> None:
        """Raises OSError for what would leave too little for the small writes that have to go on."""
        if size <= _SMALL_BYTES:
            return
        disk = os.statvfs(self._root)
        reserve = min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // 20)
        if disk.f_bavail * disk.f_frsize < size + reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _move(self, staged: Path, target: Path) -> None:
        while True:
            made = [parent for parent in target.parents if not parent.exists()]
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(target)
            except FileNotFoundError:  # somebody deleted the last object in this directory, and the directory with it
                if not staged.exists():
                    raise
                continue
            except FileExistsError:  # in between mkdir's looks: it was made by another, and then deleted
                if target.parent.exists() and not target.parent.is_dir():
                    raise
                continue
            for directory in (target.parent, *(parent.parent for parent in made)):
                _sync(directory)
            return

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        number = int(digest(key.encode())[:8], 16) % _LOCK_COUNT
        with (self._root / _LOCKS / str(number)).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, by the end of the process too
            yield

    def _tidy(self) -> None:
        for path in (self._root / _STAGING).iterdir():
            with contextlib.suppress(FileNotFoundError):  # its writer is done with it
                if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()


def _sync(directory: Path) -> None:
    """Force a directory's entries to disk; a file's fsync does not."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # deleted again meanwhile
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that writes directories at once, and has no such call
            raise
    finally:
        os.close(fd)
