"""Messages between the processes of a session pod: JSON objects, with descriptors, over a SOCK_SEQPACKET socket.

The supervisor holds one end of a channel to the template and of one to each session. Its ends never block: a process
that does not read cannot stop it. Messages:

    supervisor -> template   {"fork": slot, "max": slots} + listener, the session's channel, connections
    supervisor -> session    {"do": "drain" | "retire"}
    template -> supervisor   {"phase": "import numpy"}, {"loaded": {...}}, {"failed": {"summary", "details"}},
                             {"forked": slot, "pid": pid}, {"unforked": slot, "why": text}, {"exited": pid, "status": n}
    session -> supervisor    {"pid": pid} once it lives, {"idle": true} once it serves, {"failed": ...},
                             {"end": reason} + connections that its successor serves on; "phase" and "loaded" as the
                             template does, when it loads for itself
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

_MESSAGE_BYTES = 64 * 1024
_MAX_FDS = 253  # SCM_MAX_FD
MAX_CONNECTIONS = 240  # of a session: they go to its successor in one message, with what else that needs
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
            data, fds, _, _ = socket.recv_fds(self.sock, _MESSAGE_BYTES, _MAX_FDS)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosedError from error
        if not data:
            raise ChannelClosedError
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            message: Message = json.loads(data)
        except (ValueError, RecursionError):
            message = {}
        if not isinstance(message, dict) or not message:
            for fd in fds:
                os.close(fd)
            raise BadMessageError
        return message, fds

    def close(self) -> None:
        self.sock.close()
