"""A user's way through it all: log in, be believed, refresh, revoke; every step of it in the audit log."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sessionpools.kube import client
from sessionpools.web.auth.audit import Caller
from sessionpools.web.auth.errors import (
    Expired,
    KeysUnavailable,
    LoginRefused,
    Malformed,
    RefreshRefused,
    TooManyAttempts,
    UsersUnavailable,
)
from sessionpools.web.auth.identity import ANONYMOUS, PasswordCredentials, Role
from sessionpools.web.auth.keystore import KeyRing
from sessionpools.web.auth.limits import LoginLimit
from sessionpools.web.auth.logins import Authentication, Logins, OpenDoor
from sessionpools.web.auth.passwords import Passwords
from sessionpools.web.auth.refresh import RefreshTokens
from sessionpools.web.auth.tokens import LoginAnswer
from sessionpools.web.auth.users import LocalUsers
from sessionpools.web.store.errors import StoreUnavailable
from sessionpools.web.store.objects import ObjectStore
from support.apiserver import ApiServer
from support.auth import HOUR, NOON, Clock, hashed

CALLER = Caller("192.0.2.1", "7b2c")


@dataclass
class World:
    server: ApiServer
    directory: Path
    clock: Clock
    checker: Passwords
    keys: KeyRing
    logins: Logins

    async def login(self, name: str = "ada", password: str = "correct horse", caller: Caller = CALLER) -> LoginAnswer:
        return await self.logins.login(PasswordCredentials(name, password), caller)

    def role(self, answer: LoginAnswer) -> str:
        return self.logins.principal(f"Bearer {answer.access_token}").role.value

    def write_users(self, role: str = "Contributor", password: str = "correct horse") -> None:
        entry = f"- name: ada\n  passwordHash: {hashed(password)}\n  role: {role}\n"
        (self.directory / "users.yaml").write_text(entry)

    def lose_the_store(self) -> None:
        """The directory is in the way of itself."""
        store = self.directory / "store"
        store.rename(self.directory / "lost")
        store.write_text("")


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)
    (tmp_path / "password").write_text("open sesame")
    clock, checker = Clock(), Passwords()
    async with ApiServer() as server:
        keys = KeyRing(await server.connect(), "session-pools", clock=clock)
        await keys.sync()
        users = LocalUsers(checker, admin_password=tmp_path / "password", users=tmp_path / "users.yaml")
        refresh_tokens = RefreshTokens(ObjectStore.open(str(tmp_path / "store")), clock=clock)
        logins = Logins(users, keys, refresh_tokens, LoginLimit(clock=clock), clock=clock)
        world = World(server, tmp_path, clock, checker, keys, logins)
        world.write_users()
        yield world
    checker.close()


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def audited(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    names = ("user", "verb", "kind", "outcome", "from", "requestId")
    lines = [each.__dict__ for each in caplog.records if each.name == "sessionpools.audit"]
    return [tuple(line[name] for name in names) for line in lines]


async def test_a_login_gives_a_token_that_is_believed_for_an_hour(world: World) -> None:
    answer = await world.login()
    assert (answer.token_type, answer.expires_in, answer.expires_on) == ("Bearer", 3600, int(NOON + HOUR))
    assert world.role(answer) == "Contributor"
    world.clock.pass_by(HOUR)
    with pytest.raises(Expired):
        world.role(answer)
    refreshed = await world.logins.refresh(answer.refresh_token, CALLER)
    assert world.role(refreshed) == "Contributor"


async def test_admin_logs_in_as_an_owner(world: World) -> None:
    assert world.role(await world.login("admin", "open sesame")) == "Owner"


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", "correct horse"), ("", ""), ("ada", "")])
async def test_who_may_not_log_in_is_not_told_why(world: World, name: str, password: str) -> None:
    with pytest.raises(LoginRefused) as refused:
        await world.login(name, password)
    assert str(refused.value) == "user name or password is wrong"


async def test_a_refresh_finds_the_role_of_now(world: World) -> None:
    answer = await world.login()
    world.write_users(role="Reader")
    assert world.role(answer) == "Contributor", "until its hour is over"
    assert world.role(await world.logins.refresh(answer.refresh_token, CALLER)) == "Reader"


async def test_a_new_password_ends_the_logins_of_before(world: World) -> None:
    answer = await world.login()
    world.write_users(password="battery staple")
    with pytest.raises(RefreshRefused, match="the password has changed"):
        await world.logins.refresh(answer.refresh_token, CALLER)
    admins = await world.login("admin", "open sesame")
    (world.directory / "password").write_text("another")
    with pytest.raises(RefreshRefused, match="the password has changed"):
        await world.logins.refresh(admins.refresh_token, CALLER)


async def test_a_revoked_token_refreshes_nothing(world: World) -> None:
    answer = await world.login()
    await world.logins.revoke(answer.refresh_token, CALLER)
    with pytest.raises(RefreshRefused, match="revoked"):
        await world.logins.refresh(answer.refresh_token, CALLER)
    with pytest.raises(RefreshRefused, match="unknown"):
        await world.logins.revoke("A" * 64, CALLER)


async def test_guessing_ends_in_429_and_the_right_password_is_not_looked_at_then(world: World) -> None:
    for _ in range(10):
        with pytest.raises(LoginRefused):
            await world.login(password="wrong")
    with pytest.raises(TooManyAttempts) as refused:
        await world.login()
    assert refused.value.retry_after == 20
    assert world.role(await world.login(caller=Caller("203.0.113.1"))) == "Contributor"
    world.clock.pass_by(20)
    assert world.role(await world.login()) == "Contributor"


async def test_a_login_that_succeeds_is_not_counted(world: World) -> None:
    for _ in range(11):
        await world.login()


async def test_a_users_file_that_can_not_be_read_costs_nobody_their_login(world: World, tmp_path: Path) -> None:
    answer = await world.login()
    (tmp_path / "users.yaml").write_text("- broken")
    restarted = LocalUsers(world.checker, admin_password=tmp_path / "password", users=tmp_path / "users.yaml")
    logins = Logins(
        restarted, world.keys, world.logins._refresh_tokens, LoginLimit(clock=world.clock), clock=world.clock
    )  # fmt: skip
    for _ in range(11):
        with pytest.raises(UsersUnavailable):
            await logins.login(PasswordCredentials("ada", "correct horse"), CALLER)
    with pytest.raises(UsersUnavailable):
        await logins.refresh(answer.refresh_token, CALLER)
    world.write_users()
    assert await logins.refresh(answer.refresh_token, CALLER)


async def test_without_the_store_one_can_log_in_but_not_refresh(world: World, caplog: pytest.LogCaptureFixture) -> None:
    before = await world.login()
    world.lose_the_store()
    answer = await world.login()
    assert answer.refresh_token == ""
    assert world.role(answer) == "Contributor"
    assert any(each.message == "login without a refresh token" for each in caplog.records)
    with pytest.raises(StoreUnavailable):
        await world.logins.refresh(before.refresh_token, CALLER)


async def test_without_a_key_nobody_logs_in_and_no_refresh_token_is_used_up(world: World) -> None:
    answer = await world.login()
    without = Logins(
        world.logins._source,
        KeyRing(await world.server.connect(), "session-pools", clock=world.clock),
        world.logins._refresh_tokens,
        LoginLimit(clock=world.clock),
        clock=world.clock,
    )
    assert not without.ready
    with pytest.raises(KeysUnavailable):
        await without.login(PasswordCredentials("ada", "correct horse"), CALLER)
    with pytest.raises(KeysUnavailable):
        await without.refresh(answer.refresh_token, CALLER)
    assert world.logins.ready
    assert await world.logins.refresh(answer.refresh_token, CALLER)


async def test_a_request_without_a_token_is_nobodys(world: World) -> None:
    with pytest.raises(Malformed):
        world.logins.principal(None)


async def test_each_login_refresh_and_revocation_is_in_the_audit_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await world.login()
    refreshed = await world.logins.refresh(answer.refresh_token, CALLER)
    await world.logins.revoke(refreshed.refresh_token, CALLER)
    for name, password in (("ada", "wrong"), ("hunter2", "ada")):
        with pytest.raises(LoginRefused):
            await world.login(name, password)
    with pytest.raises(RefreshRefused):
        await world.logins.refresh(refreshed.refresh_token, CALLER)
    where = ("192.0.2.1", "7b2c")
    assert audited(caplog) == [
        ("ada", "login", "User", "done", *where),
        ("ada", "refresh", "Token", "done", *where),
        ("", "revoke", "Token", "done", *where),
        ("ada", "login", "User", "refused", *where),
        ("", "login", "User", "refused", *where),
        ("", "refresh", "Token", "refused", *where),
    ]


async def test_no_log_line_holds_a_password_a_token_or_a_name_that_nobody_has(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await world.login()
    refreshed = await world.logins.refresh(answer.refresh_token, CALLER)
    for name, password in (("ada", "hunter2"), ("hunter2", "correct horse")):
        with pytest.raises(LoginRefused):
            await world.login(name, password)
    world.clock.pass_by(HOUR)
    with pytest.raises(RefreshRefused):
        await world.logins.refresh(answer.refresh_token, CALLER)
    await world.logins.revoke(refreshed.refresh_token, CALLER)
    everything = json.dumps([each.__dict__ for each in caplog.records], default=str)
    secrets = ["hunter2", "correct horse", "open sesame", answer.access_token, answer.refresh_token,
               refreshed.access_token, refreshed.refresh_token, "$argon2"]  # fmt: skip
    assert [secret for secret in secrets if secret in everything] == []


async def test_turned_off_authentication_lets_everybody_do_everything_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door: Authentication = OpenDoor(clock=Clock())
    assert any(each.levelno == logging.WARNING and "TURNED OFF" in each.message for each in caplog.records)
    assert not door.enabled
    assert door.ready
    answer = await door.login(PasswordCredentials("anybody", "anything"), CALLER)
    assert door.principal(f"Bearer {answer.access_token}") == door.principal(None) == ANONYMOUS
    assert ANONYMOUS.role is Role.OWNER
    assert await door.refresh("", CALLER) == answer
    await door.revoke("", CALLER)
    assert door.jwks() == {"keys": []}
