"""/login: what Machine Learning Server's clients send and read."""

from __future__ import annotations

import logging

import httpx
import jwt
import pytest

from sessionpools.web.auth.identity import Role
from support.web import ADMIN_PASSWORD, SCRIPT, WebWorld, error_of


@pytest.fixture
def nobody(world: WebWorld) -> httpx.AsyncClient:
    return world.client(role=None)


async def test_the_admin_logs_in_and_is_owner(world: WebWorld, nobody: httpx.AsyncClient) -> None:
    answer = await nobody.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"token_type", "access_token", "expires_in", "expires_on", "refresh_token"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    client = world.client(token=body["access_token"])
    assert (await client.post("/services/Score/v1", json=SCRIPT)).status_code == 201


async def test_a_refresh_token_is_good_once_and_its_successor_until_it_is_revoked(nobody: httpx.AsyncClient) -> None:
    first = (await nobody.post("/login", json={"Username": "admin", "Password": ADMIN_PASSWORD})).json()
    renewed = await nobody.post("/login/refreshToken", json={"refreshToken": first["refresh_token"]})
    assert renewed.status_code == 200
    second = renewed.json()["refresh_token"]
    assert second != first["refresh_token"]
    revoked = await nobody.delete("/login/refreshToken", params={"refreshToken": second})
    assert revoked.status_code == 200
    answer = await nobody.post("/login/refreshToken", json={"refreshToken": second})
    assert answer.status_code == 401
    error_of(answer)


@pytest.mark.parametrize("credentials", [("admin", "wrong"), ("nobody", ADMIN_PASSWORD)])
async def test_a_wrong_password_and_an_unknown_user_are_told_alike(
    nobody: httpx.AsyncClient, credentials: tuple[str, str]
) -> None:
    answer = await nobody.post("/login", json={"username": credentials[0], "password": credentials[1]})
    assert answer.status_code == 401
    assert error_of(answer) == "user name or password is wrong"


@pytest.mark.parametrize("body", [{}, {"username": "admin"}, {"username": "", "password": "x"}, [], "admin"])
async def test_a_body_that_is_no_login_is_refused_by_field(nobody: httpx.AsyncClient, body: object) -> None:
    answer = await nobody.post("/login", json=body)
    assert answer.status_code == 400
    assert "body" in error_of(answer)


async def test_too_many_failures_from_one_address_are_told_when_to_come_again(nobody: httpx.AsyncClient) -> None:
    for _ in range(30):
        answer = await nobody.post("/login", json={"username": "admin", "password": "wrong"})
        if answer.status_code != 401:
            break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    error_of(answer)


async def test_neither_password_nor_token_is_ever_logged(
    world: WebWorld, nobody: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = (await nobody.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})).json()
    await nobody.post("/login", json={"username": "admin", "password": "another-secret"})
    await nobody.post("/login", json={"username": "admin", "password": ["another-secret"]})
    said = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for secret in (ADMIN_PASSWORD, "another-secret", body["access_token"], body["refresh_token"]):
        assert secret not in said


async def test_the_published_keys_verify_the_tokens(world: WebWorld, nobody: httpx.AsyncClient) -> None:
    token = (await nobody.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})).json()["access_token"]
    keys = jwt.PyJWKSet.from_dict((await nobody.get("/.well-known/jwks.json")).json())
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, algorithms=["RS256"], audience="session-pools", issuer="session-pools")
    assert (claims["sub"], claims["role"]) == ("admin", Role.OWNER)


async def test_each_change_leaves_an_audit_line_with_who_what_from_where_and_how_it_ended(
    world: WebWorld, caplog: pytest.LogCaptureFixture
) -> None:
    ada = world.client("ada", Role.CONTRIBUTOR)
    await ada.post("/services/Score/v1", json=SCRIPT, headers={"X-Request-Id": "r-1", "X-Forwarded-For": "192.0.2.7"})
    await ada.post("/services/Score/v1", json=SCRIPT)
    await world.client("eve", Role.READER).delete("/services/Score/v1")
    await ada.get("/services")
    lines = [record.__dict__ for record in caplog.records if record.name == "sessionpools.audit"]
    assert [(line["user"], line["verb"], line["kind"], line["object"], line["outcome"]) for line in lines] == [
        ("ada", "publish", "Service", "Score", "done"),
        ("ada", "publish", "Service", "Score", "refused"),
        ("eve", "delete", "Service", "Score", "refused"),
    ]
    assert (lines[0]["from"], lines[0]["requestId"], lines[0]["role"]) == ("192.0.2.7", "r-1", "Contributor")
