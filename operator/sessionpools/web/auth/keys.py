"""The keys that sign access tokens, and what is due with them when: decisions only; `keystore` carries them out.

There is always a current key, which signs, and a next one, which is published and does not sign yet. Every
`PERIOD_SECONDS` the next becomes the current, and a new next is made. So a key is known to every gateway a whole period
before the first token that needs it, and an operator who wants another key now has it at once, without a call lost. A
key that no longer signs is kept until the last token that it can have signed is over.

What is decided follows from the keys and the clock alone, so two replicas decide the same; who writes it first wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from sessionpools.web.auth.tokens import LIFE_SECONDS

__all__ = ["Due", "Key", "KeySet", "due", "dump", "jwks", "load", "make_key", "signer"]

PERIOD_SECONDS: Final = 30 * 24 * 3600
# How long a key is published at least before it signs: a gateway's agent learns of it within seconds, HAProxy is
# reloaded then; a gateway that does not reach the API server meanwhile has this long.
LEAD_SECONDS: Final = 600
# What a replica may be behind the other: it reads the keys every keystore.SYNC_SECONDS, and when it can not, it signs
# as it did.
BEHIND_SECONDS: Final = 900
# Held to be enough beyond 2030 (NIST SP 800-57); each call's token is verified with it, and more bits take longer.
_BITS: Final = 2048
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Key:
    """Times are in whole seconds since the epoch. `kid` follows from the key, and is fit for a file name."""

    kid: str
    created: int
    signs_from: int
    private: RSAPrivateKey = field(repr=False, compare=False)

    @property
    def public(self) -> RSAPublicKey:
        return self.private.public_key()

    @property
    def public_pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.public.public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys in the order in which they begin to sign."""

    keys: tuple[Key, ...] = ()

    @classmethod
    def of(cls, keys: Collection[Key]) -> KeySet:
        return cls(tuple(sorted(keys, key=lambda key: (key.signs_from, key.kid))))

    def find(self, kid: str) -> Key | None:
        return next((key for key in self.keys if key.kid == kid), None)


@dataclass(frozen=True, slots=True)
class Due:
    """`keep`, with a new key for each of `make`, which are the times from which they sign."""

    keep: KeySet
    make: tuple[int, ...] = ()


def due(keys: KeySet, now: float, rotate_at: float | None = None) -> Due:
    """What the keys should be. `rotate_at`: a current key that began to sign before that time gives way, as soon as
    that time has come and the next one has been published for long enough."""
    kept = _without_spent(keys, now)
    if rotate_at is not None and rotate_at <= now:
        kept = _rotated(kept, now, rotate_at)
    begun = [key for key in kept.keys if key.signs_from <= now]
    make: list[int] = []
    if not begun:
        make.append(int(now))
    if len(begun) == len(kept.keys):  # there is no next one
        since = begun[-1].signs_from if begun else int(now)
        # After a long time without anyone who looks, the next one is due already: it waits for LEAD_SECONDS still.
        make.append(max(since + PERIOD_SECONDS, int(now) + LEAD_SECONDS))
    return Due(kept, tuple(make))


def _without_spent(keys: KeySet, now: float) -> KeySet:
    """Less those whose successor has signed for so long that none of their tokens is valid any more."""
    spent = {
        key.kid
        for key, successor in zip(keys.keys, keys.keys[1:], strict=False)
        if successor.signs_from + LIFE_SECONDS + BEHIND_SECONDS <= now
    }
    return KeySet(tuple(key for key in keys.keys if key.kid not in spent))


def _rotated(keys: KeySet, now: float, rotate_at: float) -> KeySet:
    begun = [key for key in keys.keys if key.signs_from <= now]
    following = [key for key in keys.keys if key.signs_from > now]
    if not begun or begun[-1].signs_from >= int(rotate_at) or not following:
        return keys
    successor = following[0]
    soonest = max(int(now), successor.created + LEAD_SECONDS)
    if soonest >= successor.signs_from:
        return keys
    return KeySet.of([*begun, replace(successor, signs_from=soonest), *following[1:]])


def signer(keys: KeySet, now: float, published: Collection[str]) -> Key | None:
    """The key to sign with: the latest that may and that the gateways can know, as its kid is `published`."""
    able = [key for key in keys.keys if key.signs_from <= now and key.kid in published]
    return able[-1] if able else None


# --- documents --------------------------------------------------------------------------------------------------------


def jwks(keys: KeySet) -> dict[str, Any]:
    """RFC 7517's set of all public keys, the next one's included."""
    return {"keys": [_jwk(key) for key in keys.keys]}


def _jwk(key: Key) -> dict[str, str]:
    numbers = RSAAlgorithm.to_jwk(key.public, as_dict=True)
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid, "n": numbers["n"], "e": numbers["e"]}


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kid: str
    created: AwareDatetime
    signs_from: Annotated[AwareDatetime, Field(alias="signsFrom")]
    private_key: Annotated[str, Field(alias="privateKey", repr=False)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    keys: list[_Entry]


def dump(keys: KeySet) -> str:
    """As it is kept in the Secret: JSON, with the private keys as PEM."""
    entries = [
        _Entry(
            kid=key.kid,
            created=_time(key.created),
            signs_from=_time(key.signs_from),
            private_key=key.private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        )
        for key in keys.keys
    ]
    return _Document(version=_FORMAT, keys=entries).model_dump_json(by_alias=True)


def load(text: str) -> KeySet:
    """What `dump` wrote. Raises ValueError, which says where the document is wrong and quotes nothing of it."""
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    return KeySet.of([_load_key(index, entry) for index, entry in enumerate(document.keys)])


def _load_key(index: int, entry: _Entry) -> Key:
    try:
        private = serialization.load_pem_private_key(entry.private_key.encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError(f"keys.{index}.privateKey: is no private key in PEM") from None
    if not isinstance(private, RSAPrivateKey):
        raise ValueError(f"keys.{index}.privateKey: use an RSA key")
    if entry.kid != _kid(private):
        raise ValueError(f"keys.{index}.kid: is not that of this key, which is {_kid(private)}")
    return Key(entry.kid, int(entry.created.timestamp()), int(entry.signs_from.timestamp()), private)


def make_key(now: float, signs_from: int) -> Key:
    """A new key, from the system's randomness. Primes are searched for: call it in a thread."""
    private = generate_private_key(public_exponent=65537, key_size=_BITS)
    return Key(_kid(private), int(now), signs_from, private)


def _kid(private: RSAPrivateKey) -> str:
    """The first half of the SHA-256 of the public key (its DER form) in hex: who has the key can check it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(private.public_key().public_bytes(serialization.Encoding.DER, form)).hexdigest()[:32]


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
