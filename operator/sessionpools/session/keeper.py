"""The slots of a pod and the sessions in them: starts, watches, ends and replaces sessions.

Carries out what slots.py decides. Knows nothing of Ready, of the control port or of how a session process is made: the
supervisor passes that in as a `Host`. Called by the supervisor only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from sessionpools.session import capture, linux, state
from sessionpools.session.channel import (
    MAX_CONNECTIONS,
    BadMessageError,
    Channel,
    ChannelClosedError,
    ChannelFullError,
    Message,
)
from sessionpools.session.config import Paths, Settings
from sessionpools.session.log import Log
from sessionpools.session.loop import Loop
from sessionpools.session.slots import (
    CALLER_GONE,
    Action,
    Session,
    Slot,
    back_off_seconds,
    decide,
    may_retire,
    seconds_until_overdue,
)
from sessionpools.session.state import SharedState

_BACKLOG = 128
_NONSENSE = "sent what is no message"  # the code wrote into the session's channel
_FORK_TIMEOUT_SECONDS = 30.0  # a template that does not answer an order for so long is stopped or stuck


class Host(Protocol):
    """What the keeper needs of the supervisor."""

    def can_start(self) -> bool:
        """Whether a session can be started now."""

    def start(self, session: Session, fds: list[int]) -> None:
        """Start its process: fds are its end of its channel, listener, connections. Raises ChannelError's."""

    def session_said(self, session: Session, message: Message) -> None:
        """A session told something that the keeper does not deal with."""

    def session_ended(self, slot: Slot, session: Session, reason: str) -> None:
        """A session has ended; its slot is empty."""

    def template_stuck(self) -> None:
        """The template does not answer orders."""


