"""What a request prints: standard output and error of a session, captured at the level of file descriptors.

Descriptors 1 and 2 are a file in memory (opened for appending) for the rest of the session's life, so that C code and
subprocesses are captured too; reading it and truncating it to nothing ends a request. What Python prints above the
limit is counted and not stored; what C code or a subprocess prints above it is memory of the session until the request
ends, and the supervisor ends a session that holds too much of it (`held_bytes`). A subprocess that outlives its request
prints into the next one's output.

Made in a session's process, after the fork; never in the template, whose output is the pod's log. Called by template.py
(which makes it) and invoke.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
from typing import Any, Final

from sessionpools.session import log

LIMIT_BYTES: Final = 1 << 20  # per request; a caller reads it, and it is logged
MAX_HELD_BYTES: Final = 16 << 20  # of a request that is still running
_NAME: Final = "console"


def held_bytes(pid: int) -> int:
    """What a session's captured output takes in memory now."""
    path = f"/proc/{pid}/fd/1"
    with contextlib.suppress(OSError):
        if os.readlink(path).startswith(f"/memfd:{_NAME}"):
            return os.stat(path).st_size
    return 0


class Console:
    """Everything that this process and its children print, from now on.

    Each request finds sys.stdout and sys.stderr as they are here, whatever the one before it did to them.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        _flush(sys.stdout, sys.stderr)
        self._real = os.dup(1)
        self._fd = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        # Append: after a truncation every writer continues at the start, as they share one open file.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(self._fd, 1)
        os.dup2(self._fd, 2)
        self._inode = os.fstat(self._fd).st_ino
        self._budget = _Budget(limit_bytes)
        self._open_streams()

    def take(self) -> bytes:
        """What was printed since the last call. One system call when it was nothing."""
        try:
            self._out.flush()
            self._err.flush()
            status = os.fstat(1)
            if status.st_ino != self._inode or sys.stdout is not self._out or sys.stderr is not self._err:
                raise ValueError
        except (OSError, ValueError):  # the code closed or replaced them
            self._restore()
            status = os.fstat(self._fd)
        size = status.st_size
        if not size:
            return b""
        data = os.pread(self._fd, min(size, self._limit), 0)
        os.ftruncate(self._fd, 0)
        cut = size - len(data) + self._budget.dropped
        self._budget.renew()
        if cut:
            data += f"\n[{cut} bytes cut]\n".encode()
        return data

    def release(self) -> None:
        """Print what was captured outside of any request to the pod's log."""
        log.write(self._real, self.take())

    def _open_streams(self) -> None:
        # Standard output by lines, so that it is in order with standard error and with what C code prints.
        self._out = sys.stdout = _stream(1, self._budget, "strict")
        self._err = sys.stderr = _stream(2, self._budget, "backslashreplace")

    def _restore(self) -> None:
        _flush(sys.stdout, sys.stderr)  # a stream of the code's own may hold something
        for fd in (1, 2):
            os.dup2(self._fd, fd)
        self._open_streams()


class _Budget:
    """How many bytes Python may still print in this request."""

    __slots__ = ("dropped", "left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.renew()

    def renew(self) -> None:
        self.left = self.limit
        self.dropped = 0


class _LimitedFile(io.FileIO):
    def __init__(self, fd: int, budget: _Budget) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._budget = budget

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        budget = self._budget
        if size <= budget.left:
            budget.left -= size
            return super().write(data)
        left, budget.left = budget.left, 0
        budget.dropped += size - left
        if left:
            super().write(memoryview(data).cast("B")[:left])
        return size


def _stream(fd: int, budget: _Budget, errors: str) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(_LimitedFile(fd, budget))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, line_buffering=True)


def _flush(*streams: Any) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):
            stream.flush()
