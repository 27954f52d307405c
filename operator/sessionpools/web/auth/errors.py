"""How authentication and authorization fail. Every error has the status code of the answer that it becomes.

    AuthError
    ├── TokenError           401  the access token is not believed
    │   ├── Malformed             it is no token of ours: not a JWT, or a claim is missing or of the wrong type
    │   ├── UnknownKey            the key that it names is not, or no longer, one of ours
    │   ├── Forged                the signature, or the algorithm, is wrong
    │   ├── WrongIssuer           someone else's token
    │   ├── WrongAudience         a token for something else
    │   ├── NotYet                from the future: somebody's clock is wrong
    │   └── Expired               its hour is over: use the refresh token
    ├── LoginRefused         401  user name or password is wrong; which of them is not said
    ├── RefreshRefused       401  the refresh token is unknown, used, expired or revoked: log in again
    ├── TooManyAttempts      429  come again after `retry_after` seconds
    ├── Denied               403  the role does not suffice; the message names the one that does
    ├── KeysUnavailable      503  there is no key to sign with, as the API server was never reached
    ├── UsersUnavailable     503  who there is is not known, as the users file could not be read since the start
    └── UsersFileError       500  the users file says something impossible; the message names line, user and field

What the store fails with (`web.store.errors`) is not turned into one of these.
"""

# ruff: noqa: N818  (errors are named after the answers that they become)
from __future__ import annotations

from typing import ClassVar, Final

__all__ = [
    "AuthError",
    "Denied",
    "Expired",
    "Forged",
    "KeysUnavailable",
    "LoginRefused",
    "Malformed",
    "NotYet",
    "RefreshRefused",
    "TokenError",
    "TooManyAttempts",
    "UnknownKey",
    "UsersFileError",
    "UsersUnavailable",
    "WrongAudience",
    "WrongIssuer",
]

_LOG_IN: Final = "log in again with POST /login"


class AuthError(Exception):
    """The message is fit to be shown to the caller: it never holds a password or a token."""

    status: ClassVar[int] = 500


class TokenError(AuthError):
    status = 401


class Malformed(TokenError):
    pass


class UnknownKey(TokenError):
    def __init__(self) -> None:
        super().__init__(f"the access token was signed with a key that is not known, or no longer: {_LOG_IN}")


class Forged(TokenError):
    def __init__(self) -> None:
        super().__init__(f"the access token's signature is wrong: {_LOG_IN}")


class WrongIssuer(TokenError):
    def __init__(self) -> None:
        super().__init__(f"the access token was issued by someone else: {_LOG_IN}")


class WrongAudience(TokenError):
    def __init__(self) -> None:
        super().__init__(f"the access token was issued for something else: {_LOG_IN}")


class NotYet(TokenError):
    def __init__(self) -> None:
        super().__init__("the access token is of a time that is yet to come: are all clocks right?")


class Expired(TokenError):
    def __init__(self) -> None:
        super().__init__(f"the access token has expired: POST /login/refreshToken, or {_LOG_IN}")


class LoginRefused(AuthError):
    status = 401

    def __init__(self) -> None:
        super().__init__("user name or password is wrong")


class RefreshRefused(AuthError):
    """`reason` is for the log: why, in two words."""

    status = 401

    def __init__(self, reason: str) -> None:
        super().__init__(f"the refresh token is not valid ({reason}): {_LOG_IN}")
        self.reason = reason


class TooManyAttempts(AuthError):
    """`retry_after` is in whole seconds, at least 1: what the header Retry-After says."""

    status = 429

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many logins, or too many that failed: try again in {retry_after} s")
        self.retry_after = retry_after


class Denied(AuthError):
    status = 403


class KeysUnavailable(AuthError):
    status = 503


class UsersUnavailable(AuthError):
    status = 503

    def __init__(self) -> None:
        super().__init__("the users can not be read at this moment: the web API's log says why")


class UsersFileError(AuthError):
    pass
