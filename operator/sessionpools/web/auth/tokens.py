"""Access tokens: JSON Web Tokens signed with RS256, which say who somebody is for an hour. Pure functions.

The gateway verifies them on the way of every call, the web API for everything else, both with the public keys alone. No
token is looked up anywhere, so none is revoked before its time: what a refresh looks up again holds within the hour.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sessionpools.web.auth.errors import (
    Expired,
    Forged,
    Malformed,
    NotYet,
    UnknownKey,
    WrongAudience,
    WrongIssuer,
)
from sessionpools.web.auth.identity import Principal, Role

__all__ = ["AUDIENCE", "ISSUER", "LIFE_SECONDS", "Claims", "Issued", "LoginAnswer", "bearer", "issue", "verify"]

ISSUER: Final = "session-pools"
AUDIENCE: Final = "session-pools"
LIFE_SECONDS: Final = 3600  # Machine Learning Server's
# A token may come from a replica whose clock is ahead by so much. To its end no such time is added, as in HAProxy.
AHEAD_SECONDS: Final = 60
_LENGTH_AT_MOST: Final = 4096  # characters; ours have about 700
_ALGORITHM: Final = "RS256"
_JWS: Final = jwt.PyJWS(algorithms=[_ALGORITHM])


class LoginAnswer(BaseModel):
    """What /login and /login/refreshToken answer, as Machine Learning Server does: `expires_in` and `expires_on` are
    numbers, as in its examples (its swagger says string). A library that takes one for the other sees seconds."""

    model_config = ConfigDict(frozen=True)

    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    access_token: str = Field(repr=False)
    expires_in: int = Field(description="seconds")
    expires_on: int = Field(description="seconds since the epoch")
    # "" when the object store was not there to keep one: the access token is good all the same.
    refresh_token: str = Field(repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are in seconds since the epoch."""

    principal: Principal
    issued_at: int
    expires_at: int
    token_id: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, and what it says."""

    token: str = field(repr=False)
    claims: Claims


class SigningKey(Protocol):
    @property
    def kid(self) -> str: ...
    @property
    def private(self) -> RSAPrivateKey: ...


class _Payload(BaseModel):
    """The claims of ours. Strict: a number is not written as a string, nor true as 1."""

    model_config = ConfigDict(strict=True)

    sub: str = Field(min_length=1)
    role: str
    iat: int
    exp: int
    nbf: int = 0
    jti: str = Field(min_length=1)


def issue(key: SigningKey, principal: Principal, now: float) -> Issued:
    issued_at = int(now)
    claims = Claims(principal, issued_at, issued_at + LIFE_SECONDS, secrets.token_hex(16))
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": principal.name,
        "role": principal.role.value,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.token_id,
    }
    token = _JWS.encode(orjson.dumps(payload), key.private, algorithm=_ALGORITHM, headers={"kid": key.kid})
    return Issued(token, claims)


def verify(token: str, find_key: Callable[[str], RSAPublicKey | None], now: float) -> Claims:
    """What `token` says, if it is ours and valid now; else raises a TokenError.

    The algorithm is ours to choose, not the token's, and so is the key: of the header only `kid` is used."""
    if len(token) > _LENGTH_AT_MOST:
        raise Malformed("the access token is too long to be one of ours")
    try:
        header: dict[str, Any] = _JWS.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError):
        raise Malformed("the access token is no JSON Web Token") from None
    if header.get("alg") != _ALGORITHM:
        raise Forged
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise Malformed("the access token does not say which key has signed it (kid)")
    key = find_key(kid)
    if key is None:
        raise UnknownKey
    try:
        content = _JWS.decode(token, key, algorithms=[_ALGORITHM])
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
        raise Forged from None
    except (jwt.InvalidTokenError, ValueError):
        raise Malformed("the access token is no JSON Web Token") from None
    return _claims(content, now)


def _claims(content: bytes, now: float) -> Claims:
    try:
        payload = orjson.loads(content)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise Malformed("the access token's content is no JSON object")
    if payload.get("iss") != ISSUER:
        raise WrongIssuer
    if payload.get("aud") != AUDIENCE:
        raise WrongAudience
    try:
        claims = _Payload.model_validate(payload)
        role = Role(claims.role)
    except ValidationError as error:
        claim = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise Malformed(f"the access token's claim {claim} is missing or of the wrong type") from None
    except ValueError:
        raise Malformed("the access token's claim role is no role") from None
    if now >= claims.exp:
        raise Expired
    if max(claims.iat, claims.nbf) > now + AHEAD_SECONDS:
        raise NotYet
    return Claims(Principal(claims.sub, role), claims.iat, claims.exp, claims.jti)


def bearer(authorization: str | None) -> str:
    """The token in an Authorization header. Raises Malformed, which says what is asked for, if there is none."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Malformed("this needs an access token: send `Authorization: Bearer TOKEN`, with the one of POST /login")
    return token.strip()
