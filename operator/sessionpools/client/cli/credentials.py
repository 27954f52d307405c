"""The tokens of the command line: a file for each server, in the user's configuration directory, for nobody else.

    ~/.config/session-pools/current                    the address that was logged in to last
    ~/.config/session-pools/tokens/ADDRESS.json        its tokens, mode 0600
    ~/.config/session-pools/tokens/ADDRESS.json.lock   held while they are renewed

Passwords are never kept. The directory is what the platform has for it (Windows: AppData, macOS: Application Support).
"""

import json
import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import typer

from sessionpools.client.errors import InputInvalid
from sessionpools.client.tokens import Tokens

try:
    import fcntl
except ImportError:  # Windows: two commands at once may then renew one token twice, which ends the login
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileStore", "current_url", "directory", "remember_url"]

_OTHERS: Final = 0o077


def directory() -> Path:
    return Path(typer.get_app_dir("session-pools", force_posix=False))


def current_url() -> str:
    """The address that was logged in to last; empty where there was none."""
    try:
        return (directory() / "current").read_text().strip()
    except OSError:
        return ""


def remember_url(url: str) -> None:
    _write(directory() / "current", f"{url}\n")


class FileStore:
    """The tokens of one server. See sessionpools.client.tokens.Store."""

    def __init__(self, url: str) -> None:
        self._path = directory() / "tokens" / f"{quote(url, safe='')}.json"

    def load(self) -> Tokens | None:
        try:
            mode = self._path.stat().st_mode
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputInvalid(f"{self._path}: can not be read: {error.strerror}") from None
        if os.name == "posix" and mode & _OTHERS:
            raise InputInvalid(f"{self._path}: others can read it, and so your token: chmod 600 it, and log in again")
        try:
            fields = json.loads(text)
            return Tokens(fields["access"], fields["expiresAt"], fields["refresh"], fields["lifetime"])
        except (ValueError, KeyError, TypeError):
            raise InputInvalid(f"{self._path}: is damaged: remove it, and log in again") from None

    def save(self, tokens: Tokens | None) -> None:
        if tokens is None:
            self._path.unlink(missing_ok=True)
            return
        fields = {
            "access": tokens.access,
            "expiresAt": tokens.expires_at,
            "refresh": tokens.refresh,
            "lifetime": tokens.lifetime,
        }
        _write(self._path, json.dumps(fields))

    def try_lock(self) -> AbstractContextManager[object] | None:
        _make(self._path.parent)
        file = Path(f"{self._path}.lock").open("w")  # noqa: SIM115  # closing it lets go of the lock
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
        return file


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others: mkstemp's mode is 0600."""
    _make(path.parent)
    try:
        number, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(number, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError as error:
        raise InputInvalid(f"{path}: can not be written: {error.strerror}") from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputInvalid(
            f"{folder}: can not be made: {error.strerror}: set XDG_CONFIG_HOME to another place"
        ) from None
