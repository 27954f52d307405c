"""JSON lines on standard output: one per thing that happened, none per loop.

Called by supervisor, template and sessions. A line is one write, so that lines of several processes do not mix, unless
it is longer than 4 KiB and the reader lags. A reader that has stopped stops nobody: lines are dropped, and counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import termios
import time
from typing import Any

_WAIT_MS = 100
_PIECE_BYTES = 4096  # what fits into a pipe that can be written to, and is not mixed with what others write


def write(fd: int, data: bytes) -> bytes:
    """Write, and return what could not be. Waits for a reader that lags, but not for one that has stopped."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    try:
        while data:
            if not poller.poll(_WAIT_MS):
                break
            data = data[os.write(fd, data if _empty(fd) else data[:_PIECE_BYTES]) :]
    except OSError:
        pass  # nobody reads: not a reason to stop serving
    return data


def _empty(fd: int) -> bool:
    """Whether nothing in a pipe waits for its reader: it then has room for 64 KiB."""
    try:
        return not struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    except OSError:
        return False


class Log:
    def __init__(self, fd: int = 1, **always: Any) -> None:
        self.fd = fd
        self._always = always
        self._dropped = 0
        self._before = b""  # a line end, after a line that was written in part

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = {"time": stamp, "level": level, "event": event, **self._always, **fields}
        if self._dropped:
            line["dropped"] = self._dropped
        data = json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
        left = write(self.fd, self._before + data)
        self._dropped = self._dropped + 1 if left else 0
        if len(left) < len(self._before + data):
            self._before = b"\n" if left else b""
