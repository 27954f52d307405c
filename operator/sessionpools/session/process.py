"""What a process does once to become a session: after the fork, or after it loaded for itself.

Called by template.py. Never called in the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from typing import Any

from sessionpools.session import linux
from sessionpools.session.files import CLEAN_NS

SESSION_OOM_SCORE = 200  # sessions are killed before their template, the template before the supervisor
TEMPLATE_OOM_SCORE = 100
# What supervisor, kernel memory and page tables take of the container's limit.
_OVERHEAD_BYTES = 32 << 20
_STACK_BYTES = 1 << 20  # of a thread, which the limit counts in full; without this it is 8 MiB
_MT19937_WORDS = 624  # of its state
_LEAST_BYTES = 32 << 20  # a session that may allocate less cannot answer at all


def memory_allowance(
    session_bytes: int, container_bytes: int, loaded_bytes: int, slots: int, forked: bool = True
) -> int:
    """Bytes that one session may allocate on top of what it has loaded, or the template for it; 0: no limit.

    A session's own limit, but no more than its share of what the container has left: a MemoryError inside one session
    is clean, while the kernel's OOM kill takes every process of the container (cgroup v2).
    """
    if not session_bytes:
        return 0
    if not container_bytes:
        return session_bytes
    loads = 1 if forked else slots  # a session that is no fork has loaded everything for itself
    share = (container_bytes - loads * loaded_bytes - _OVERHEAD_BYTES) // max(1, slots)
    return max(min(session_bytes, share), _LEAST_BYTES)


def data_limit(session_bytes: int, slots: int, forked: bool = True) -> int:
    """RLIMIT_DATA of a session of this process, or of this process as a session; 0: none. It has loaded the service."""
    loaded = linux.status_bytes("RssAnon")
    allowance = memory_allowance(session_bytes, linux.MemoryCgroup().limit_bytes(), loaded, slots, forked)
    return linux.status_bytes("VmData") + allowance if allowance else 0


def become_session(limit_bytes: int) -> None:
    """Signals, scores, limits and random streams of a session of its own."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGIO):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO, signal.SIGCHLD, signal.SIGTERM))
    linux.raise_oom_score(SESSION_OOM_SCORE - TEMPLATE_OOM_SCORE)
    if limit_bytes:
        linux.limit_data(limit_bytes)
        if not threading.stack_size():
            threading.stack_size(_STACK_BYTES)
    reseed()


def reseed() -> None:
    """Random streams of their own: forks inherit the template's state, and numpy does not notice a fork."""
    modules: Any = sys.modules
    if "random" in modules:
        modules["random"].seed()
    if "numpy.random" in modules:
        numpy = modules["numpy"]
        try:  # as random as seed(), in a third of the time, most of which are pages that a fork must copy
            key = numpy.frombuffer(os.urandom(4 * _MT19937_WORDS), numpy.uint32)
            numpy.random.set_state(("MT19937", key, _MT19937_WORDS))
        except ValueError:  # the code has set a bit generator of another kind
            numpy.random.set_bit_generator(type(numpy.random.get_bit_generator())())


class WorkDirectory:
    """The current directory of a session's requests: empty before each."""

    def __init__(self, root: str, name: str) -> None:
        self.path = os.path.join(root, name)
        self._clean: tuple[int, ...] | None = None

    def refresh(self) -> None:
        """Make it, enter it, and remove what is in it. One system call when it was not touched."""
        try:
            if self._clean == _stamp():
                return
        except OSError:
            pass
        self._enter()
        if os.listdir(self.path):
            _remove_contents(self.path)
            if os.listdir(self.path):
                self._put_aside()
        # A time of its own: the clock of file times is too coarse to tell what comes right after.
        with contextlib.suppress(OSError):
            os.utime(self.path, ns=(CLEAN_NS, CLEAN_NS))
        self._clean = _stamp()

    def _enter(self) -> None:
        """Go there, whatever a request made of it; never to where a link in its place leads."""
        try:
            if stat.S_ISDIR(os.lstat(self.path).st_mode):
                with contextlib.suppress(PermissionError):
                    os.chmod(self.path, 0o700)
            else:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        if not os.path.exists(self.path):
            os.makedirs(self.path)
            os.chmod(self.path, 0o700)  # whatever the umask is
        os.chdir(self.path)

    def _put_aside(self) -> None:
        """What cannot be removed is not for the next request. Raises OSError when it stays: the session must end."""
        import shutil

        aside = f"{self.path}.left"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(self.path, aside)
        self._enter()


def _stamp() -> tuple[int, ...]:
    """What changes when the current directory is left, removed, or something is made or removed in it; its mode."""
    now = os.stat(".")
    return now.st_ino, now.st_nlink, now.st_mtime_ns, now.st_mode


def _remove_contents(directory: str) -> None:
    import shutil

    for entry in list(os.scandir(directory)):
        if not entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
            continue
        shutil.rmtree(entry.path, ignore_errors=True)
        if os.path.lexists(entry.path):  # a directory without permissions, or with one in it
            with contextlib.suppress(OSError):
                os.chmod(entry.path, 0o700)
            for parent, directories, _ in os.walk(entry.path):
                for name in directories:
                    with contextlib.suppress(OSError):
                        os.chmod(os.path.join(parent, name), 0o700)
            shutil.rmtree(entry.path, ignore_errors=True)
