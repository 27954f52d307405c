"""The one-request loop: what a session does from its start to its end.

A session is one thread that owns its slot's listening socket and runs one request at a time by construction; what is
slow (a caller that sends byte by byte) waits in the poller and holds nobody up. While user code runs, the connection
carries O_ASYNC: the caller's going ends this process by SIGIO's default action, in C code and busy loops too. For this
reason a caller must not pipeline: bytes that arrive before the answer count as going away.

The first bytes of an answer are sent before the call is run: a gateway that has got none of them knows that the call
was not begun, and may give it to another session; one that has got some knows that it must not (callers.begin).

A session closes no connection that it has not told so (`Connection: close`), unless it is killed or its caller is
slower than its deadline. Never talks to anything but its callers and the supervisor. Called by template.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from sessionpools.session import linux, state
from sessionpools.session.callers import Callers
from sessionpools.session.channel import Channel, ChannelClosedError
from sessionpools.session.connection import BEGINNING, LARGE_BYTES, Connection, Refused, Request, failure, head
from sessionpools.session.process import WorkDirectory

_DRAIN_LINGER_SECONDS: Final = 1.0  # so long may an idle caller still send a request and be told "Connection: close"


class Session:
    def __init__(
        self,
        *,
        slot: int,
        listener: socket.socket,
        channel: Channel,
        shared: state.SharedState,
        service: Any,
        work: WorkDirectory,
        pool: str,
        on_console: Callable[[bytes, bytes], None],
    ) -> None:
        self._channel = channel
        self._shared = shared
        self._row = shared.row(slot)
        self._service = service
        self._work = work
        self._on_console = on_console
        self._pid = os.getpid()
        self._callers = Callers(listener, self._row, pool, self._serve_all)
        self._drain_until = 0.0  # 0: not draining
        self._recycled = False  # ends once the uploads that are under way are answered
        self.end_reason = ""

    # --- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, connections: tuple[int, ...] = ()) -> None:
        """Serve until there is a reason to end, then say so and hand idle connections over."""
        self._work.refresh()
        callers = self._callers
        callers.listener.setblocking(False)
        callers.poller.register(self._channel.fileno(), select.EPOLLIN)
        callers.accept_more(True)
        for fd in connections:
            callers.add(socket.socket(fileno=fd))
        self._row.idle(time.monotonic_ns())
        self._channel.send({"idle": True, "pid": self._pid})
        listener_fd, channel_fd = callers.listener.fileno(), self._channel.fileno()
        while not self.end_reason:
            for fd, _ in callers.poller.poll(self._timeout()):
                if fd == listener_fd:
                    callers.accept()
                elif fd == channel_fd:
                    self._command()
                else:
                    connection = callers.connections.get(fd)
                    if connection is not None:
                        callers.read(connection)
                if self.end_reason or self._recycled:
                    break
            if callers.timed:
                self._expire()
            if self._recycled and not self.end_reason and not callers.uploads():
                self.end_reason = "recycled"
            if self._drain_until and not self.end_reason:
                self._drain()
        self._say_end()

    def _timeout(self) -> float | None:
        timed = self._callers.timed
        if not timed and not self._drain_until:
            return None
        deadlines = [connection.deadline for connection in timed.values()]
        if self._drain_until:
            deadlines.append(self._drain_until)
        return max(0.0, min(deadlines) - time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in list(self._callers.timed.values()):
            if self.end_reason:
                return
            if connection.deadline <= now and connection.fd >= 0:
                self._callers.expire(connection)

    # --- serving ----------------------------------------------------------------------------------------------------

    def _serve_all(self, connection: Connection) -> None:
        while connection.requests and connection.fd >= 0 and not self.end_reason:
            request = connection.requests.pop(0)
            if request.method == b"POST":
                self._serve(connection, request)
            else:
                body = failure(f"a session answers POST only, not {request.method.decode('latin-1')}")
                close = not request.keep_alive or bool(self._row.words[state.LEAVING])
                shown = b"" if request.method == b"HEAD" else body
                if self._callers.send(connection, head(405, len(body), request, close), shown) and close:
                    self._callers.close(connection)

    def _serve(self, connection: Connection, request: Request) -> None:
        row, fd = self._row, connection.fd
        begun = self._callers.begin(connection)
        fcntl.fcntl(fd, fcntl.F_SETOWN, self._pid)  # from here on its caller's going ends this process
        # A caller that went just before sent no signal; one that pipelines would be taken for gone.
        if connection.events.poll(0):
            fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
            if connection.gone():
                self._callers.close(connection)
                return
        received = len(request.body)
        started = time.monotonic_ns()
        row.begin(started, request.id)
        answer = self._service.call(request.take_body(), self._work.path)
        ended = time.monotonic_ns()
        fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
        row.end(ended, not answer.success)
        self._decide_end(answer.memory_error)
        close = bool(self.end_reason) or not request.keep_alive or bool(row.words[state.LEAVING])
        payload = answer.body
        sent = len(payload)
        top = head(answer.status, sent, request, close, (ended - started) / 1e6)
        if begun:
            top = top.removeprefix(BEGINNING)
        if self._callers.send(connection, top, payload) and close:
            self._callers.close(connection)
        if answer.console:
            self._on_console(answer.console, request.id)
        del answer, payload
        if received > LARGE_BYTES or sent > LARGE_BYTES:
            linux.malloc_trim()
        if not self.end_reason:
            self._work.refresh()
            row.idle(time.monotonic_ns())

    def _decide_end(self, memory_error: bool) -> None:
        limit = self._shared.recycle_after
        if memory_error:
            self.end_reason = "out of memory"
        elif limit and self._row.words[state.REQUESTS] >= limit:
            self._recycle()

    def _recycle(self) -> None:
        """End, after answering those whose request is arriving. Who is between two requests waits for the successor."""
        if not self._callers.uploads():
            self.end_reason = "recycled"
        elif not self._recycled:
            self._recycled = self._callers.leaving = True
            self._row.words[state.LEAVING] = 1
            self._callers.accept_more(False)
            for connection in self._callers.connections.values():
                if connection.request is None and not connection.lingering:
                    self._callers.poller.modify(connection.fd, 0)

    # --- ending -----------------------------------------------------------------------------------------------------

    def _command(self) -> None:
        try:
            received = self._channel.receive()
        except ChannelClosedError:
            self.end_reason = "supervisor gone"
            return
        order = received[0].get("do") if received else None
        if order == "drain" and not self._drain_until:
            self._callers.leaving = True
            self._drain_until = time.monotonic() + _DRAIN_LINGER_SECONDS
        elif order == "retire" and not self._callers.connections:
            self._callers.accept()
            if not self._callers.connections and not self.end_reason:
                self.end_reason = "idle"

    def _drain(self) -> None:
        """Tell those who still send, then close those who do not."""
        if time.monotonic() < self._drain_until:
            if not self._callers.connections:
                self._callers.accept()
                if not self._callers.connections and not self.end_reason:
                    self.end_reason = "drained"
            return
        self._callers.accept_more(False)
        for connection in list(self._callers.connections.values()):
            if connection.fd not in self._callers.timed and not connection.paused:
                self._callers.close(connection)
        if not self._callers.connections:
            self.end_reason = "drained"
        else:  # an upload is under way: it has its own deadline
            self._drain_until = (
                min(c.deadline for c in self._callers.timed.values()) if self._callers.timed else time.monotonic() + 1
            )

    def _say_end(self) -> None:
        """The last message: why, and the connections that are between two requests, for the slot's next session."""
        idle = []
        for connection in list(self._callers.connections.values()):
            if connection.request is None and not connection.requests and not connection.lingering:
                idle.append(connection.fd)
            elif not connection.lingering:
                self._callers.refuse(connection, Refused(503, "this session ends; send the request again"))
        with contextlib.suppress(ChannelClosedError):
            self._channel.send({"end": self.end_reason}, idle)
