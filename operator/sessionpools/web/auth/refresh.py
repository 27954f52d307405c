"""Refresh tokens: what an hour of access is prolonged with, for 14 days at a time and for 90 days at most.

A token is 48 random bytes in base64url: 16 that name the login it stems from (its family), 32 that are its secret. Of a
family there is one object in the store, with the SHA-256 of the secret that is valid now. Each use replaces it, by
compare-and-swap, so that of two replicas one does it.

Who presents a secret of a family that is not the valid one has, or had, a token of that family, as nobody else knows
the family's name. It is a thief, or the owner whose token a thief has used: the whole family ends, and both log in
again. But answers get lost: the token that was replaced last is taken for another `RETRY_SECONDS`, and answered with
the same successor. For that the successor is kept encrypted with its predecessor's secret, which is not kept; so who
reads the store can not use what they read.

At each use the user is looked up again: one who is gone, or whose password has changed since, is refused.

Raises RefreshRefused, and the store's StoreUnavailable.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sessionpools.web.auth.errors import RefreshRefused
from sessionpools.web.auth.identity import Identity
from sessionpools.web.store.errors import Changed, NotFound
from sessionpools.web.store.objects import ObjectStore, Version

__all__ = ["Family", "Redeemed", "RefreshTokens", "Verdict", "judge", "replaced", "started", "successor_of"]

_log = logging.getLogger(__name__)

LIFE_SECONDS: Final = 14 * 24 * 3600  # Machine Learning Server's: 14 days without use
CHAIN_SECONDS: Final = 90 * 24 * 3600  # and after this long log in again
RETRY_SECONDS: Final = 30  # a caller that got no answer has given up or asked again by then
PREFIX: Final = "auth/refresh"
_FAMILY_BYTES: Final = 16
_SECRET_BYTES: Final = 32
# What nobody can use any more goes a day later: the store's clock may be another's.
_KEPT_SECONDS: Final = LIFE_SECONDS + 24 * 3600
_ATTEMPTS: Final = 5


class Family(BaseModel):
    """What is kept of a login. Times are in whole seconds since the epoch, digests and ciphertext in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    user: str
    stamp: str  # of the identity at login: another one now means that the password has changed
    started: int
    digest: str  # of the valid secret
    expires: int  # of the valid secret
    replaced_digest: str = ""  # of the secret before it
    replaced_at: int = 0
    sealed: str = ""  # the valid secret, encrypted with the one before it
    revoked: str = ""  # why


class Verdict(Enum):
    """What a presented secret is worth; the refusals are what RefreshRefused says."""

    REPLACE = ""
    REPEAT = "used a moment ago"  # not refused: its answer may have been lost
    EXPIRED = "expired"
    REVOKED = "revoked"
    REUSED = "used before"


def started(identity: Identity, secret: bytes, now: float) -> Family:
    return Family(
        user=identity.name,
        stamp=identity.stamp,
        started=int(now),
        digest=_digest(secret),
        expires=int(now) + LIFE_SECONDS,
    )


def judge(family: Family, secret: bytes, now: float) -> Verdict:
    if family.revoked:
        return Verdict.REVOKED
    digest = _digest(secret)
    if hmac.compare_digest(digest, family.digest):
        return Verdict.REPLACE if now < family.expires else Verdict.EXPIRED
    if hmac.compare_digest(digest, family.replaced_digest) and now < family.replaced_at + RETRY_SECONDS:
        return Verdict.REPEAT if now < family.expires else Verdict.EXPIRED
    return Verdict.REUSED


def replaced(family: Family, secret: bytes, successor: bytes, now: float) -> Family:
    """`family` once its valid `secret` has been replaced by `successor`."""
    changes = {
        "digest": _digest(successor),
        "expires": min(int(now) + LIFE_SECONDS, family.started + CHAIN_SECONDS),
        "replaced_digest": _digest(secret),
        "replaced_at": int(now),
        "sealed": _sealed(secret, successor).hex(),
    }
    return family.model_copy(update=changes)


def successor_of(family: Family, secret: bytes) -> bytes:
    """The valid secret, for who has the one that it has replaced."""
    return _sealed(secret, bytes.fromhex(family.sealed))


