"""Passwords and their argon2id hashes.

A login costs the same whether the user exists or not, and never stops the event loop: hashing is done in threads of
its own, few at a time, as each takes 64 MiB and a core. Whoever is not among the next `WAITING_AT_MOST` is told to come
again, so that a flood of logins costs neither memory nor the other requests.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from sessionpools.web.auth.errors import TooManyAttempts

__all__ = ["PARAMETERS", "Passwords", "hash_password", "problem_with_hash"]

# RFC 9106's second recommendation, for where 2 GiB for a login are too much: 64 MiB, 3 passes, 4 lanes. About 0.1 s of
# processor time. A login is needed once in 14 days by who uses refresh tokens, and once an hour by who does not.
PARAMETERS: Final = argon2.profiles.RFC_9106_LOW_MEMORY
# Of the hashes in a users file: below it they are no protection (OWASP's least), above it a login would hurt the pod.
_MEMORY_KIB: Final = (19 * 1024, 256 * 1024)
_PASSES: Final = (2, 16)
_LANES_AT_MOST: Final = 16

VERIFIED_AT_ONCE: Final = 2  # 128 MiB
WAITING_AT_MOST: Final = 32  # at the back of the line one waits for about 2 s
LENGTH_AT_MOST: Final = 1024  # characters; argon2 would take more, nobody types more

_HASHER: Final = argon2.PasswordHasher.from_parameters(PARAMETERS)


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    """What a users file holds in place of `password`: argon2id with its parameters and a random salt, as one line.

    Takes about 0.1 s. With a `salt` (16 bytes) it is the same each time."""
    if not password:
        raise ValueError("a password must not be empty")
    if len(password) > LENGTH_AT_MOST:
        raise ValueError(f"a password has at most {LENGTH_AT_MOST} characters")
    return _HASHER.hash(password, salt=salt)


def problem_with_hash(text: str) -> str:
    """Why `text` can not stand in a users file; "" if it can. The answer does not repeat it: it may be a password."""
    try:
        found = argon2.extract_parameters(text)
    except (InvalidHashError, ValueError):
        return "is no argon2 hash: make one with `sessionpools hash-password`"
    if found.type is not argon2.Type.ID:
        return f"is argon2{found.type.name.lower()}: use argon2id, which `sessionpools hash-password` makes"
    memory, passes = found.memory_cost, found.time_cost
    if memory < _MEMORY_KIB[0] or passes < _PASSES[0]:
        return f"is too weak: use at least m={_MEMORY_KIB[0]},t={_PASSES[0]}, or `sessionpools hash-password`"
    if memory > _MEMORY_KIB[1] or passes > _PASSES[1] or found.parallelism > _LANES_AT_MOST:
        return f"is too costly: use at most m={_MEMORY_KIB[1]},t={_PASSES[1]},p={_LANES_AT_MOST}"
    return ""


class Passwords:
    """Compares passwords with hashes, off the event loop. `close()` it at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(VERIFIED_AT_ONCE, thread_name_prefix="argon2")
        self._nobodys = _HASHER.hash("nobody's")  # what passwords for unknown users are compared with
        self._pending = 0
        self._lock = threading.Lock()

    async def matches(self, password: str, hashed: str | None) -> bool:
        """Whether `hashed` is of `password`. None, for an unknown user, is never, and takes as long as a hash with
        our `PARAMETERS`. Raises TooManyAttempts when too many wait already."""
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
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False
