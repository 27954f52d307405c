"""Why a pod failed, in the words of its termination log: the first line is for people, the rest shows where.

The kubelet keeps 4096 bytes of the log; the controller puts the first line into the pool's condition.
"""

from __future__ import annotations

import os
import re
import signal
import time

from sessionpools.session import linux

_LIMIT_BYTES = 4096
_STACK_WAIT_SECONDS = 1.0
# Frames of the interpreter's start and of this package say nothing to the author of a service.
_OWN_FRAME = re.compile(r'^ +File "(<frozen [^"]*|.*sessionpools/session/[^"]*)"')


def write(path: str, summary: str, details: str = "") -> None:
    """Write the log. A path that cannot be written is no reason to fail otherwise."""
    text = " ".join(summary.split()) + "\n" + details
    data = text.encode("utf-8", "backslashreplace")[:_LIMIT_BYTES]
    try:
        with open(path, "wb") as file:
            file.write(data.decode("utf-8", "ignore").encode())
    except OSError:
        pass


def stack_of(pid: int, fd: int) -> str:
    """Have a process dump its stack into fd (faulthandler on SIGUSR2) and return the user's frames, innermost first."""
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        os.kill(pid, signal.SIGUSR2)
    except ProcessLookupError:
        return ""
    deadline = time.monotonic() + _STACK_WAIT_SECONDS
    size = -1
    while time.monotonic() < deadline:
        time.sleep(0.02)  # nothing else is left to do: the pod is about to fail
        now = os.fstat(fd).st_size
        if now and now == size:
            break
        size = now
    return user_frames(os.pread(fd, 64 * 1024, 0).decode("utf-8", "replace"))


def user_frames(stack: str) -> str:
    return "".join(line for line in stack.splitlines(keepends=True) if not _OWN_FRAME.match(line))


def out_of_memory(where: str, limit_bytes: int) -> str:
    limit = f", memory limit {linux.human_bytes(limit_bytes)}" if limit_bytes else ""
    return f"OOMKilled: killed in {where}{limit}"
