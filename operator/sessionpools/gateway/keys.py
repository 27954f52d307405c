"""The public keys by which tokens are verified: what of a ConfigMap is one, and where HAProxy finds it.

The web API publishes its keys there, `KID.pem` each. Only what HAProxy can use reaches its files: RSA, of 2048 bits or
more, under a name that is fit for a file and a rule. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sessionpools.kube.protocol import Json

__all__ = ["DIRECTORY", "SUFFIX", "Published", "digest", "file_of", "of_config_map", "published"]

DIRECTORY: Final = "keys"
SUFFIX: Final = ".pem"
BITS_AT_LEAST: Final = 2048
# To verify with a key takes the square of its length: each call pays for it.
BITS_AT_MOST: Final = 8192

_KID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Published:
    """What a ConfigMap holds."""

    keys: Mapping[str, str] = field(default_factory=dict)  # by kid, PEM as HAProxy reads it
    refused: tuple[str, ...] = ()  # why entries are no keys, a sentence each


def published(data: Mapping[str, str]) -> Published:
    """Of a ConfigMap's data. What is not named *.pem is nothing to do with keys."""
    keys: dict[str, str] = {}
    refused = []
    for name, text in sorted(data.items()):
        if name.endswith(SUFFIX):
            try:
                keys[_kid(name)] = _normal(name, text)
            except ValueError as error:
                refused.append(str(error))
    return Published(keys, tuple(refused))


def of_config_map(body: Json) -> Published:
    return published(body.get("data") or {})


def file_of(kid: str) -> PurePath:
    """Where HAProxy finds a key, in the directory of its configuration."""
    return PurePath(DIRECTORY, f"{kid}{SUFFIX}")


def digest(keys: Mapping[str, str]) -> str:
    """Tells a set of keys from any other; "" for none."""
    text = "".join(f"{kid}\n{keys[kid]}" for kid in sorted(keys))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if keys else ""


def _kid(name: str) -> str:
    kid = name.removesuffix(SUFFIX)
    if not _KID.fullmatch(kid):
        raise ValueError(f"{name}: name it KID.pem, with a kid of 1 to 64 letters, digits, '_' and '-'")
    return kid


def _normal(name: str, text: str) -> str:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{name}: is no public key in PEM") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError(f"{name}: use an RSA key")
    if not BITS_AT_LEAST <= key.key_size <= BITS_AT_MOST:
        raise ValueError(f"{name}: has {key.key_size} bits: use {BITS_AT_LEAST} to {BITS_AT_MOST}")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
