"""The connections of a session: accepts, reads, refuses and closes them, and sends answers.

What is slow (a caller that sends byte by byte) waits in the poller and holds nobody up; whole requests go to who serves
them. One thread, never blocks but in `send`, never runs user code. Called by the one-request loop (session.py).
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
from typing import Final

from sessionpools.session import state
from sessionpools.session.channel import MAX_CONNECTIONS
from sessionpools.session.connection import (
    BEGINNING,
    GRACE_SECONDS,
    MIB,
    Connection,
    Refused,
    failure,
    head,
    pool_uid,
)

_CHUNK_BYTES: Final = 256 * 1024  # one recv; larger saves little
_JOIN_BYTES: Final = 32 * 1024  # below this, copying head and body together is cheaper than sendmsg
_LINGER_SECONDS: Final = 2.0  # a refused caller has this long to read the answer before the socket is closed
_ACCEPT_TRANSIENT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Callers:
    def __init__(
        self, listener: socket.socket, row: state.Row, pool: str, on_requests: Callable[[Connection], None]
    ) -> None:
        """`on_requests`: a connection has whole requests, to be served and taken off its list."""
        self.listener = listener
        self.connections: dict[int, Connection] = {}
        self.timed: dict[int, Connection] = {}  # those with a deadline: incomplete requests, refused callers
        self.poller = select.epoll()
        self.leaving = False  # the session is to end: accepting, once stopped, is not taken up again
        self._row = row
        self._pool = pool_uid(pool.encode("latin-1"))
        self._on_requests = on_requests
        self._large: Connection | None = None  # whose large body is being read
        self._buffer = memoryview(mmap.mmap(-1, _CHUNK_BYTES))  # takes memory only as far as requests fill it
        self._accepting = False

    def accept_more(self, wanted: bool) -> None:
        if wanted != self._accepting:
            self._accepting = wanted
            if wanted:
                self.poller.register(self.listener.fileno(), select.EPOLLIN)
            else:
                self.poller.unregister(self.listener.fileno())

    def accept(self) -> None:
        if len(self.connections) >= MAX_CONNECTIONS and not self._make_room():
            self.accept_more(False)  # until a request is complete or a connection closes
            return
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _ACCEPT_TRANSIENT:
                self.accept_more(False)  # as above
            return
        self.read(self.add(sock))  # the request usually came with the connection

    def _make_room(self) -> bool:
        """Close the connection that has been silent for longest. Those with half a request have a deadline."""
        for connection in self.connections.values():
            if connection.request is None:
                self.close(connection)
                return True
        return False

    def add(self, sock: socket.socket) -> Connection:
        sock.settimeout(0)
        connection = Connection(sock, self._pool)
        # Signals go to nobody but during a call: changing the owner is cheaper than changing the flag.
        fcntl.fcntl(connection.fd, fcntl.F_SETOWN, 0)
        fcntl.fcntl(connection.fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        self.connections[connection.fd] = connection
        self.poller.register(connection.fd, select.EPOLLIN)
        self._row.words[state.CONNECTIONS] = len(self.connections)
        return connection

    def close(self, connection: Connection) -> None:
        self.connections.pop(connection.fd, None)
        self.timed.pop(connection.fd, None)
        # epoll forgets it only with its last descriptor, which a subprocess may hold.
        self.poller.unregister(connection.fd)
        with contextlib.suppress(OSError):  # a subprocess that holds it keeps the caller waiting for its end
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.sock.close()
        connection.fd = -1
        self._row.words[state.CONNECTIONS] = len(self.connections)
        self._release_large(connection)
        if not self._accepting:
            self._accept_again()

    def _accept_again(self) -> None:
        if not self.leaving:
            self.accept_more(True)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, connection: Connection) -> None:
        try:
            count = connection.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self.close(connection)
            return
        if count == 0 or connection.paused:  # paused: only a hang-up or an error wakes us
            self.close(connection)
            return
        if connection.lingering:
            return
        self.connections[connection.fd] = self.connections.pop(connection.fd)  # the last to have spoken
        try:
            connection.feed(self._buffer[:count])
        except Refused as refusal:
            self.refuse(connection, refusal)
            return
        if connection.requests:
            self.timed.pop(connection.fd, None)
            if not self._accepting:
                self._accept_again()
            self._release_large(connection)
            self._on_requests(connection)
        if connection.request is not None and connection.fd >= 0:
            self._wait_for_rest(connection)

    def _wait_for_rest(self, connection: Connection) -> None:
        """A request is not complete: give it a deadline, a go-ahead, or make it wait for another large one."""
        request = connection.request
        assert request is not None  # noqa: S101
        if connection.fd not in self.timed:
            connection.started = time.monotonic()
            self.timed[connection.fd] = connection
        connection.deadline = connection.started + connection.time_allowed()
        if connection.large:
            if self._large is None:
                self._large = connection
            elif self._large is not connection:
                connection.paused = True
                self.poller.modify(connection.fd, 0)
                self.timed.pop(connection.fd)
                return
        if connection.in_body and request.expects:
            request.expects = False
            self.send(connection, b"HTTP/1.1 100 Continue\r\n\r\n", b"")

    def _release_large(self, connection: Connection) -> None:
        if self._large is not connection:
            return
        self._large = None
        for waiting in self.connections.values():
            if waiting.paused:
                waiting.paused = False
                self.poller.modify(waiting.fd, select.EPOLLIN)
                self._wait_for_rest(waiting)
                return

    def expire(self, connection: Connection) -> None:
        """Its deadline has passed."""
        if connection.lingering:
            self.close(connection)
        elif connection.events.poll(0):
            self.read(connection)  # it came in time, while this session was busy
        else:
            seconds = connection.time_allowed()
            self.refuse(connection, Refused(408, f"the request did not arrive within {seconds:.0f} s"))

    def refuse(self, connection: Connection, refusal: Refused) -> None:
        """Answer a request that is not read to its end, and let the caller read the answer before the socket closes."""
        body = failure(refusal.message)
        request = connection.request
        connection.request = None
        connection.requests.clear()
        self._release_large(connection)
        if not self.send(connection, head(refusal.status, len(body), request, close=True), body):
            return
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(connection)
            return
        connection.lingering = True
        connection.deadline = time.monotonic() + _LINGER_SECONDS
        self.timed[connection.fd] = connection

    # --- answering --------------------------------------------------------------------------------------------------

    def begin(self, connection: Connection) -> bool:
        """Send the first bytes of the answer to a call that is about to run; whether they were sent.

        HAProxy closes a caller's kept connection without a word when a session brings no byte of an answer and dies
        (http_wait_for_response in its http_ana.c, TX_NOT_FIRST); with these it answers 502. The kernel keeps them back
        for the rest of the answer, at most 200 ms (tcp(7), TCP_CORK), and sends them if this process dies before. Sent
        at once they cost HAProxy 50 µs and this process 30 a call, kept back 6 and 3."""
        try:
            return connection.sock.send(BEGINNING, socket.MSG_MORE) == len(BEGINNING)
        except OSError:  # its buffer is full, or it has gone: what follows finds that out
            return False

    def send(self, connection: Connection, top: bytes, body: bytes) -> bool:
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
            self.close(connection)
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
                    self.close(connection)
                    return False
        return True

    def uploads(self) -> bool:
        return any(connection.request is not None for connection in self.connections.values())
