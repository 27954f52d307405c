"""Users are read from files that change while the web API runs; a mistake in one is named, and costs nobody a login."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionpools.web.auth.errors import UsersFileError, UsersUnavailable
from sessionpools.web.auth.identity import Identity, PasswordCredentials, Role
from sessionpools.web.auth.passwords import Passwords
from sessionpools.web.auth.users import LocalUsers, parse_users
from support.auth import hashed


def entry(name: str, password: str = "correct horse", role: str = "Reader") -> str:
    return f"- name: {name}\n  passwordHash: {hashed(password)}\n  role: {role}\n"


@pytest.fixture
def checker() -> Iterator[Passwords]:
    checker = Passwords()
    yield checker
    checker.close()


@pytest.fixture
def users(tmp_path: Path, checker: Passwords) -> LocalUsers:
    (tmp_path / "password").write_text("admin's\n")
    (tmp_path / "users.yaml").write_text(entry("ada", role="Contributor"))
    return LocalUsers(checker, admin_password=tmp_path / "password", users=tmp_path / "users.yaml")


async def login(users: LocalUsers, name: str, password: str) -> Identity | None:
    return await users.authenticate(PasswordCredentials(name, password))


async def test_admin_is_an_owner_by_the_password_in_the_file(users: LocalUsers) -> None:
    found = await login(users, "admin", "admin's")  # the newline at the end is the editor's
    assert found is not None
    assert (found.name, found.role) == ("admin", Role.OWNER)
    assert await login(users, "admin", "admin's\n") is None
    assert await login(users, "admin", "") is None


async def test_a_user_has_the_role_that_the_file_says(users: LocalUsers) -> None:
    found = await login(users, "ada", "correct horse")
    assert found is not None
    assert found.principal.role is Role.CONTRIBUTOR
    assert await login(users, "ada", "admin's") is None
    assert await login(users, "Ada", "correct horse") is None
    assert await login(users, "nobody", "correct horse") is None


async def test_a_changed_file_holds_from_the_next_login_on(users: LocalUsers, tmp_path: Path) -> None:
    assert await login(users, "ada", "correct horse")
    (tmp_path / "users.yaml").write_text(entry("ada", "battery staple") + entry("bob"))
    assert await login(users, "ada", "correct horse") is None
    assert await login(users, "ada", "battery staple")
    assert await login(users, "bob", "correct horse")
    (tmp_path / "password").write_text("another")
    assert await login(users, "admin", "admin's") is None
    assert await login(users, "admin", "another")


async def test_a_mounted_secret_is_seen_to_change(tmp_path: Path, checker: Passwords) -> None:
    """The kubelet lays a new directory beside the old one and turns a link."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    (tmp_path / "1" / "users.yaml").write_text(entry("ada"))
    (tmp_path / "2" / "users.yaml").write_text(entry("bob"))
    os.utime(tmp_path / "1" / "users.yaml", (1, 1))
    os.utime(tmp_path / "2" / "users.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "users.yaml").symlink_to("..data/users.yaml")
    users = LocalUsers(checker, admin_password=tmp_path / "none", users=tmp_path / "users.yaml")
    assert await users.find("ada")
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert await users.find("ada") is None
    assert await users.find("bob")


async def test_a_broken_new_file_keeps_the_last_good_one_and_is_logged(
    users: LocalUsers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await users.find("ada")
    (tmp_path / "users.yaml").write_text(entry("bob") + entry("carol", role="Reder"))
    assert await login(users, "ada", "correct horse")
    assert await users.find("bob") is None
    [line] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert f"{tmp_path / 'users.yaml'} line 6: user 'carol': role: " in line.__dict__["error"]
    (tmp_path / "users.yaml").write_text(entry("bob"))
    assert await users.find("bob")
    assert await users.find("ada") is None


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * (2**20 + 1), b"\x00", b"a: [", b"&a [*a]", b"[" * 9999])
async def test_whatever_the_file_holds_the_last_good_one_keeps(
    users: LocalUsers, tmp_path: Path, content: bytes
) -> None:
    assert await users.find("ada")
    (tmp_path / "users.yaml").write_bytes(content)
    assert await users.find("ada")


async def test_after_a_restart_a_broken_file_makes_nobody_unknown(tmp_path: Path, checker: Passwords) -> None:
    (tmp_path / "password").write_text("admin's")
    (tmp_path / "users.yaml").write_text("- just a name")
    users = LocalUsers(checker, admin_password=tmp_path / "password", users=tmp_path / "users.yaml")
    for asked in (users.find("ada"), login(users, "ada", "correct horse")):
        with pytest.raises(UsersUnavailable):
            await asked
    assert await login(users, "admin", "admin's")
    (tmp_path / "users.yaml").write_text(entry("ada"))
    assert await login(users, "ada", "correct horse")


async def test_a_password_that_can_not_be_read_is_not_taken_for_none(tmp_path: Path, checker: Passwords) -> None:
    (tmp_path / "password").mkdir()
    with pytest.raises(UsersUnavailable):
        await LocalUsers(checker, admin_password=tmp_path / "password").find("admin")


