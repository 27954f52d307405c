"""The local users: `admin`, with the password in a file, and those of a users file. Both are read again on a change.

The files are mounted Secrets: an edit reaches them about a minute later, and then the next login. The users file is a
YAML list:

    - name: ada
      passwordHash: $argon2id$v=19$m=65536,t=3,p=4$...      # made by `sessionpools hash-password`
      role: Contributor                                     # Owner, Contributor or Reader

A new file that says something impossible is logged, with line, user and field, and the last good one holds. Where there
is none, after a restart, nobody is said to be gone: UsersUnavailable. A file that is not there holds nobody: who takes
it away means that.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sessionpools.core.passwords import SALT_BYTES, hash_password, problem_with_hash
from sessionpools.web.auth.errors import UsersFileError, UsersUnavailable
from sessionpools.web.auth.identity import ADMIN, ANONYMOUS, Credentials, Identity, Role
from sessionpools.web.auth.passwords import Passwords

__all__ = ["LocalUsers", "User", "parse_users"]

_log = logging.getLogger(__name__)

_BYTES_AT_MOST: Final = 2**20  # a Secret holds no more
# The stamp of admin has to be the same in every replica and after each start, so the salt of its hash is no secret.
_ADMIN_SALT: Final = hashlib.sha256(b"session-pools admin").digest()[:SALT_BYTES]


def _name(name: str) -> str:
    if name in (ADMIN, ANONYMOUS.name):
        raise ValueError(f"{name!r} is taken: choose another name")
    return name


def _hash(text: str) -> str:
    if problem := problem_with_hash(text):
        raise ValueError(problem)
    return text


class User(BaseModel):
    """An entry of the users file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # What fits into paths of messages, annotations and logs as it is.
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$"), AfterValidator(_name)]
    password_hash: Annotated[str, Field(alias="passwordHash", repr=False), AfterValidator(_hash)]
    role: Role


_USERS: Final = TypeAdapter(list[User])


def parse_users(text: str, file: str = "users.yaml") -> dict[str, User]:
    """The users by name. Raises UsersFileError with every problem there is, a line each; none quotes a value."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        content = [] if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsersFileError(f"{file}{line}: this is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # unprintable, a date of no calendar, nested too deep
        raise UsersFileError(f"{file}: this is not YAML ({type(error).__name__})") from None
    if root is None or content is None:
        return {}
    try:
        users = _USERS.validate_python(content)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [_problem(file, root, each["loc"], each["msg"].removeprefix("Value error, ")) for each in problems]
        raise UsersFileError("\n".join(lines)) from None
    by_name: dict[str, User] = {}
    for index, user in enumerate(users):
        if user.name in by_name:
            raise UsersFileError(_problem(file, root, (index, "name"), "is there twice: remove one of the two"))
        by_name[user.name] = user
    return by_name


def _problem(file: str, root: yaml.Node, loc: tuple[int | str, ...], message: str) -> str:
    """`users.yaml line 7: user 'bob': role: ...`"""
    if not loc or not isinstance(root, yaml.SequenceNode) or not isinstance(loc[0], int):
        return f"{file} line {root.start_mark.line + 1}: use a list of users, each with name, passwordHash and role"
    entry = root.value[loc[0]]
    line, name = entry.start_mark.line, f"number {loc[0] + 1}"
    if isinstance(entry, yaml.MappingNode):
        for key, value in entry.value:
            if key.value == "name" and isinstance(value, yaml.ScalarNode) and value.value:
                name = repr(value.value)
            if len(loc) > 1 and key.value == loc[1]:
                line = key.start_mark.line
    field_name = f"{loc[1]}: " if len(loc) > 1 else ""
    return f"{file} line {line + 1}: user {name}: {field_name}{message}"


@dataclass(frozen=True, slots=True)
class _Known:
    """Somebody who may log in."""

    identity: Identity
    password_hash: str = field(repr=False)


def _known(name: str, role: Role, password_hash: str) -> _Known:
    stamp = hashlib.sha256(password_hash.encode()).hexdigest()
    return _Known(Identity(name, role, stamp), password_hash)


_UNSEEN: Final = (-1, -1, -1)


class _File:
    """A file, and whether it is another than when it was last asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = _UNSEEN

    def changed(self) -> bool:
        """Also the first time. The kubelet replaces a mounted Secret by a link to another directory, which is another
        inode."""
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = None
        changed, self._seen = seen != self._seen, seen
        return changed

    def read(self) -> str | None:
        """Its text; None if there is no such file. Raises UsersFileError if it can not be read."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_BYTES_AT_MOST + 1)
            if len(content) > _BYTES_AT_MOST:
                raise UsersFileError(f"{self.path}: larger than {_BYTES_AT_MOST} bytes")
            return content.decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._seen = _UNSEEN  # the file may be as it was when it can be read again
            raise UsersFileError(f"{self.path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise UsersFileError(f"{self.path}: use UTF-8") from None


class LocalUsers:
    """An `IdentitySource` of two files; `users` is left out where there is nobody but admin. Its methods raise
    UsersUnavailable, and TooManyAttempts (passwords.py)."""

    def __init__(self, passwords: Passwords, *, admin_password: Path, users: Path | None = None) -> None:
        self._passwords = passwords
        self._admin_file = _File(admin_password)
        self._users_file = None if users is None else _File(users)
        # What the files say, by name; None until one was read for the first time.
        self._admin: Mapping[str, _Known] | None = None
        self._users: Mapping[str, _Known] | None = {} if users is None else None
        self._reading = asyncio.Lock()

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        known = await self._look_up(credentials.username)
        matches = await self._passwords.matches(credentials.password, known.password_hash if known else None)
        return known.identity if known and matches else None

    async def find(self, name: str) -> Identity | None:
        known = await self._look_up(name)
        return known.identity if known else None

    async def _look_up(self, name: str) -> _Known | None:
        async with self._reading:
            if self._admin_file.changed():
                await asyncio.to_thread(self._read_admin)  # it hashes
            if self._users_file is not None and self._users_file.changed():
                await asyncio.to_thread(self._read_users, self._users_file)
        known = self._admin if name == ADMIN else self._users
        if known is None:
            raise UsersUnavailable
        return known.get(name)

    def _read_admin(self) -> None:
        file = self._admin_file
        try:
            text = file.read()
            # `kubectl create secret --from-file` keeps the newline that an editor ends a file with.
            password = (text or "").removesuffix("\n").removesuffix("\r")
            if not password:
                self._admin = {}
                _log.warning("admin has no password and can not log in", extra={"file": str(file.path)})
                return
            self._admin = {ADMIN: _known(ADMIN, Role.OWNER, hash_password(password, _ADMIN_SALT))}
        except (UsersFileError, ValueError) as error:
            _log.error("admin's password not read: the last one holds", extra={"error": str(error)})
            return
        _log.info("admin's password read", extra={"file": str(file.path)})

    def _read_users(self, file: _File) -> None:
        try:
            text = file.read()
            users = parse_users(text or "", str(file.path))
        except UsersFileError as error:
            _log.error("users file not read: the last one holds", extra={"error": str(error)})
            return
        self._users = {user.name: _known(user.name, user.role, user.password_hash) for user in users.values()}
        _log.info("users file read", extra={"file": str(file.path), "users": len(self._users)})
