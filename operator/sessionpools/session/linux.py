"""What Linux offers beyond `os`: a few system calls through ctypes, and files of /proc and /sys/fs/cgroup.

Never raises for what a kernel or a container does not offer: each function then answers with a neutral value, as the
runtime works without it. Called by supervisor, template and sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Container, Iterator
from typing import Any

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_THREAD_END_SECONDS = 0.1

SIGIO = signal.SIGIO
SIGKILL = signal.SIGKILL

_libc: Any = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Adopt orphaned descendants, as PID 1 does anyway: sessions whose template died."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def name_process(name: str) -> None:
    """What `ps` and `top` show."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def malloc_trim() -> None:
    """Give freed memory back to the system (glibc; musl does so by itself)."""
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)


def raise_oom_score(by: int) -> None:
    """Be killed before processes with a lower score when memory runs out. Raising needs no privilege."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # a fork reads it: not a file object
        try:
            score = min(1000, int(os.pread(fd, 16, 0)) + by)
            os.pwrite(fd, b"%d" % score, 0)
        finally:
            os.close(fd)


def limit_data(limit_bytes: int) -> None:
    """RLIMIT_DATA: allocations above it fail with a clean MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


def status_bytes(key: str, pid: int | str = "self") -> int:
    """A size from /proc/<pid>/status, such as VmData (what RLIMIT_DATA counts) or RssAnon."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(key.encode() + b":"):
                return int(line.split()[1]) * 1024
    return 0


def memory_bytes(pid: int) -> int:
    """Proportional set size: shared pages count by share. Falls back to the resident anonymous size."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return status_bytes("RssAnon", pid)


def other_threads() -> list[str]:
    """Names of this process's threads but the calling one, Python's and those of C libraries."""
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for task in os.listdir("/proc/self/task"):
        tid = int(task)
        if tid == threading.get_native_id():
            continue
        name = python.get(tid, "")
        if not name:
            try:
                with open(f"/proc/self/task/{task}/comm") as file:
                    name = file.read().strip()
            except OSError:
                continue  # it ended meanwhile
        names.append(name)
    return sorted(names)


def lasting_threads() -> list[str]:
    """Other threads, but for those that are about to be gone: the kernel lists a joined thread for a moment."""
    if other_threads():
        time.sleep(_THREAD_END_SECONDS)
    return other_threads()


def cpu_count() -> int:
    """Processors this container may use: affinity and cgroup quota."""
    count = len(os.sched_getaffinity(0))
    v1 = [_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    for quota in (_read("/sys/fs/cgroup/cpu.max").split(), v1):
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
            count = min(count, max(1, round(int(quota[0]) / int(quota[1]))))
    return count


def kill_group(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal a process group, or the process alone while it has none of its own yet."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
    except PermissionError:  # a member changed its user id; the others were signalled
        pass


def kill_group_members(pid: int) -> None:
    """Kill what is left of the group of a leader that is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def dead_children(leaders: Container[int]) -> Iterator[tuple[int, int]]:
    """Reap: (pid, wait status) of each child that ended.

    The group of a leader is killed before its pid is given back, so that no other process can bear it by then.
    """
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            return
        if info.si_pid in leaders:
            kill_group_members(info.si_pid)
        try:
            yield os.waitpid(info.si_pid, os.WNOHANG)
        except ChildProcessError:
            continue


def end_groups(pids: set[int], seconds: float) -> None:
    """Kill process groups by their leaders and reap what can be reaped, for at most so long."""
    for pid in pids:
        kill_group(pid)
    left = set(pids)
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        left -= {pid for pid, _ in dead_children(left)}
        left = {pid for pid in left if os.path.exists(f"/proc/{pid}")}
        time.sleep(0.002)


def describe_status(status: int) -> str:
    """`exited with 3`, `killed by SIGSEGV`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exited with {os.waitstatus_to_exitcode(status)}"


def human_bytes(count: int) -> str:
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count / (1 << 20):.0f}Mi" if count >= 1 << 20 else str(count)


class MemoryCgroup:
    """The container's memory limit and how often the kernel killed for it, from cgroup v2 or v1 files."""

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        self._directories = _directories(root, _read(membership))
        self._paths: dict[str, str] = {}  # of the files that were found

    def limit_bytes(self) -> int:
        """0 when there is none."""
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = self._first(name).strip()
            if text.isdigit():
                return int(text) if int(text) < 1 << 60 else 0  # v1 says "none" by a number near 2**63
        return 0

    def room_bytes(self) -> int | None:
        """What is left below the limit; files that the kernel can drop at once count as free. None without a limit."""
        limit = self.limit_bytes()
        if not limit:
            return None
        used = (self._first("memory.current") or self._first("memory.usage_in_bytes")).strip()
        idle_files = re.search(r"^inactive_file (\d+)$", self._first("memory.stat"), re.MULTILINE)
        return limit - int(used or 0) + int(idle_files[1] if idle_files else 0)

    def oom_kills(self) -> int:
        for name in ("memory.events", "memory.oom_control"):
            found = re.search(r"^oom_kill (\d+)$", self._first(name), re.MULTILINE)
            if found:
                return int(found[1])
        return 0

    def _first(self, name: str) -> str:
        if name in self._paths:
            return _read(self._paths[name])
        for directory in self._directories:
            path = os.path.join(directory, name)
            text = _read(path)
            if text:
                self._paths[name] = path
                return text
        return ""


def _directories(root: str, membership: str) -> list[str]:
    """Where this process's memory files may be: its own group first, then the mount's root (as containers see it)."""
    found: list[str] = []
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found += [os.path.join(root, path.lstrip("/")), root]
        elif "memory" in controllers.split(","):
            found = [os.path.join(root, "memory", path.lstrip("/")), os.path.join(root, "memory"), *found]
    return found


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""
