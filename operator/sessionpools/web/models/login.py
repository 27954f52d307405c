"""Bodies of /login and /login/refreshToken; the answer is web.auth's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from sessionpools.web.models.base import Body

__all__ = ["LoginRequest", "RenewTokenRequest"]


class LoginRequest(Body):
    """What Machine Learning Server's clients send."""

    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=1024)]


class RenewTokenRequest(Body):
    """A refresh token, which is used up by this."""

    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=1024)]