async def test_a_file_that_is_taken_away_holds_nobody(users: LocalUsers, tmp_path: Path) -> None:
    assert await users.find("ada")
    (tmp_path / "users.yaml").unlink()
    (tmp_path / "password").unlink()
    assert await users.find("ada") is None
    assert await users.find("admin") is None
    assert await login(users, "admin", "admin's") is None


async def test_an_empty_password_of_admin_lets_nobody_in(users: LocalUsers, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    assert await login(users, "admin", "") is None
    assert await login(users, "admin", "\n") is None


async def test_there_need_be_nobody_but_admin(tmp_path: Path, checker: Passwords) -> None:
    (tmp_path / "password").write_text("admin's")
    users = LocalUsers(checker, admin_password=tmp_path / "password")
    assert await login(users, "admin", "admin's")
    assert await users.find("ada") is None


async def test_a_stamp_changes_with_the_password_and_with_nothing_else(
    users: LocalUsers, tmp_path: Path, checker: Passwords
) -> None:
    async def stamps(source: LocalUsers) -> tuple[str, str]:
        admin, ada = await source.find("admin"), await source.find("ada")
        assert admin and ada
        return admin.stamp, ada.stamp

    before = await stamps(users)
    replica = LocalUsers(checker, admin_password=tmp_path / "password", users=tmp_path / "users.yaml")
    assert await stamps(replica) == before
    (tmp_path / "users.yaml").write_text(entry("bob") + entry("ada", role="Owner"))
    assert await stamps(users) == before
    (tmp_path / "users.yaml").write_text(entry("ada", "battery staple"))
    (tmp_path / "password").write_text("another")
    after = await stamps(users)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_an_identity_does_not_show_what_its_password_was_made_into() -> None:
    assert "stamp" not in repr(Identity("ada", Role.READER, "stamp"))
    [user] = parse_users(entry("ada")).values()
    assert "argon2" not in repr(user)


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "[]", "---\n", "null"])
def test_a_file_without_users_is_fine(text: str) -> None:
    assert parse_users(text) == {}


GOOD = entry("ada")
HASH = hashed("correct horse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + entry("bob", role="Reder"), "users.yaml line 6: user 'bob': role: Input should be 'Owner', 'Contr"),
        (GOOD + "- name: bob\n  role: Reader\n", "users.yaml line 4: user 'bob': passwordHash: Field required"),
        (GOOD + f"- name: bob\n  password: x\n  passwordHash: {HASH}\n  role: Reader\n",
         "users.yaml line 5: user 'bob': password: Extra inputs are not permitted"),
        (GOOD + "- name: bob\n  passwordHash: swordfish\n  role: Reader\n",
         "users.yaml line 5: user 'bob': passwordHash: is no argon2 hash: make one with `sessionpools hash-password`"),
        (GOOD + GOOD, "users.yaml line 4: user 'ada': name: is there twice: remove one of the two"),
        (entry("admin"), "users.yaml line 1: user 'admin': name: 'admin' is taken: choose another name"),
        (entry("anonymous"), "users.yaml line 1: user 'anonymous': name: 'anonymous' is taken"),
        (entry("'a b'"), "users.yaml line 1: user 'a b': name: String should match pattern"),
        (entry('"a\\n"'), "users.yaml line 1: user 'a\\n': name: String should match pattern"),
        (entry("123"), "users.yaml line 1: user '123': name: Input should be a valid string"),
        (GOOD + "- just a name\n", "users.yaml line 4: user number 2: Input should be a valid dictionary"),
        ("users:\n" + GOOD, "users.yaml line 1: use a list of users, each with name, passwordHash and role"),
        ("some words", "users.yaml line 1: use a list of users"),
        (GOOD + "- name: [\n", "users.yaml line 5: this is not YAML: "),
        ("- !!python/object:os.system {}\n", "users.yaml line 1: this is not YAML: could not determine a constructor"),
        ("- name: 2026-99-99\n", "users.yaml: this is not YAML (ValueError)"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_user_and_field(text: str, message: str) -> None:
    with pytest.raises(UsersFileError) as refused:
        parse_users(text)
    assert message in str(refused.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UsersFileError) as refused:
        parse_users(entry("a b") + entry("bob", role="King"))
    assert len(str(refused.value).splitlines()) == 2


def test_a_password_in_the_wrong_place_is_not_repeated() -> None:
    for text in (
        "- name: bob\n  passwordHash: swordfish\n  role: swordfish\n",
        "- name: bob\n  passwordHash: [swordfish\n",
        "swordfish",
        "- swordfish",
        "- name: bob\n  passwordHash: \"swordfish\n",
    ):  # fmt: skip
        with pytest.raises(UsersFileError) as refused:
            parse_users(text)
        assert "swordfish" not in str(refused.value)


async def test_a_file_that_could_not_be_read_is_read_when_it_can_be(
    users: LocalUsers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def broken(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "users.yaml":
            raise OSError(5, "Input/output error")
        return opened(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", broken)
        with pytest.raises(UsersUnavailable):
            await users.find("ada")
    found = await users.find("ada")
    assert found is not None
