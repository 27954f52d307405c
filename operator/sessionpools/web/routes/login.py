"""Log in, renew a token, revoke one; the public keys for those who verify tokens themselves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from sessionpools.web.auth.identity import PasswordCredentials
from sessionpools.web.auth.tokens import LoginAnswer
from sessionpools.web.models.login import LoginRequest, RenewTokenRequest
from sessionpools.web.routes.common import From, Web

router = APIRouter(tags=["Authentication"])


@router.post("/login", operation_id="login")
async def login(web: Web, caller: From, body: LoginRequest) -> LoginAnswer:
    """An access token for an hour, and a refresh token for 14 days."""
    return await web.auth.login(PasswordCredentials(body.username, body.password.get_secret_value()), caller)


@router.post("/login/refreshToken", operation_id="renewToken")
async def renew(web: Web, caller: From, body: RenewTokenRequest) -> LoginAnswer:
    """A new access token and the next refresh token; the one that was sent is used up."""
    return await web.auth.refresh(body.refresh_token.get_secret_value(), caller)


@router.delete("/login/refreshToken", operation_id="revokeRefreshToken")
async def revoke(
    web: Web,
    caller: From,
    token: Annotated[str, Query(alias="refreshToken", min_length=1, description="The refresh token to be revoked.")],
) -> str:
    """Ends the login that the token stems from."""
    await web.auth.revoke(token, caller)
    return "Revoked."


@router.get("/.well-known/jwks.json", operation_id="jwks")
async def jwks(web: Web) -> dict[str, Any]:
    """The public keys of access tokens (RFC 7517), the next one's included."""
    return web.auth.jwks()
