"""The process that imports, loads and warms once, and forks the sessions on command.

Executed by the supervisor, never imported by it: user code runs here. It has one thread when it forks, or does not fork
at all: a child of a process with threads inherits their locks and hangs. With a slot in its launch it becomes that
slot's session itself instead of forking (`forkSafe: false`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sessionpools.session import bundles, capture, hugepages, invoke, linux
from sessionpools.session.channel import SPARE, Channel, ChannelClosedError, Message
from sessionpools.session.config import Launch, RevisionSpec
from sessionpools.session.log import Log
from sessionpools.session.process import TEMPLATE_OOM_SCORE, WorkDirectory, become_session, data_limit
from sessionpools.session.session import Session
from sessionpools.session.state import SharedState

_LOGGED_BYTES = 12_000  # of a request's output: container runtimes split longer lines
_DETAIL_CHARACTERS = 8000  # of 6 bytes at most in a message; the termination log holds 4096 bytes


class Template:
    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.channel = Channel.from_fd(launch.channel_fd)
        self.shared = SharedState(launch.state_fd)
        self.spec = RevisionSpec.read(launch.paths.revision_file)
        self.service: Any = None
        self.limit_bytes = 0
        self._limit_slots = 0  # for so many slots
        self._sessions: dict[int, int] = {}  # pid -> slot
        self._wake_fd = -1

    # --- loading ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Fetch the code if need be, import, load, warm. Reports each phase before it begins, as it may hang in it."""
        bundles.provide(self.spec, self.launch.start_by, self._report)
        if self.spec.code:
            with contextlib.suppress(OSError):
                os.chdir(self.spec.code)
        self.service = invoke.load(self.spec, self._report)
        if self.spec.warmup is not None:
            self._report("warmup")
            work = WorkDirectory(self.launch.paths.work_dir, self._name)
            work.refresh()
            self.service.warm_up(work.path)
            work.refresh()
        gc.collect()

    @property
    def _name(self) -> str:
        return "template" if self.launch.slot < 0 else f"slot-{self.launch.slot}"

    def _report(self, phase: str) -> None:
        self.channel.send({"phase": phase})

    def say_loaded(self, threads: list[str]) -> None:
        try:
            self.channel.send({"loaded": True, "signature": self.service.signature(), "threads": threads})
        except ValueError:
            subject = self.spec.script or self.spec.entrypoint
            raise invoke.LoadError(f"EntrypointInvalid: {subject} has too many inputs and outputs") from None

    # --- forking ----------------------------------------------------------------------------------------------------

    def serve_forks(self) -> None:
        """Fork on command and reap, until the supervisor closes the channel."""
        linux.malloc_trim()
        gc.freeze()  # collections in sessions leave the shared pages alone
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_fd = wake_read
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))  # the code may have blocked it
        poller = select.poll()
        poller.register(self.channel.fileno(), select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    self._reap()
                else:
                    self._obey(wake_write)

    def _obey(self, wake_write: int) -> None:
        """Fork for all orders that are there, then report: what this process writes between forks, it must copy."""
        orders = self._orders()
        reports: list[Message] = []
        for message, fds in orders:
            slot = message["fork"]
            self._prepare(message["max"])
            try:
                pid = os.fork()
            except OSError as error:
                reports.append({"unforked": slot, "why": f"fork: {error.strerror}"})
                continue
            if pid == 0:
                os.setpgid(0, 0)
                self.channel.close()
                others = [fd for _, given in orders if given is not fds for fd in given]
                self._close_all([self._wake_fd, wake_write, *others])
                run_session(self, Post.given(slot, fds))
            with contextlib.suppress(OSError):  # whichever of the two comes first
                os.setpgid(pid, pid)
            self._sessions[pid] = slot
            reports.append({"forked": slot, "pid": pid})
        for _, fds in orders:
            self._close_all(fds)
        for report in reports:
            self.channel.send(report)

    def _orders(self) -> list[tuple[Message, list[int]]]:
        orders: list[tuple[Message, list[int]]] = []
        try:
            while (received := self.channel.receive()) is not None:
                orders.append(received)
        except ChannelClosedError:
            os._exit(0)
        return orders

    def _prepare(self, slots: int) -> None:
        """For forks of a pod with so many slots."""
        if slots != self._limit_slots:
            if slots > 1 >= self._limit_slots:  # 0.3 s of CPU, which a single session with its spare never gets back
                hugepages.collapse()
            self._limit_slots = slots
            self.limit_bytes = data_limit(self.launch.paths.session_memory_bytes, slots)

    def _reap(self) -> None:
        for pid, status in linux.dead_children(self._sessions):
            if self._sessions.pop(pid, None) is not None:
                self.channel.send({"exited": pid, "status": status})

    @staticmethod
    def _close_all(fds: Sequence[int]) -> None:
        for fd in fds:
            os.close(fd)

    def be_own_session(self) -> NoReturn:
        launch = self.launch
        self.limit_bytes = data_limit(launch.paths.session_memory_bytes, launch.max_slots, forked=False)
        listener = socket.socket(fileno=launch.listener_fd)
        run_session(self, Post(launch.slot, self.channel, listener, launch.connection_fds))


# --- being a session --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Post:
    """What a session serves. A spare's has a channel only, over which it is given another."""

    slot: int
    channel: Channel
    listener: socket.socket | None = None
    connections: tuple[int, ...] = ()

    @classmethod
    def given(cls, slot: int, fds: Sequence[int]) -> Post:
        listener = None if slot <= SPARE else socket.socket(fileno=fds[1])
        return cls(slot, Channel.from_fd(fds[0]), listener, tuple(fds[2:]))


def run_session(template: Template, post: Post) -> NoReturn:
    """The rest of this process's life."""
    code = 1
    console: capture.Console | None = None
    try:
        post.channel.send({"pid": os.getpid()})
        work = _take_place(template, post)
        become_session(template.limit_bytes)
        work.refresh()
        log_fd = os.dup(1)
        console = capture.Console()
        template.service.console = console
        template.service.after_fork()
        if post.slot <= SPARE:
            post = _wait_for_slot(post.channel)
            work = _take_place(template, post)
        assert post.listener is not None  # noqa: S101
        log = Log(log_fd, slot=post.slot, pid=os.getpid())

        def on_console(text: bytes, request_id: bytes) -> None:
            shown = text[:_LOGGED_BYTES].decode("utf-8", "replace")
            log("console", requestId=request_id.decode("latin-1"), bytes=len(text), text=shown)

        session = Session(
            slot=post.slot,
            listener=post.listener,
            channel=post.channel,
            shared=template.shared,
            service=template.service,
            work=work,
            pool=template.launch.paths.pool,
            on_console=on_console,
        )
        session.serve(post.connections)
        code = 0
    except invoke.LoadError as error:
        _say_failed(post.channel, error.summary, error.details)
    except BaseException as error:  # nothing may return into the template's loop
        _say_failed(post.channel, f"{type(error).__name__}: {error}", traceback.format_exc())
    finally:
        if console is not None:
            with contextlib.suppress(Exception):
                console.release()  # what was printed outside of any request
        os._exit(code)


def _take_place(template: Template, post: Post) -> WorkDirectory:
    """Name the process after its slot; the slot's work directory, or the spare's."""
    spare = post.slot <= SPARE
    linux.name_process("starting" if spare else f"session-{post.slot}")
    name = f"spare-{SPARE - post.slot}" if spare else f"slot-{post.slot}"
    return WorkDirectory(template.launch.paths.work_dir, name)


def _wait_for_slot(channel: Channel) -> Post:
    """Of a spare, which has done all that a session does before it serves but what is the slot's own."""
    linux.name_process("spare")  # what has this name can be used
    channel.send({"spare": True})
    message, fds = channel.wait()  # its end: this is not needed any more
    channel.close()
    return Post.given(message["serve"], fds)


def _say_failed(channel: Channel, summary: str, details: str) -> None:
    with contextlib.suppress(ChannelClosedError):
        channel.send({"failed": {"summary": summary[:1000], "details": details[-_DETAIL_CHARACTERS:]}})


def _nothing(signum: int, frame: object) -> None:
    del signum, frame


def main(arguments: Sequence[str]) -> None:
    launch = Launch.loads(arguments[0])
    for fd in (launch.channel_fd, launch.state_fd, launch.stack_fd, launch.listener_fd, *launch.connection_fds):
        if fd >= 0:
            os.set_inheritable(fd, False)  # not for the code's subprocesses
    # `python -m` put the directory of its start first; code is found by the revision's own path.
    if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] in ("", "/"):
        del sys.path[0]
    # Pickles name what they were made in `__main__`: that is the code's own here, not this file, whose functions they
    # would see and replace. dill takes it for the global variables of the functions that it loads.
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    faulthandler.register(signal.SIGUSR2, file=launch.stack_fd, all_threads=True)
    linux.raise_oom_score(TEMPLATE_OOM_SCORE)
    template = Template(launch)
    linux.name_process(template._name)
    try:
        template.load()
        threads = linux.lasting_threads()
        template.say_loaded(threads)
    except invoke.LoadError as error:
        _say_failed(template.channel, error.summary, error.details)
        os._exit(1)
    except ChannelClosedError:
        os._exit(1)
    if launch.slot >= 0:
        template.be_own_session()
    elif threads or not template.spec.fork_safe:
        os._exit(0)  # it has shown that the service loads, and its signature
    else:
        template.serve_forks()


if __name__ == "__main__":
    main(sys.argv[1:])
