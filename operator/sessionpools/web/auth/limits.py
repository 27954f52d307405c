"""The limit on failed logins: token buckets per user name and per source address. Pure, with an injected clock.

A login takes one token of each bucket that it falls into and gives them back if it succeeds, so only failures count,
and those that are still being verified. An empty bucket says when it has a token again; nothing is ever locked.

- An address has 10 failures, then one each 20 s. IPv6 counts by /64: that is what one customer has.
- A user name has 30 failures, then one each 3 s, whoever they are by: so it takes attackers at seven addresses or more
  to be in its way at all.
- Where a user name has logged in from before, its logins from there fall into a bucket of their own, and into no other:
  attackers elsewhere, or a misconfigured program behind the same proxy, are not in its way.

Each replica has its own buckets: with two, an attacker who reaches both has twice as many attempts. They are forgotten
when it restarts. Of each kind the latest 10,000 are kept.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from sessionpools.web.auth.errors import TooManyAttempts

__all__ = ["Attempt", "Bucket", "LoginLimit", "Rate"]

ENTRIES_AT_MOST: Final = 10_000  # of each kind: callers choose names, and must not choose how much memory this takes


@dataclass(frozen=True, slots=True)
class Rate:
    burst: int
    seconds_per_token: float


PER_ADDRESS: Final = Rate(10, 20.0)
PER_NAME: Final = Rate(30, 3.0)
PER_KNOWN_PAIR: Final = Rate(10, 20.0)


@dataclass(frozen=True, slots=True)
class Bucket:
    """It has `rate.burst` tokens from `full_at` on (seconds), and one less for each `seconds_per_token` before that."""

    rate: Rate
    full_at: float = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 if there is one."""
        return max(self.full_at - now - (self.rate.burst - 1) * self.rate.seconds_per_token, 0.0)

    def less_one(self, now: float) -> Bucket:
        return Bucket(self.rate, max(self.full_at, now) + self.rate.seconds_per_token)

    def plus_one(self) -> Bucket:
        return Bucket(self.rate, self.full_at - self.rate.seconds_per_token)


class _Buckets:
    """The buckets of one kind, as many as are kept; one that is not here is full."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._held: OrderedDict[Hashable, Bucket] = OrderedDict()

    def get(self, key: Hashable) -> Bucket:
        return self._held.get(key) or Bucket(self._rate)

    def put(self, key: Hashable, bucket: Bucket) -> None:
        self._held[key] = bucket
        self._held.move_to_end(key)
        if len(self._held) > ENTRIES_AT_MOST:
            self._held.popitem(last=False)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that was let in, and the buckets that it took from."""

    name: str
    network: str
    taken: tuple[tuple[_Buckets, Hashable], ...]


class LoginLimit:
    """`clock` is in seconds and never goes back."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses = _Buckets(PER_ADDRESS)
        self._names = _Buckets(PER_NAME)
        self._pairs = _Buckets(PER_KNOWN_PAIR)  # those that have succeeded

    def admit(self, name: str, address: str) -> Attempt:
        """Before a password is looked at. Raises TooManyAttempts, which takes nothing."""
        now = self._clock()
        found = [(buckets, key, buckets.get(key)) for buckets, key in self._concerned(name, address)]
        wait = max(bucket.wait(now) for _, _, bucket in found)
        if wait > 0:
            raise TooManyAttempts(max(math.ceil(wait), 1))
        for buckets, key, bucket in found:
            buckets.put(key, bucket.less_one(now))
        return Attempt(name, _network(address), tuple((buckets, key) for buckets, key, _ in found))

    def succeeded(self, attempt: Attempt) -> None:
        """The password was right: the attempt has cost nothing, and name and address are a known pair from now on."""
        self.forget(attempt)
        pair = (attempt.name, attempt.network)
        self._pairs.put(pair, self._pairs.get(pair))

    def forget(self, attempt: Attempt) -> None:
        """It came to no answer: give back what it took."""
        for buckets, key in attempt.taken:
            buckets.put(key, buckets.get(key).plus_one())

    def _concerned(self, name: str, address: str) -> list[tuple[_Buckets, Hashable]]:
        network = _network(address)
        if (name, network) in self._pairs:
            return [(self._pairs, (name, network))]
        return [(self._addresses, network), (self._names, name)]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
