"""Messages between the processes of a session pod: JSON objects, with descriptors, over a SOCK_SEQPACKET socket.

The supervisor holds one end of a channel to the template and of one to each session. Its ends never block: a process
that does not read cannot stop it. Messages:

    supervisor -> template   {"fork": slot, "max": slots} + the session's channel, listener, connections;
                             {"fork": -1, "max": slots} + channel for a spare session (-2, -3: others)
    supervisor -> spare      {"serve": slot} + the session's channel, listener, connections: it is that session now
    supervisor -> session    {"do": "drain" | "retire"}
    template -> supervisor   {"phase": "import numpy"}, {"loaded": {...}}, {"failed": {"summary", "details"}},
                             {"forked": slot, "pid": pid}, {"unforked": slot, "why": text}, {"exited": pid, "status": n}
    session -> supervisor    {"pid": pid} once it lives, {"idle": true} once it serves, {"failed": ...},
                             {"end": reason} + connections that its successor serves on; "phase" and "loaded" as the
                             template does, when it loads for itself
    spare -> supervisor      {"pid": pid}, {"spare": true} once it waits for a slot, {"failed": ...}
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

_MESSAGE_BYTES = 64 * 1024
_MAX_FDS = 253  # SCM_MAX_FD
_FDS_BYTES = socket.CMSG_LEN(_MAX_FDS * array.array("i").itemsize)
MAX_CONNECTIONS = 240  # of a session: they go to its successor in one message, with what else that needs
SPARE: Final = -1  # the slot of a session that has none yet; of others -2, -3
Message = dict[str, Any]


class ChannelClosedError(Exception):
    """The process at the other end is gone."""


class ChannelFullError(Exception):
    """The process at the other end does not read."""


class BadMessageError(Exception):
    """The process at the other end, in which user code runs, sent what is no message."""


class Channel:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """(the supervisor's end, the other end)"""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        data = json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace")
        if len(data) > _MESSAGE_BYTES:
            raise ValueError(f"message of {len(data)} bytes")
        try:
            if fds:
                socket.send_fds(self.sock, [data], list(fds))
            else:
                self.sock.send(data)
        except BlockingIOError as error:
            raise ChannelFullError from error
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message, or None when there is none now. Raises ChannelClosedError at the end, BadMessageError."""
        try:
            return self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def wait(self) -> tuple[Message, list[int]]:
        """The next message, whenever it comes, on an end that may block. Raises as `receive` does."""
        return self._receive(0)

    def _receive(self, flags: int) -> tuple[Message, list[int]]:
        try:
            # socket.recv_fds ignores its flags before Python 3.12.
            data, ancillary, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, _FDS_BYTES, flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosedError from error
        if not data:
            raise ChannelClosedError
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            message: Message = json.loads(data)
        except (ValueError, RecursionError):
            message = {}
        if not isinstance(message, dict) or not message:
            for fd in fds:
                os.close(fd)
            raise BadMessageError
        return message, fds.tolist()

    def close(self) -> None:
        self.sock.close()
