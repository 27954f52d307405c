"""The files that a request wrote in its work directory: their names, and the content of those that are declared.

The directory was empty when the request began, so what is there is new. Never follows a symbolic link out of the
directory, opens nothing but regular files, and looks at a bounded number of entries. Called by invoke.py; process.py,
which empties the directory, marks it as clean.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable
from typing import Final

# The time of a work directory that nothing was made in, removed from or renamed in since it was emptied (the day after
# the epoch: no clock says so). Set by WorkDirectory; one system call tells then that there are no files.
CLEAN_NS: Final = 86_423 * 10**9
MAX_NAMES: Final = 1000
MAX_FILE_BYTES: Final = 48 << 20  # 64 MiB as base64


class FileTooLargeError(Exception):
    """An output file cannot be part of an answer. The message names it."""


def changed(directory: str, limit: int = MAX_NAMES) -> list[str]:
    """Names of the files below the directory, relative to it, sorted; of at most so many entries."""
    try:
        if os.stat(directory).st_mtime_ns == CLEAN_NS:
            return []
    except OSError:
        return []
    names: list[str] = []
    todo = [""]
    seen = 0
    while todo:
        folder = todo.pop()
        try:
            entries = os.scandir(os.path.join(directory, folder))
        except OSError:
            continue
        with entries:
            for entry in entries:
                seen += 1
                if seen > limit:
                    return sorted(names)
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    todo.append(name)
                else:
                    names.append(_text(name))
    return sorted(names)


def contents(directory: str, names: Iterable[str]) -> dict[str, str | None]:
    """Base64 of the declared files; None for one that was not written."""
    return {name: _content(directory, name) for name in names}


def _content(directory: str, name: str) -> str | None:
    root = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(root, name))
    if not path.startswith(root + os.sep):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for ever
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    with open(fd, "rb") as file:
        if status.st_size > MAX_FILE_BYTES:
            raise FileTooLargeError(f"output file {name!r} has {status.st_size} bytes; {MAX_FILE_BYTES} is the limit")
        return base64.b64encode(file.read()).decode("ascii")


def _text(name: str) -> str:
    """File names are bytes; those that are no UTF-8 are shown with replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")