class SlotKeeper:
    def __init__(self, loop: Loop, log: Log, paths: Paths, shared: SharedState, host: Host) -> None:
        self._loop = loop
        self._log = log
        self._paths = paths
        self._shared = shared
        self._host = host
        self._cgroup = linux.MemoryCgroup()
        self._oom_kills = self._cgroup.oom_kills()
        self.settings = Settings()
        self.draining = False
        self.slots: dict[int, Slot] = {}
        self.ends: Counter[str] = Counter()

    # --- slots ------------------------------------------------------------------------------------------------------

    def resize(self, settings: Settings) -> None:
        """Open the slots that are missing; those above the maximum close when their sessions have ended.

        Raises OSError when a port is taken; asked again, it goes on where it stopped.
        """
        self.settings = settings
        self._shared.recycle_after = settings.recycle_after_requests
        for number in range(settings.max_pool_size):
            if number not in self.slots:
                port = self._paths.base_port + number
                listener = listen(self._paths.host, port, _BACKLOG)
                self.slots[number] = Slot(number, port, listener, self._shared.row(number))
                self.slots[number].row.reset(state.EMPTY)

    def act(self) -> None:
        """Do for each slot what is to be done now."""
        now = self._loop.now()
        for slot in list(self.slots.values()):
            can_start = self._host.can_start()
            action = decide(slot, self.settings, can_start=can_start, draining=self.draining, now=now)
            fd = slot.listener.fileno()
            if action is Action.WATCH:
                if not self._loop.watched(fd):
                    self._loop.readable(fd, lambda slot=slot: self._start(slot, activated=True))  # type: ignore[misc]
                continue
            self._loop.forget(fd)
            if action is Action.FILL:
                self._start(slot, activated=False)
            elif action is Action.DRAIN and slot.session is not None:
                self._drain(slot.session)
            elif action is Action.CLOSE:
                self._close(slot)

    def _close(self, slot: Slot) -> None:
        slot.listener.close()
        _close_all(slot.handover)
        slot.row.reset(state.EMPTY)
        del self.slots[slot.number]

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start(self, slot: Slot, activated: bool) -> None:
        self._loop.forget(slot.listener.fileno())
        try:
            ours, theirs = Channel.pair()
        except OSError as error:  # no descriptors: tick tries again
            self._log("session-not-started", level="error", slot=slot.number, reason=str(error.strerror))
            return
        session = Session(slot.number, ours, self._loop.now(), activated)
        slot.session = session
        slot.row.reset(state.STARTING)
        self._loop.readable(ours.fileno(), lambda: self._hear(session))
        try:
            self._host.start(session, [theirs.fileno(), slot.listener.fileno(), *slot.handover])
        except (ChannelClosedError, ChannelFullError, OSError) as error:
            session.end_reason = f"could not be started: {type(error).__name__} {error}".strip()
            self._ended(session, session.end_reason)
            return
        finally:
            theirs.close()
        slot.started += 1

    def forked(self, number: int, pid: int) -> None:
        """The template tells the pid of the session that it forked for a slot."""
        slot = self.slots.get(number)
        if slot is not None and slot.session is not None and not slot.session.pid:
            self._know(slot.session, pid)

    @staticmethod
    def _know(session: Session, pid: int) -> None:
        session.pid = pid
        if session.kill_reason:  # its end was wanted before its pid was known
            linux.kill_group(pid)

    def not_forked(self, number: int, why: str) -> None:
        slot = self.slots.get(number)
        if slot is not None and slot.session is not None and not slot.session.pid:
            self._ended(slot.session, why)

    # --- hearing ----------------------------------------------------------------------------------------------------

    def _hear(self, session: Session) -> None:
        while True:
            try:
                received = session.channel.receive()
            except ChannelClosedError:
                self._loop.forget(session.channel.fileno())
                if not session.pid:  # its template died before forking it
                    self._ended(session, "its template ended")
                return
            except BadMessageError:
                self.kill(session, _NONSENSE)
                continue
            if received is None:
                return
            message, fds = received
            try:
                self._note(session, message, fds)
            except (KeyError, TypeError, ValueError, OverflowError):
                self.kill(session, _NONSENSE)
            finally:
                _close_all(fds)

    def _note(self, session: Session, message: Message, fds: list[int]) -> None:
        slot = self.slots[session.slot]
        if "pid" in message and not session.pid:
            self._know(session, int(message["pid"]))
        if "phase" in message:
            session.phase = str(message["phase"])
        if "failed" in message:
            session.failure = (str(message["failed"]["summary"]), str(message["failed"]["details"]))
        if message.get("idle"):
            session.serving = True
            session.phase = "serving"
            slot.failures = 0
            _close_all(slot.handover)  # it has them; until here the next session could have got them
            if session.draining:
                self._order(session, "drain")
        if "end" in message:
            session.end_reason = str(message["end"])
            room = MAX_CONNECTIONS - len(slot.handover)
            slot.handover += fds[:room]
            del fds[:room]
        self._host.session_said(session, message)

    # --- ending -----------------------------------------------------------------------------------------------------

    def pids(self) -> dict[int, Session]:
        return {session.pid: session for session in self.sessions() if session.pid}

    def sessions(self) -> Iterator[Session]:
        for slot in list(self.slots.values()):
            if slot.session is not None:
                yield slot.session

    def kill(self, session: Session, reason: str) -> None:
        """End it at once, with all that it started. Its slot is refilled when its end is known."""
        session.kill_reason = session.kill_reason or reason
        if session.pid:
            linux.kill_group(session.pid)

    def _drain(self, session: Session) -> None:
        session.draining = True
        self.slots[session.slot].row.words[state.LEAVING] = 1
        if session.activated and not session.serving:
            return  # a caller waits for it: it is told once it serves
        if not session.serving:
            self.kill(session, "not needed")
        else:
            self._order(session, "drain")

    def _order(self, session: Session, what: str) -> None:
        # It may be ending, or so busy that it has not read the last order.
        with contextlib.suppress(ChannelClosedError, ChannelFullError):
            session.channel.send({"do": what})

    def exited(self, pid: int, status: int | None) -> None:
        """A session's process is gone; status None when nobody could ask for it."""
        for session in self.sessions():
            if not session.pid:
                self._hear(session)  # it may have told its pid just before
        session_of = self.pids().get(pid)
        if session_of is None:
            return
        self._hear(session_of)  # its last words
        if status is None:
            linux.kill_group_members(pid)  # else done when it was reaped
        self._ended(session_of, self._reason(session_of, status))

    def find_lost(self) -> None:
        """Sessions whose end was known to the template only, and it died before telling."""
        for pid in self.pids():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                self.exited(pid, None)

    def _reason(self, session: Session, status: int | None) -> str:
        if session.kill_reason:
            return session.kill_reason
        if status is None:
            return session.end_reason or "ended with its template"
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == linux.SIGIO:
                return CALLER_GONE
            if number == linux.SIGKILL and self._out_of_memory():
                return "OOMKilled"
            return linux.describe_status(status)
        if session.failure is not None:
            return session.failure[0]
        return session.end_reason or linux.describe_status(status)

    def _out_of_memory(self) -> bool:
        """Whether the kernel killed for memory since this was last asked."""
        before, self._oom_kills = self._oom_kills, self._cgroup.oom_kills()
        return self._oom_kills > before

    def killed_for_memory(self, status: int) -> bool:
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == linux.SIGKILL
        return killed and self._out_of_memory()

    def _ended(self, session: Session, reason: str) -> None:
        slot = self.slots[session.slot]
        if slot.session is not session:
            return
        self._log(
            "session-ended",
            level="info" if session.end_reason or session.draining else "warning",
            slot=slot.number,
            pid=session.pid,
            reason=reason,
            requests=slot.row.words[state.REQUESTS],
            **({"requestId": slot.row.request_id} if slot.row.words[state.BUSY_SINCE] else {}),
        )
        self._loop.forget(session.channel.fileno())
        session.channel.close()
        slot.session = None
        slot.last_end = reason
        slot.row.reset(state.EMPTY)
        self.ends[reason if len(reason) < 40 else "failed to start"] += 1
        # A spare that ends before it serves says nothing of what follows: that is a fork.
        if not session.serving and session.kill_reason != "not needed" and not session.was_spare:
            slot.failures += 1
            wait = back_off_seconds(slot.failures)
            slot.retry_at = self._loop.now() + wait
            self._loop.call_later(wait, self.act)
        self._host.session_ended(slot, session, reason)
        self.act()

    # --- deadlines --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: requests and starts that take too long, idle sessions that may go, slots due for a retry."""
        now, now_ns = self._loop.now(), time.monotonic_ns()
        for slot in list(self.slots.values()):
            session, words = slot.session, slot.row.words
            if session is None:
                continue
            if not session.serving:
                self._check_start(session, now - session.started_at)
            elif words[state.BUSY_SINCE]:
                self._check_request(slot, session)
            elif words[state.STATE] == state.IDLE and not words[state.CONNECTIONS] and not session.draining:
                idle_seconds = (now_ns - words[state.IDLE_SINCE]) / 1e9
                if may_retire(slot, idle_seconds, self.settings):
                    self._order(session, "retire")
        self.act()

    def _check_start(self, session: Session, seconds: float) -> None:
        if not session.pid and not session.own_process:
            if seconds > _FORK_TIMEOUT_SECONDS:
                self._host.template_stuck()
        elif seconds > self.settings.start_timeout_seconds:
            self.kill(session, f"start took longer than {self.settings.start_timeout_seconds:g} s")

    def _check_request(self, slot: Slot, session: Session) -> None:
        busy_since = slot.row.words[state.BUSY_SINCE]
        if slot.session is not session or not busy_since or not session.pid:
            return
        left = seconds_until_overdue(busy_since, time.monotonic_ns(), self.settings)
        if left <= 0:
            self.kill(session, "request timeout")
        elif capture.held_bytes(session.pid) > capture.MAX_HELD_BYTES:
            self.kill(session, "printed too much")
        elif left < 1:
            self._loop.call_later(left, lambda: self._check_request(slot, session))


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket on one address, or on all of both families when no host is given.

    What is set here is inherited by accepted connections: no Nagle delay, and a dead peer is noticed.
    """
    families: Iterable[tuple[socket.AddressFamily, str]]
    if host:
        families = [(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]
    else:
        families = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]
    last: OSError | None = None
    for family, address in families:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # no IPv6 here
            last = error
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and not host:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20)
            sock.bind((address, port))
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            last = error
            continue
        sock.setblocking(False)
        return sock
    raise OSError(f"cannot listen on port {port}: {last}")


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
