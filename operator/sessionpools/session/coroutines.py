"""The event loop of a process, for `async def` entrypoints, init functions and hooks.

One loop for the life of a session: made at its first coroutine, never carried through a fork (parent and child would
share its epoll descriptor). Tasks that outlive a call continue during the next one. asyncio is imported when it is
needed. Called by loading.py and invoke.py.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Coroutine
from typing import Any, Final

_END_SECONDS: Final = 1.0  # the kernel needs microseconds


class CoroutineRunner:
    def __init__(self) -> None:
        self._loop: Any = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Cancel what still runs and end the loop's threads: a process that is going to fork may have none."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        import asyncio

        before = {thread.native_id for thread in threading.enumerate()}
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        _await_end(before - {thread.native_id for thread in threading.enumerate()})


def _await_end(threads: set[int | None]) -> None:
    """Python has joined them, the kernel may not have: whoever counts threads now would see them still."""
    deadline = time.monotonic() + _END_SECONDS
    while any(os.path.exists(f"/proc/self/task/{thread}") for thread in threads) and time.monotonic() < deadline:
        time.sleep(0.001)
