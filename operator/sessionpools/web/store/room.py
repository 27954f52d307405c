"""The temporary directory of a replica: how much of it is taken, and folders in it that are gone after their use.

The chart gives a pod an emptyDir of a certain size, and a pod that writes more is evicted, with everybody's requests.
So whoever is about to write there first takes what the whole of its work may need, once, and waits while there is not
so much: two that each hold a part and wait for the rest would wait for each other. `NoRoom` is what a request gets that
waited in vain. Called by authoring.py, bundles.py, received.py and web.publishing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from sessionpools.web.store.errors import FULL, NoRoom, TooLarge

__all__ = ["ROOM_BYTES", "WAIT_SECONDS", "Room", "mib", "sweep", "temporary_folder", "to_end"]

# Of the chart's 4 GiB (web-deployment.yaml): the largest work there is, an update of a service of 2 GiB, takes 3.2.
ROOM_BYTES: Final = 3584 << 20
WAIT_SECONDS: Final = 10.0  # as long as the gateway waits between two pieces of a body

_PREFIX: Final = "session-pools-web-"
_NEW_SECONDS: Final = 60  # a folder has no lock for the moment in which it is made

P = ParamSpec("P")
T = TypeVar("T")


class Room:
    """So many bytes, given to whoever asks first."""

    def __init__(self, size: int = ROOM_BYTES, wait_seconds: float = WAIT_SECONDS) -> None:
        self._size = size
        self._free = size
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def take(self, size: int, what: str) -> AsyncIterator[None]:
        """Have `size` bytes in the block. Raises NoRoom, naming `what` they are for; TooLarge for what never fits."""
        if size > self._size:
            raise TooLarge(f"{what}: needs {mib(size)} of temporary files, and there are {mib(self._size)}")
        await self._get(size, what)
        try:
            yield
        finally:
            self._free += size
            self._serve()

    async def _get(self, size: int, what: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._serve()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was ours by then
                self._free += size
            else:
                self._waiting.remove((size, turn))
            self._serve()
            if isinstance(error, TimeoutError):
                raise NoRoom(
                    f"{what}: needs {mib(size)} of temporary files, which other uploads and publications have now: try "
                    "again later"
                ) from None
            raise

    def _serve(self) -> None:
        """In order, so that a large one's turn comes too."""
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of our own, which is removed with the block. Raises NoRoom where the disk is full, or a quota."""
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name, _locked(Path(name)):
            yield Path(name)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoRoom(
            f"the temporary directory {tempfile.gettempdir()} of this replica is full ({error.strerror}): try again "
            "later; if that stays, look at the disk of its node"
        ) from error


def sweep() -> None:
    """Remove folders of processes that are gone: a container that was killed leaves them to the next one of its pod."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, gone by now, or in use
            if path.stat().st_mtime < time.time() - _NEW_SECONDS:
                with _locked(path):
                    shutil.rmtree(path)


async def to_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread. Cancelled, it still waits for the thread, so that nothing is written into a folder that was
    removed, nor by who has no room any more."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def mib(count: int) -> str:
    """A limit in words: 512 MiB."""
    return f"{count >> 20} MiB"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises BlockingIOError when another process has it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
