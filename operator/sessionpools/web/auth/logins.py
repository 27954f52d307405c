"""Log in, refresh, revoke, and whose a token is: what the web API makes routes and dependencies of.

`Logins` is the real thing; `OpenDoor` stands in for it where authentication is turned off. Everything that is refused
is an `errors.AuthError`; without the object store a refresh fails with its StoreUnavailable, while a login goes without
a refresh token: services stay callable.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from sessionpools.web.auth import audit, tokens
from sessionpools.web.auth.audit import Caller, Outcome
from sessionpools.web.auth.errors import AuthError, LoginRefused
from sessionpools.web.auth.identity import ANONYMOUS, Credentials, Identity, IdentitySource, Principal
from sessionpools.web.auth.keystore import KeyRing
from sessionpools.web.auth.limits import LoginLimit
from sessionpools.web.auth.refresh import RefreshTokens
from sessionpools.web.auth.tokens import LoginAnswer
from sessionpools.web.store.errors import StoreError

__all__ = ["Authentication", "Logins", "OpenDoor"]

_log = logging.getLogger(__name__)


class Authentication(Protocol):
    @property
    def enabled(self) -> bool: ...

    @property
    def ready(self) -> bool:
        """Whether somebody could log in now."""
        ...

    async def login(self, credentials: Credentials, caller: Caller) -> LoginAnswer:
        """POST /login. Raises LoginRefused, TooManyAttempts, KeysUnavailable, UsersUnavailable."""
        ...

    async def refresh(self, refresh_token: str, caller: Caller) -> LoginAnswer:
        """POST /login/refreshToken. Raises RefreshRefused, KeysUnavailable, UsersUnavailable, StoreUnavailable."""
        ...

    async def revoke(self, refresh_token: str, caller: Caller) -> None:
        """DELETE /login/refreshToken. Raises RefreshRefused (an unknown token), StoreUnavailable."""
        ...

    def principal(self, authorization: str | None) -> Principal:
        """Who makes the request with this Authorization header. Raises TokenError."""
        ...

    def jwks(self) -> dict[str, Any]:
        """/.well-known/jwks.json"""
        ...


class Logins:
    """`Authentication` by a source of identities. `clock` is in seconds since the epoch."""

    enabled = True

    def __init__(
        self,
        source: IdentitySource,
        keys: KeyRing,
        refresh_tokens: RefreshTokens,
        limit: LoginLimit,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._keys = keys
        self._refresh_tokens = refresh_tokens
        self._limit = limit
        self._clock = clock

    @property
    def ready(self) -> bool:
        return self._keys.ready

    async def login(self, credentials: Credentials, caller: Caller) -> LoginAnswer:
        try:
            identity = await self._authenticated(credentials, caller)
        except AuthError as error:
            who = await self._whose(credentials.username)
            unknown = ": no such user" if who is None and isinstance(error, LoginRefused) else ""
            audit.record(caller, who, "login", "User", outcome=_outcome(error), reason=f"{error}{unknown}")
            raise
        try:
            refresh_token = await self._refresh_tokens.issue(identity)
        except StoreError as error:
            _log.warning("login without a refresh token", extra={"user": identity.name, "error": str(error)})
            refresh_token = ""
        answer = self._answer(identity, refresh_token)
        audit.record(caller, identity.principal, "login", "User", outcome=Outcome.DONE)
        return answer

    async def _authenticated(self, credentials: Credentials, caller: Caller) -> Identity:
        self._keys.signing_key()  # without one, no password need be looked at
        attempt = self._limit.admit(credentials.username, caller.address)
        try:
            identity = await self._source.authenticate(credentials)
        except AuthError:  # the password was not looked at
            self._limit.forget(attempt)
            raise
        if identity is None:
            raise LoginRefused
        self._limit.succeeded(attempt)
        return identity

    async def _whose(self, name: str) -> Principal | None:
        """For the audit log, which names only those that there are."""
        try:
            identity = await self._source.find(name)
        except AuthError:
            return None
        return identity.principal if identity else None

    async def refresh(self, refresh_token: str, caller: Caller) -> LoginAnswer:
        self._keys.signing_key()  # before the token is used up
        try:
            redeemed = await self._refresh_tokens.redeem(refresh_token, self._source.find)
        except AuthError as error:
            audit.record(caller, None, "refresh", "Token", outcome=_outcome(error), reason=str(error))
            raise
        answer = self._answer(redeemed.identity, redeemed.token)
        audit.record(caller, redeemed.identity.principal, "refresh", "Token", outcome=Outcome.DONE)
        return answer

    async def revoke(self, refresh_token: str, caller: Caller) -> None:
        try:
            name = await self._refresh_tokens.revoke(refresh_token)
        except AuthError as error:
            audit.record(caller, None, "revoke", "Token", outcome=_outcome(error), reason=str(error))
            raise
        audit.record(caller, None, "revoke", "Token", name, outcome=Outcome.DONE)

    def principal(self, authorization: str | None) -> Principal:
        return tokens.verify(tokens.bearer(authorization), self._keys.public_key, self._clock()).principal

    def jwks(self) -> dict[str, Any]:
        return self._keys.jwks()

    def _answer(self, identity: Identity, refresh_token: str) -> LoginAnswer:
        issued = tokens.issue(self._keys.signing_key(), identity.principal, self._clock())
        return LoginAnswer(
            access_token=issued.token,
            expires_in=tokens.LIFE_SECONDS,
            expires_on=issued.claims.expires_at,
            refresh_token=refresh_token,
        )


class OpenDoor:
    """`Authentication` that is turned off: everybody is `ANONYMOUS` and may do everything. For laptops.

    Clients that log in get tokens that say so, as they would not go on without; no token is looked at."""

    enabled = False
    ready = True

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        _log.warning(
            "AUTHENTICATION IS TURNED OFF: whoever reaches this server may publish code, run it and delete services",
            extra={"setting": "SESSIONPOOLS_AUTH_ENABLED"},
        )

    async def login(self, credentials: Credentials, caller: Caller) -> LoginAnswer:
        return self._answer()

    async def refresh(self, refresh_token: str, caller: Caller) -> LoginAnswer:
        return self._answer()

    async def revoke(self, refresh_token: str, caller: Caller) -> None:
        return None

    def principal(self, authorization: str | None) -> Principal:
        return ANONYMOUS

    def jwks(self) -> dict[str, Any]:
        return {"keys": []}

    def _answer(self) -> LoginAnswer:
        return LoginAnswer(
            access_token="authentication-is-turned-off",  # noqa: S106
            expires_in=tokens.LIFE_SECONDS,
            expires_on=int(self._clock()) + tokens.LIFE_SECONDS,
            refresh_token="",
        )


def _outcome(error: AuthError) -> Outcome:
    return Outcome.FAILED if error.status >= 500 else Outcome.REFUSED
