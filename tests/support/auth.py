"""What tests of authentication share: a clock that stands until it is moved, and what is slow to make, made once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from sessionpools.core.passwords import SALT_BYTES, hash_password
from sessionpools.web.auth.keys import Key, make_key

NOON = 1_800_014_400.0  # 2027-01-15T12:00:00Z
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@cache
def rsa_key(number: int = 0) -> Key:
    """One of several keys, the same in a whole run."""
    return make_key(NOON, int(NOON))


@cache
def hashed(password: str) -> str:
    """A real hash of it, the same each time: tests that it names are the same in each process."""
    return hash_password(password, hashlib.sha256(password.encode()).digest()[:SALT_BYTES])
