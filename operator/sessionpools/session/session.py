"""The one-request loop: what a session does from its start to its end.

A session is one thread that owns its slot's listening socket and runs one request at a time by construction; what is
slow (a caller that sends byte by byte) waits in the poller and holds nobody up. While user code runs, the connection
carries O_ASYNC: the caller's going ends this process by SIGIO's default action, in C code and busy loops too. For this
reason a caller must not pipeline: bytes that arrive before the answer count as going away.

A session closes no connection that it has not told so (`Connection: close`), unless it is killed or its caller is
slower than its deadline. Never talks to anything but its callers and the supervisor. Called by template.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from sessionpools.session import linux, state
from sessionpools.session.channel import MAX_CONNECTIONS, Channel, ChannelClosedError
from sessionpools.session.connection import (
    GRACE_SECONDS,
    LARGE_BYTES,
    MIB,
    Connection,
    Refused,
    Request,
    failure,
    head,
    pool_uid,
)
from sessionpools.session.process import WorkDirectory

_CHUNK_BYTES: Final = 256 * 1024  # one recv; larger saves little
_JOIN_BYTES: Final = 32 * 1024  # below this, copying head and body together is cheaper than sendmsg
_LINGER_SECONDS: Final = 2.0  # a refused caller has this long to read the answer before the socket is closed
_DRAIN_LINGER_SECONDS: Final = 1.0  # so long may an idle caller still send a request and be told "Connection: close"
_ACCEPT_TRANSIENT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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
        self._listener = listener
        self._channel = channel
        self._shared = shared
        self._row = shared.row(slot)
        self._service = service
        self._work = work
        self._pool = pool_uid(pool.encode("latin-1"))
        self._on_console = on_console
        self._pid = os.getpid()
        self._connections: dict[int, Connection] = {}
        self._timed: dict[int, Connection] = {}  # those with a deadline: incomplete requests, refused callers
        self._large: Connection | None = None  # whose large body is being read
        self._buffer = memoryview(mmap.mmap(-1, _CHUNK_BYTES))  # takes memory only as far as requests fill it
        self._poller = select.epoll()
        self._drain_until = 0.0  # 0: not draining
        self._recycled = False  # ends once the uploads that are under way are answered
        self._accepting = False
        self.end_reason = ""

    # --- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, connections: tuple[int, ...] = ()) -> None:
        """Serve until there is a reason to end, then say so and hand idle connections over."""
        self._work.refresh()
        self._listener.setblocking(False)
        self._poller.register(self._channel.fileno(), select.EPOLLIN)
        self._accept_more(True)
        for fd in connections:
            self._add(socket.socket(fileno=fd))
        self._row.idle(time.monotonic_ns())
        self._channel.send({"idle": True, "pid": self._pid})
        listener_fd, channel_fd = self._listener.fileno(), self._channel.fileno()
        while not self.end_reason:
            for fd, _ in self._poller.poll(self._timeout()):
                if fd == listener_fd:
                    self._accept()
                elif fd == channel_fd:
                    self._command()
                else:
                    connection = self._connections.get(fd)
                    if connection is not None:
                        self._read(connection)
                if self.end_reason or self._recycled:
                    break
            if self._timed:
                self._expire()
            if self._recycled and not self.end_reason and not self._uploads():
                self.end_reason = "recycled"
            if self._drain_until and not self.end_reason:
                self._drain()
        self._say_end()

    def _timeout(self) -> float | None:
        if not self._timed and not self._drain_until:
            return None
        deadlines = [connection.deadline for connection in self._timed.values()]
        if self._drain_until:
            deadlines.append(self._drain_until)
        return max(0.0, min(deadlines) - time.monotonic())

    def _accept_more(self, wanted: bool) -> None:
        if wanted != self._accepting:
            self._accepting = wanted
            if wanted:
                self._poller.register(self._listener.fileno(), select.EPOLLIN)
            else:
                self._poller.unregister(self._listener.fileno())

    def _accept(self) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            self._accept_more(False)  # until a request is complete or a connection closes
            return
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _ACCEPT_TRANSIENT:
                self._accept_more(False)  # as above
            return
        self._read(self._add(sock))  # the request usually came with the connection

    def _make_room(self) -> bool:
        """Close the connection that has been silent for longest. Those with half a request have a deadline."""
        for connection in self._connections.values():
            if connection.request is None:
                self._close(connection)
                return True
        return False

    def _add(self, sock: socket.socket) -> Connection:
        sock.settimeout(0)
        connection = Connection(sock, self._pool)
        # Signals go to nobody but during a call: changing the owner is cheaper than changing the flag.
        fcntl.fcntl(connection.fd, fcntl.F_SETOWN, 0)
        fcntl.fcntl(connection.fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        self._connections[connection.fd] = connection
        self._poller.register(connection.fd, select.EPOLLIN)
        self._row.words[state.CONNECTIONS] = len(self._connections)
        return connection

    def _close(self, connection: Connection) -> None:
        self._connections.pop(connection.fd, None)
        self._timed.pop(connection.fd, None)
        # epoll forgets it only with its last descriptor, which a subprocess may hold.
        self._poller.unregister(connection.fd)
        with contextlib.suppress(OSError):  # a subprocess that holds it keeps the caller waiting for its end
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.sock.close()
        connection.fd = -1
        self._row.words[state.CONNECTIONS] = len(self._connections)
        self._release_large(connection)
        if not self._accepting:
            self._accept_again()

    def _accept_again(self) -> None:
        if not self._drain_until and not self._recycled:
            self._accept_more(True)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        try:
            count = connection.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        if count == 0 or connection.paused:  # paused: only a hang-up or an error wakes us
            self._close(connection)
            return
        if connection.lingering:
            return
        self._connections[connection.fd] = self._connections.pop(connection.fd)  # the last to have spoken
        try:
            connection.feed(self._buffer[:count])
        except Refused as refusal:
            self._refuse(connection, refusal)
            return
        if connection.requests:
            self._serve_all(connection)
        if connection.request is not None and connection.fd >= 0:
            self._wait_for_rest(connection)

    def _wait_for_rest(self, connection: Connection) -> None:
        """A request is not complete: give it a deadline, a go-ahead, or make it wait for another large one."""
        request = connection.request
        assert request is not None  # noqa: S101
        if connection.fd not in self._timed:
            connection.started = time.monotonic()
            self._timed[connection.fd] = connection
        connection.deadline = connection.started + connection.time_allowed()
        if connection.large:
            if self._large is None:
                self._large = connection
            elif self._large is not connection:
                connection.paused = True
                self._poller.modify(connection.fd, 0)
                self._timed.pop(connection.fd)
                return
        if connection.in_body and request.expects:
            request.expects = False
            self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n", b"")

    def _release_large(self, connection: Connection) -> None:
        if self._large is not connection:
            return
        self._large = None
        for waiting in self._connections.values():
            if waiting.paused:
                waiting.paused = False
                self._poller.modify(waiting.fd, select.EPOLLIN)
                self._wait_for_rest(waiting)
                return

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in list(self._timed.values()):
            if connection.deadline > now or connection.fd < 0:
                continue
            if self.end_reason:
                return
            if connection.lingering:
                self._close(connection)
            elif connection.events.poll(0):
                self._read(connection)  # it came in time, while this session was busy
            else:
                seconds = connection.time_allowed()
                self._refuse(connection, Refused(408, f"the request did not arrive within {seconds:.0f} s"))

    def _refuse(self, connection: Connection, refusal: Refused) -> None:
        """Answer a request that is not read to its end, and let the caller read the answer before the socket closes."""
        body = failure(refusal.message)
        request = connection.request
        connection.request = None
        connection.requests.clear()
        self._release_large(connection)
        if not self._send(connection, head(refusal.status, len(body), request, close=True), body):
            return
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.lingering = True
        connection.deadline = time.monotonic() + _LINGER_SECONDS
        self._timed[connection.fd] = connection

    # --- serving ----------------------------------------------------------------------------------------------------

    def _serve_all(self, connection: Connection) -> None:
        if self._timed:
            self._timed.pop(connection.fd, None)
        if not self._accepting:
            self._accept_again()
        self._release_large(connection)
        while connection.requests and connection.fd >= 0 and not self.end_reason:
            request = connection.requests.pop(0)
            if request.method == b"POST":
                self._serve(connection, request)
            else:
                body = failure(f"a session answers POST only, not {request.method.decode('latin-1')}")
                close = not request.keep_alive or bool(self._row.words[state.LEAVING])
                shown = b"" if request.method == b"HEAD" else body
                if self._send(connection, head(405, len(body), request, close), shown) and close:
                    self._close(connection)

    def _serve(self, connection: Connection, request: Request) -> None:
        row, fd = self._row, connection.fd
        fcntl.fcntl(fd, fcntl.F_SETOWN, self._pid)  # from here on its caller's going ends this process
        # A caller that went just before sent no signal; one that pipelines would be taken for gone.
        if connection.events.poll(0):
            fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
            if connection.gone():
                self._close(connection)
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
        if self._send(connection, top, payload) and close:
            self._close(connection)
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
        if not self._uploads():
            self.end_reason = "recycled"
        elif not self._recycled:
            self._recycled = True
            self._row.words[state.LEAVING] = 1
            self._accept_more(False)
            for connection in self._connections.values():
                if connection.request is None and not connection.lingering:
                    self._poller.modify(connection.fd, 0)

    def _uploads(self) -> bool:
        return any(connection.request is not None for connection in self._connections.values())

    def _send(self, connection: Connection, top: bytes, body: bytes) -> bool:
        """Whether all of it was sent; if not, the connection is closed."""
        try:
            if len(body) <= _JOIN_BYTES:
                sent = connection.sock.send(top + body)
            else:
                sent = connection.sock.sendmsg((top, body))
            if sent == len(top) + len(body):
                return True
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return False
        return self._send_rest(connection, (memoryview(top), memoryview(body)), sent)

    def _send_rest(self, connection: Connection, parts: tuple[memoryview, ...], sent: int) -> bool:
        """A caller that reads slowly holds this session until its answer's deadline, and is then cut off."""
        total = sum(len(part) for part in parts)
        deadline = time.monotonic() + GRACE_SECONDS + total / MIB
        poller = select.poll()
        poller.register(connection.fd, select.POLLOUT)
        offset = 0
        for part in parts:
            position = max(0, sent - offset)
            offset += len(part)
            while position < len(part):
                left = deadline - time.monotonic()
                try:
                    if left <= 0 or not poller.poll(left * 1000):
                        raise TimeoutError
                    position += connection.sock.send(part[position:])
                except BlockingIOError:
                    continue
                except OSError:  # TimeoutError is one
                    self._close(connection)
                    return False
        return True

    # --- ending -----------------------------------------------------------------------------------------------------

    def _command(self) -> None:
        try:
            received = self._channel.receive()
        except ChannelClosedError:
            self.end_reason = "supervisor gone"
            return
        order = received[0].get("do") if received else None
        if order == "drain" and not self._drain_until:
            self._drain_until = time.monotonic() + _DRAIN_LINGER_SECONDS
        elif order == "retire" and not self._connections:
            self._accept()
            if not self._connections and not self.end_reason:
                self.end_reason = "idle"

    def _drain(self) -> None:
        """Tell those who still send, then close those who do not."""
        if time.monotonic() < self._drain_until:
            if not self._connections:
                self._accept()
                if not self._connections and not self.end_reason:
                    self.end_reason = "drained"
            return
        self._accept_more(False)
        for connection in list(self._connections.values()):
            if connection.fd not in self._timed and not connection.paused:
                self._close(connection)
        if not self._connections:
            self.end_reason = "drained"
        else:  # an upload is under way: it has its own deadline
            self._drain_until = min(c.deadline for c in self._timed.values()) if self._timed else time.monotonic() + 1

    def _say_end(self) -> None:
        """The last message: why, and the connections that are between two requests, for the slot's next session."""
        idle = []
        for connection in list(self._connections.values()):
            if connection.request is None and not connection.requests and not connection.lingering:
                idle.append(connection.fd)
            elif not connection.lingering:
                self._refuse(connection, Refused(503, "this session ends; send the request again"))
        with contextlib.suppress(ChannelClosedError):
            self._channel.send({"end": self.end_reason}, idle)
