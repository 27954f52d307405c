"""The files that HAProxy starts from: haproxy.cfg, pools.map, hold.lua and the keys that verify tokens (keys/KID.pem),
in one directory with the sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from sessionpools.gateway import keys, webapi
from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.config import Files, WebApi, read_allocation

__all__ = [
    "ADMIN_SOCKET",
    "CONFIG",
    "HOLD",
    "MAP",
    "MASTER_SOCKET",
    "REQUESTS_SOCKET",
    "load_allocation",
    "load_keys",
    "load_web_address",
    "write",
]

CONFIG: Final = "haproxy.cfg"
MAP: Final = "pools.map"
HOLD: Final = "hold.lua"
ADMIN_SOCKET: Final = "admin.sock"
MASTER_SOCKET: Final = "master.sock"
REQUESTS_SOCKET: Final = "requests.sock"  # HAProxy sends its log lines there


def write(directory: Path, files: Files) -> bool:
    """Make the files what they should be; whether one had to be written. A file that is read meanwhile is whole.

    The map comes last: one that is older than the configuration only lacks pools, a newer one could name a backend
    that the configuration does not have. But the configuration is never without one, as HAProxy begins when it sees
    the configuration. Keys are there before the configuration names them, and until it does no more."""
    hold = resources.files("sessionpools.gateway").joinpath(HOLD).read_text()
    changed = False
    for kid, pem in files.keys.items():
        changed |= _write_if_other(directory / keys.file_of(kid), pem)
    if not (directory / CONFIG).exists():
        changed |= _write_if_other(directory / MAP, files.pools_map)
    for name, text in ((HOLD, hold), (CONFIG, files.haproxy_cfg), (MAP, files.pools_map)):
        changed |= _write_if_other(directory / name, text)
    named = {(directory / keys.file_of(kid)).name for kid in files.keys}
    for file in _key_files(directory):
        if file.name not in named:
            file.unlink()
            changed = True
    return changed


def load_allocation(directory: Path) -> Allocation:
    """Which pool has which backend in the configuration that is there; nothing if none is. Raises ValueError if it is
    not one of ours."""
    return read_allocation(_configuration(directory))


def load_keys(directory: Path) -> Mapping[str, str]:
    """The keys that are there, by kid."""
    return keys.published({file.name: file.read_text() for file in _key_files(directory)}).keys


def load_web_address(directory: Path, web: WebApi) -> str:
    """The web API's address in the configuration that is there; "" if it has none."""
    return webapi.read_address(_configuration(directory), web)


def _configuration(directory: Path) -> str:
    try:
        return (directory / CONFIG).read_text()
    except FileNotFoundError:
        return ""


def _key_files(directory: Path) -> list[Path]:
    return sorted((directory / keys.DIRECTORY).glob(f"*{keys.SUFFIX}"))


def _write_if_other(path: Path, text: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.replace(path)
    return True
