"""What a password is made into before it is kept, its argon2id hash: for the web API and `sessionpools hash-password`.

Pure, but for the time that it takes: 0.1 s and 64 MiB, on purpose.
"""

from __future__ import annotations

from typing import Final

import argon2
from argon2.exceptions import InvalidHashError

__all__ = ["HASHER", "LENGTH_AT_MOST", "SALT_BYTES", "hash_password", "problem_with_hash"]

# RFC 9106's second recommendation, for where 2 GiB for a login are too much: 64 MiB, 3 passes, 4 lanes. About 0.1 s of
# processor time. A login is needed once in 14 days by who uses refresh tokens, and once an hour by who does not.
HASHER: Final = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)
SALT_BYTES: Final = 16
LENGTH_AT_MOST: Final = 1024  # characters; argon2 would take more, nobody types more

# Of the hashes in a users file: below it they are no protection (OWASP's least), above it a login would hurt the pod.
_MEMORY_KIB: Final = (19 * 1024, 256 * 1024)
_PASSES: Final = (2, 16)
_LANES_AT_MOST: Final = 16


def hash_password(password: str, salt: bytes) -> str:
    """The hash of `password` with its parameters and the salt (`SALT_BYTES`, random), as one line of ASCII.

    Raises ValueError for a password that is empty or too long."""
    if not password:
        raise ValueError("a password must not be empty")
    if len(password) > LENGTH_AT_MOST:
        raise ValueError(f"a password has at most {LENGTH_AT_MOST} characters")
    return HASHER.hash(password, salt=salt)


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
