"""The code directory of a revision whose code is a bundle: there and complete, or fetched and unpacked now.

The volume of a bundle belongs to one session pod and outlives its containers and processes. It holds

    code/      the unpacked archive: folders and files are read-only
    packed     the archive, while it is fetched and unpacked
    complete   "SHA256 BOOT-ID": the digest of what `code` holds, and the node's boot in which it was written. Written
               last: what a process left half done is done again. So is what is of another boot, as a node that loses
               its power may keep a file's name and not its bytes
    lock       held by who changes the rest: where sessions load for themselves (forkSafe: false), the first one fetches

The archive is fetched and unpacked by fetch.py in a process of its own: what an archive makes of the program that reads
it does not reach the template, nor do the modules that this takes stay in the memory of every session (or hide a
module of the code's that has the same name). The sessions of a pod run as the user who owns these files: read-only
guards against mistakes, not against code that means to write; the code is its own and nobody else's.

Never in the supervisor. Called by template.py before anything is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.session import linux
from sessionpools.session.config import RevisionSpec
from sessionpools.session.loading import LoadError, Report

# Of the pod's container. Not in session.json: a bundle that moves is no new revision.
URL_VARIABLE: Final = "SESSIONPOOLS_BUNDLE_URL"
FETCH: Final = "fetch bundle"
UNPACK: Final = "unpack bundle"
# What is left of startTimeoutSeconds for saying what was wrong, before the supervisor can only say what took too long.
# Of short times a part.
_MARGIN_SECONDS: Final = 3.0
_MARGIN_PART: Final = 0.2
_LOCK_SECONDS: Final = 0.1  # between two tries
_LISTEN_SECONDS: Final = 60.0  # at a time: poll() takes some weeks at most, and startTimeoutSeconds more
_URL_CHARACTERS: Final = 160  # in a message; the first line of the termination log is shown to 500
_PROBLEM_CHARACTERS: Final = 100  # in a phase, which is shown to 200
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_REMEDY: Final = (
    "see that it is there and that network policies let session pods reach it, correct code.bundle.url, or raise "
    "startTimeoutSeconds"
)


@dataclass(frozen=True)
class Files:
    """Where things are in the volume, given the code directory."""

    code: str

    @property
    def root(self) -> str:
        return os.path.dirname(self.code)

    @property
    def packed(self) -> str:
        return os.path.join(self.root, "packed")

    @property
    def complete(self) -> str:
        return os.path.join(self.root, "complete")

    @property
    def lock(self) -> str:
        return os.path.join(self.root, "lock")

    def is_complete(self, sha256: str) -> bool:
        try:
            with open(self.complete, "rb") as file:
                return file.read() == _mark(sha256)
        except OSError:
            return False

    def set_complete(self, sha256: str) -> None:
        beginning = f"{self.complete}.new"
        with open(beginning, "wb") as file:
            file.write(_mark(sha256))
        os.rename(beginning, self.complete)


def _mark(sha256: str) -> bytes:
    with open(_BOOT_ID) as file:
        return f"{sha256} {file.read().strip()}\n".encode()


def shown(url: str) -> str:
    """The URL without what may be a secret (user and password, query), cut to a length."""
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    text = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return text if len(text) <= _URL_CHARACTERS else f"{text[: _URL_CHARACTERS - 3]}..."


def provide(spec: RevisionSpec, start_by: float, report: Report) -> None:
    """Have the revision's bundle in its code directory, if it has one. Raises LoadError, when it still is not to be had
    shortly before `start_by` (monotonic seconds) too."""
    if not spec.bundle:
        return
    files = Files(os.path.abspath(spec.code))
    if files.is_complete(spec.bundle):
        return
    url = os.environ.get(URL_VARIABLE, "")
    if not url:
        raise LoadError(f"BundleUnreachable: the variable {URL_VARIABLE} does not say where the bundle is")
    report(FETCH)
    left = start_by - time.monotonic()
    fetch = _Fetch(files, spec.bundle, shown(url), report, start_by - min(_MARGIN_SECONDS, left * _MARGIN_PART))
    try:
        os.makedirs(files.root, exist_ok=True)
        with fetch.locked() as lock_fd:
            if not files.is_complete(spec.bundle):  # else another session's process has fetched it meanwhile
                fetch.run(lock_fd)
    except OSError as error:
        raise LoadError(f"{type(error).__name__}: {error} ({FETCH})") from error


class _Fetch:
    """The process that fetches, as this one sees it."""

    def __init__(self, files: Files, sha256: str, url: str, report: Report, deadline: float) -> None:
        self._files = files
        self._sha256 = sha256
        self._url = url
        self._report = report
        self._deadline = deadline
        self._phase = FETCH
        self._problem = ""  # of the last try
        self._failure = ""

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """The descriptor of the lock, which is held until it and all copies of it are closed."""
        fd = os.open(self._files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > self._deadline:
                        raise self._too_late() from None
                    time.sleep(_LOCK_SECONDS)  # for minutes, perhaps; flock() itself knows no deadline
            yield fd
        finally:
            os.close(fd)

    def run(self, lock_fd: int) -> None:
        """Raises LoadError, or ends this process as the other one was ended: the supervisor knows what that means."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_inheritable(lock_fd, True)  # what it writes must not meet what a successor of this process writes
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "sessionpools.session.fetch", self._files.code, self._sha256],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 1)],
        )
        os.close(theirs)
        ended = False
        try:
            ended = self._listen(ours)
        finally:
            os.close(ours)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        if not ended:
            raise self._too_late()
        if self._failure:
            raise LoadError(self._failure)
        if os.WIFSIGNALED(status):
            signum = os.WTERMSIG(status)
            if signum != signal.SIGKILL:
                signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if not self._files.is_complete(self._sha256):
            raise LoadError(f"ProcessEnded: {linux.describe_status(status)} in {self._phase}")

    def _listen(self, fd: int) -> bool:
        """Hear what it says; whether it has come to its end, or at least to its second phase, in time."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        rest = b""
        while (left := self._deadline - time.monotonic()) > 0 or self._phase != FETCH:
            if not poller.poll(min(left if left > 0 else _LISTEN_SECONDS, _LISTEN_SECONDS) * 1000):
                continue
            data = os.read(fd, 65536)
            if not data:
                return True
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._note(json.loads(line))
        return False

    def _note(self, message: dict[str, Any]) -> None:
        if "phase" in message:
            self._phase, self._problem = message["phase"], ""
            self._report(self._phase)
        elif "problem" in message:
            self._problem = message["problem"]
            self._report(f"{self._phase} ({self._problem[:_PROBLEM_CHARACTERS]})")
        elif "failed" in message:
            self._failure = message["failed"]

    def _too_late(self) -> LoadError:
        problem = self._problem or f"{self._loaded_bytes()} bytes had come"
        return LoadError(f"BundleUnreachable: {self._url}: {problem} when startTimeoutSeconds was over: {_REMEDY}")

    def _loaded_bytes(self) -> int:
        try:
            return os.stat(self._files.packed).st_size
        except OSError:
            return 0
