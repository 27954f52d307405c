"""Passwords are compared with their hashes in threads, few at a time.

A login costs the same whether the user exists or not, and never stops the event loop. As each takes 64 MiB and a core,
whoever is not among the next `WAITING_AT_MOST` is told to come again: a flood of logins costs neither memory nor the
other requests.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2.exceptions import InvalidHashError, VerificationError

from sessionpools.core.passwords import HASHER, LENGTH_AT_MOST
from sessionpools.web.auth.errors import TooManyAttempts

__all__ = ["Passwords"]

VERIFIED_AT_ONCE: Final = 2  # 128 MiB
WAITING_AT_MOST: Final = 32  # whoever is behind these waits less by coming again


class Passwords:
    """Compares passwords with hashes, off the event loop. `close()` it at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(VERIFIED_AT_ONCE, thread_name_prefix="argon2")
        self._nobodys = HASHER.hash("nobody's")  # what passwords for unknown users are compared with
        self._pending = 0
        self._lock = threading.Lock()

    async def matches(self, password: str, hashed: str | None) -> bool:
        """Whether `hashed` is of `password`. None, for an unknown user, never is, and takes as long as a hash that
        `sessionpools hash-password` makes. Raises TooManyAttempts when too many wait already."""
        with self._lock:
            if self._pending >= VERIFIED_AT_ONCE + WAITING_AT_MOST:
                raise TooManyAttempts(1)
            self._pending += 1
        work = self._threads.submit(_matches, password, hashed or self._nobodys)
        work.add_done_callback(self._done)  # not when the caller goes away: what is in a thread goes on
        return await asyncio.wrap_future(work) and hashed is not None

    def _done(self, _: object) -> None:
        with self._lock:
            self._pending -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _matches(password: str, hashed: str) -> bool:
    if len(password) > LENGTH_AT_MOST:
        return False
    try:
        return HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):  # half of a surrogate pair is no text
        return False
