"""Preference for what is measured, and for the client, while blocks of calls run.

On a machine that does other work, the time of a call of 0.2 ms would else be that of the scheduler's queue. Real-time
scheduling goes before all of it, whatever control group it is in. All sides of a comparison get the same; where it is
not permitted (it takes root), nothing happens, and the control tells whether the run is of use.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_FIRST: Final = (os.SCHED_RR, 1)
_AS_ALL: Final = (os.SCHED_OTHER, 0)


@contextlib.contextmanager
def preferred(pids: Iterable[int]) -> Iterator[None]:
    """This process and the given ones come first, with their threads, and with those that they start meanwhile."""
    threads = [thread for pid in [os.getpid(), *pids] for thread in _threads(pid)]
    _set(threads, *_FIRST)
    try:
        yield
    finally:
        _set(threads, *_AS_ALL)


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return []


def _set(threads: Iterable[int], policy: int, priority: int) -> None:
    for thread in threads:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(thread, policy, os.sched_param(priority))
