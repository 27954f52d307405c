"""Who somebody is, and the seam through which that is found out.

One source is built: `users.LocalUsers`. Another, for OIDC or for Kubernetes' own tokens, would be a second class with
these two methods and a second form of credentials: what it accepts is exchanged at /login for a token of ours, as those
are the only ones that the gateway verifies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

__all__ = [
    "ADMIN",
    "ANONYMOUS",
    "Credentials",
    "Identity",
    "IdentitySource",
    "PasswordCredentials",
    "Principal",
    "Role",
]


class Role(StrEnum):
    """Machine Learning Server's three; `roles` says what each may do."""

    OWNER = "Owner"
    CONTRIBUTOR = "Contributor"
    READER = "Reader"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: what an access token says."""

    name: str
    role: Role


ADMIN: Final = "admin"
# Everybody, where authentication is turned off (SESSIONPOOLS_AUTH_ENABLED=false).
ANONYMOUS: Final = Principal("anonymous", Role.OWNER)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is according to a source, now."""

    name: str
    role: Role
    # Becomes another when what was issued before must not be refreshed any more: when the password changes. It is kept
    # with refresh tokens, so no password may be learned from it sooner than from its argon2 hash.
    stamp: str = field(repr=False)

    @property
    def principal(self) -> Principal:
        return Principal(self.name, self.role)


@dataclass(frozen=True, slots=True)
class PasswordCredentials:
    """What Machine Learning Server's clients send to /login."""

    username: str
    password: str = field(repr=False)


Credentials = PasswordCredentials  # another form is added with `|`


class IdentitySource(Protocol):
    """Both methods raise UsersUnavailable when they do not know: nobody is locked out for that."""

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Who has these credentials; None if nobody has. Takes as long for a user that does not exist."""
        ...

    async def find(self, name: str) -> Identity | None:
        """Who has this name now, asked at each refresh; None if nobody has, or may log in, any more."""
        ...
