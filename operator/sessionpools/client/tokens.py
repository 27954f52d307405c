"""Tokens: what /login gives, and where a client keeps them.

An access token lasts an hour, a refresh token 14 days, and each refresh brings a new pair; using an old refresh token
twice revokes all of its kin. So a pair is renewed by one at a time: in a process under the driver's lock, between
processes under the store's.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sessionpools.client.errors import AnswerInvalid

__all__ = ["Identity", "InMemory", "Store", "Tokens", "identity_of"]

RENEW_BEFORE_SECONDS: Final = 60.0  # a token has to outlive the request that carries it and the servers' clocks
_RENEW_BEFORE_SHARE: Final = 0.2  # of its life at most, where that is short


@dataclass(frozen=True, slots=True)
class Tokens:
    """Times are seconds since the epoch, by this machine's clock."""

    access: str
    expires_at: float | None = None  # None: nobody knows, it is used until it is refused
    refresh: str = ""
    lifetime: float | None = None

    def fresh_at(self, now: float) -> bool:
        """Whether it is worth sending."""
        if self.expires_at is None:
            return True
        margin = RENEW_BEFORE_SECONDS
        if self.lifetime is not None:
            margin = min(margin, self.lifetime * _RENEW_BEFORE_SHARE)
        return now < self.expires_at - margin

    @classmethod
    def parse(cls, body: Any, now: float, previous: "Tokens | None" = None) -> "Tokens":
        """From the answer of /login. Raises AnswerInvalid."""
        fields = body if isinstance(body, Mapping) else {}
        access = fields.get("access_token")
        if not isinstance(access, str) or not access:
            raise AnswerInvalid("POST /login: the answer has no access_token: is this the address of Session Pools?")
        try:
            lifetime = float(fields.get("expires_in") or 3600)
        except (TypeError, ValueError):
            lifetime = 3600.0
        refresh = fields.get("refresh_token")
        if refresh is None:  # an empty one says that there is none any more
            refresh = previous.refresh if previous else ""
        return cls(access, now + lifetime, str(refresh), lifetime)


class Store(Protocol):
    """Where tokens are kept between requests, or between processes."""

    def load(self) -> Tokens | None: ...

    def save(self, tokens: Tokens | None) -> None: ...

    def try_lock(self) -> AbstractContextManager[object] | None:
        """Nobody else renews within it; None: somebody else does now, maybe on this very thread."""
        ...


class InMemory:
    """For as long as the client lives."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def try_lock(self) -> AbstractContextManager[object] | None:
        return nullcontext()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token says that its bearer is. The server alone checks it."""

    user: str
    role: str
    expires_at: float | None


def identity_of(token: str) -> Identity | None:
    """What the token says; None for one that is no JWT."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return None
    if not isinstance(claims, dict):
        return None
    expires = claims.get("exp")
    return Identity(
        str(claims.get("sub") or ""),
        str(claims.get("role") or ""),
        float(expires) if isinstance(expires, int | float) else None,
    )
