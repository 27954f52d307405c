"""The files that HAProxy starts from: haproxy.cfg, pools.map and hold.lua, in one directory with the sockets."""

from __future__ import annotations

import contextlib
from importlib import resources
from pathlib import Path
from typing import Final

from sessionpools.gateway.backends import Allocation
from sessionpools.gateway.config import Files, read_allocation

__all__ = ["ADMIN_SOCKET", "CONFIG", "HOLD", "MAP", "MASTER_SOCKET", "REQUESTS_SOCKET", "load_allocation", "write"]

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
    the configuration."""
    hold = resources.files("sessionpools.gateway").joinpath(HOLD).read_text()
    changed = False
    if not (directory / CONFIG).exists():
        changed |= _write_if_other(directory / MAP, files.pools_map)
    for name, text in ((HOLD, hold), (CONFIG, files.haproxy_cfg), (MAP, files.pools_map)):
        changed |= _write_if_other(directory / name, text)
    return changed


def load_allocation(directory: Path) -> Allocation:
    """Which pool has which backend in the configuration that is there; nothing if none is. Raises ValueError if it is
    not one of ours."""
    try:
        return read_allocation((directory / CONFIG).read_text())
    except FileNotFoundError:
        return Allocation()


def _write_if_other(path: Path, text: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    beside.replace(path)
    return True
