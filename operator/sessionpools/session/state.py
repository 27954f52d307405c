"""Shared memory of a session pod: one row per slot, written by its session and read by the supervisor.

A session says that it is busy by storing a number: no system call, no message. A row is written by the one session that
holds the slot, and by the supervisor while no session does; the header by the supervisor only. Stores of aligned 8-byte
words are atomic on the machines that we run on. Never holds anything that a request depends on.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from sessionpools.session.config import MAX_SLOTS

EMPTY: Final = 0
STARTING: Final = 1
IDLE: Final = 2
BUSY: Final = 3
NAMES: Final = ("empty", "starting", "idle", "busy")

# A row is 32 words of 8 bytes; rows do not share cache lines.
_WORDS: Final = 32
STATE: Final = 0
REQUESTS: Final = 1  # answered by the session that holds the slot
BUSY_SINCE: Final = 2  # CLOCK_MONOTONIC ns at which the user's code was entered; 0 outside of it
IDLE_SINCE: Final = 3
CONNECTIONS: Final = 4
TOTAL_REQUESTS: Final = 5  # by all sessions of the slot
TOTAL_BUSY_NS: Final = 6
TOTAL_FAILED: Final = 7  # answers with success=false
WARMING: Final = 8  # the supervisor's warm-up call is under way: it does not count as a request
LEAVING: Final = 9  # the session is to end: its answers say "Connection: close"
_ID_LENGTH: Final = 10
_ID_WORD: Final = 11
ID_BYTES: Final = 128  # longer request ids are cut

_SIZE: Final = (MAX_SLOTS + 1) * _WORDS * 8
_RECYCLE_AFTER: Final = 0


class SharedState:
    """The whole memory; row -1 is the header."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        memory = mmap.mmap(fd, _SIZE)
        self._words: memoryview[int] = memoryview(memory).cast("Q")
        self._bytes = memoryview(memory)

    @classmethod
    def create(cls) -> SharedState:
        fd = os.memfd_create("session-pools-state", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    def row(self, slot: int) -> Row:
        start = (slot + 1) * _WORDS
        return Row(
            self._words[start : start + _WORDS],
            self._bytes[(start + _ID_WORD) * 8 : (start + _ID_WORD) * 8 + ID_BYTES],
        )

    @property
    def recycle_after(self) -> int:
        return self._words[_RECYCLE_AFTER]

    @recycle_after.setter
    def recycle_after(self, value: int) -> None:
        self._words[_RECYCLE_AFTER] = value


class Row:
    """One slot's words, by the constants of this module."""

    __slots__ = ("_id", "words")

    def __init__(self, words: memoryview[int], request_id: memoryview[int]) -> None:
        self.words = words
        self._id = request_id

    def begin(self, now_ns: int, request_id: bytes) -> None:
        words = self.words
        if request_id:
            length = min(len(request_id), ID_BYTES)
            self._id[:length] = request_id[:length]
            words[_ID_LENGTH] = length
        else:
            words[_ID_LENGTH] = 0
        words[BUSY_SINCE] = now_ns
        words[STATE] = BUSY

    def end(self, now_ns: int, failed: bool) -> None:
        """The user's code is left. The slot stays busy until `idle`, as the answer is still to be sent."""
        words = self.words
        if not words[WARMING]:
            words[REQUESTS] += 1
            words[TOTAL_REQUESTS] += 1
            words[TOTAL_BUSY_NS] += now_ns - words[BUSY_SINCE]
            if failed:
                words[TOTAL_FAILED] += 1
        words[BUSY_SINCE] = 0

    def idle(self, now_ns: int) -> None:
        self.words[IDLE_SINCE] = now_ns
        self.words[STATE] = IDLE

    def reset(self, state: int) -> None:
        """By the supervisor: a session is about to take the slot, or has left it."""
        for index in (REQUESTS, BUSY_SINCE, IDLE_SINCE, CONNECTIONS, WARMING, LEAVING, _ID_LENGTH):
            self.words[index] = 0
        self.words[STATE] = state

    @property
    def request_id(self) -> str:
        return bytes(self._id[: min(self.words[_ID_LENGTH], ID_BYTES)]).decode("latin-1")
