"""Huge pages for what a process has loaded, so that its forks copy and free fewer page table entries.

Where the kernel does not offer it (before Linux 6.1, or switched off for the process), nothing changes. Called by the
template, once, before it forks.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from typing import Any, Final

HUGE_BYTES: Final = 2 << 20
_PAGES: Final = HUGE_BYTES // mmap.PAGESIZE
_LEAST_PAGES: Final = _PAGES // 2  # a huge page makes memory of all that it covers: not where most of it is untouched
_MADV_COLLAPSE: Final = 25

_libc: Any = ctypes.CDLL(None, use_errno=True)


def collapse() -> int:
    """Put this process's anonymous memory on huge pages where most of it is in use; how many there are now."""
    resident = (ctypes.c_ubyte * _PAGES)()
    done = 0
    with contextlib.suppress(OSError, ValueError):
        for begin, end in list(_anonymous()):
            for address in range(-(-begin // HUGE_BYTES) * HUGE_BYTES, end - HUGE_BYTES + 1, HUGE_BYTES):
                place = ctypes.c_void_p(address)
                if _libc.mincore(place, HUGE_BYTES, resident) == 0 and sum(resident) >= _LEAST_PAGES:
                    done += _libc.madvise(place, HUGE_BYTES, _MADV_COLLAPSE) == 0
    return done


def _anonymous() -> Iterator[tuple[int, int]]:
    """Begin and end of the private, writable mappings that no file is behind, the heap among them; not the stack."""
    with open("/proc/self/maps") as file:
        for line in file:
            addresses, access, _, _, inode, *name = line.split(maxsplit=5)
            if access == "rw-p" and inode == "0" and (not name or name[0].startswith(("[heap]", "[anon"))):
                begin, end = (int(address, 16) for address in addresses.split("-"))
                yield begin, end