def _sealed(key: bytes, secret: bytes) -> bytes:
    """One-time pad, its own inverse. The pad is a hash under a key of 32 random bytes that seals one secret, ever: of
    several successors drawn for the same key, the store takes one."""
    pad = hmac.digest(key, b"session-pools refresh successor", hashlib.sha256)
    return bytes(one ^ other for one, other in zip(secret, pad, strict=True))


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Who it is, and the token that comes next."""

    identity: Identity
    token: str = field(repr=False)


class RefreshTokens:
    """The families in the store. `clock` is in seconds since the epoch."""

    def __init__(self, store: ObjectStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, identity: Identity) -> str:
        """The first token of a new family."""
        family_id, secret = secrets.token_bytes(_FAMILY_BYTES), secrets.token_bytes(_SECRET_BYTES)
        family = started(identity, secret, self._clock())
        await self._store.put_if_absent(_key(family_id), _encoded(family))  # 128 random bits: there is none
        return _token(family_id, secret)

    async def redeem(self, token: str, find: Callable[[str], Awaitable[Identity | None]]) -> Redeemed:
        """Who `token` is of, looked up again with `find`, and its successor. Raises RefreshRefused."""
        family_id, secret = _split(token)
        for _ in range(_ATTEMPTS):
            family, version = await self._read(family_id)
            now = self._clock()
            verdict = judge(family, secret, now)
            if verdict is Verdict.REUSED:
                _log.warning("refresh token used twice: its login has ended", extra={"user": family.user})
                await self._revoke(family_id, verdict.value)
            if verdict not in (Verdict.REPLACE, Verdict.REPEAT):
                raise RefreshRefused(verdict.value)
            identity = await find(family.user)
            if identity is None or identity.stamp != family.stamp:
                why = "the user is gone" if identity is None else "the password has changed"
                await self._revoke(family_id, why)
                raise RefreshRefused(why)
            if verdict is Verdict.REPEAT:
                return Redeemed(identity, _token(family_id, successor_of(family, secret)))
            successor = secrets.token_bytes(_SECRET_BYTES)
            try:
                await self._store.update(
                    _key(family_id), _encoded(replaced(family, secret, successor, now)), version
                )  # fmt: skip
            except Changed:
                continue  # by another replica: it is the same answer, or a refusal, now
            return Redeemed(identity, _token(family_id, successor))
        raise RefreshRefused("used by others at this moment")

    async def revoke(self, token: str) -> str:
        """End the login that `token` stems from, be it the valid token or one before it. Returns whose it was; raises
        RefreshRefused if there is none such."""
        return await self._revoke(_split(token)[0], "revoked")

    async def expire(self) -> None:
        """Delete what nobody can use any more. For once an hour or so, by one replica: it lists them all."""
        limit = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=_KEPT_SECONDS)
        spent = [entry.key async for entry in self._store.list(PREFIX) if entry.modified < limit]
        for key in spent:
            await self._store.delete(key)
        if spent:
            _log.info("refresh tokens expired", extra={"count": len(spent)})

    async def _revoke(self, family_id: bytes, why: str) -> str:
        for _ in range(_ATTEMPTS):
            family, version = await self._read(family_id)
            if family.revoked:
                return family.user
            revoked = family.model_copy(update={"revoked": why, "sealed": ""})
            try:
                await self._store.update(_key(family_id), _encoded(revoked), version)
            except Changed:
                continue
            return family.user
        raise RefreshRefused("used by others at this moment")

    async def _read(self, family_id: bytes) -> tuple[Family, Version]:
        try:
            stored = await self._store.get(_key(family_id))
        except NotFound:
            raise RefreshRefused("unknown") from None
        try:
            return Family.model_validate_json(stored.data), stored.version
        except ValidationError:
            _log.error("refresh token's object is not one of ours", extra={"key": _key(family_id)})
            raise RefreshRefused("unreadable") from None


def _key(family_id: bytes) -> str:
    return f"{PREFIX}/{family_id.hex()}.json"


def _encoded(family: Family) -> bytes:
    return family.model_dump_json().encode()


def _token(family_id: bytes, secret: bytes) -> str:
    return base64.urlsafe_b64encode(family_id + secret).decode()  # 64 characters, without padding


def _split(token: str) -> tuple[bytes, bytes]:
    try:
        content = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        content = b""
    if len(content) != _FAMILY_BYTES + _SECRET_BYTES:
        raise RefreshRefused("unknown")
    return content[:_FAMILY_BYTES], content[_FAMILY_BYTES:]
