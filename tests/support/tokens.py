"""Access tokens of every kind, good and bad: made by hand, as libraries refuse to make the bad ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

GONE = object()  # as a claim's value: it is not there


@dataclass(frozen=True)
class Key:
    kid: str
    private: RSAPrivateKey

    @cached_property
    def pem(self) -> str:
        """The public key, as it is published."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, signed: bytes) -> bytes:
        return self.private.sign(signed, PKCS1v15(), SHA256())

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """As the web API makes them, valid for an hour; what is given here stands in it instead."""
        return signed(self._head(header), content(**claims), self)

    def token_of(self, payload: bytes) -> str:
        """With any content."""
        return signed(self._head(None), payload, self)

    def confused_token(self, *, header: Mapping[str, Any] | None = None) -> str:
        """Signed with HMAC and the public key, which everybody knows."""
        what = _unsigned(self._head({"alg": "HS256", **(header or {})}), content())
        return f"{what}.{_coded(hmac.digest(self.pem.encode(), what.encode(), hashlib.sha256))}"

    def _head(self, header: Mapping[str, Any] | None) -> dict[str, Any]:
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid, **(header or {})}
        return {name: value for name, value in head.items() if value is not GONE}


@cache
def key(kid: str, bits: int = 2048) -> Key:
    """The same one for the same name."""
    return Key(kid, generate_private_key(public_exponent=65537, key_size=bits))


def content(**claims: Any) -> bytes:
    now = int(time.time())
    usual = {"iss": "session-pools", "aud": "session-pools", "sub": "ada", "role": "Reader", "iat": now}
    all_claims = {**usual, "exp": now + 3600, "jti": "0123456789abcdef", **claims}
    return json.dumps({name: value for name, value in all_claims.items() if value is not GONE}).encode()


def signed(header: Mapping[str, Any], payload: bytes, by: Key) -> str:
    what = _unsigned(header, payload)
    return f"{what}.{_coded(by.sign(what.encode()))}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _unsigned(header: Mapping[str, Any], payload: bytes) -> str:
    return f"{_coded(json.dumps(header).encode())}.{_coded(payload)}"


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
