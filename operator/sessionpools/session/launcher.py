"""Starting processes that run user code: the template, and sessions that load for themselves.

Called by the supervisor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sessionpools.session.channel import Channel
from sessionpools.session.config import Launch

# Thread pools of numeric libraries: a process with threads cannot be forked, and one request runs at a time anyway.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Child:
    """A process that the supervisor executed, in a process group of its own."""

    process: subprocess.Popen[bytes]
    channel: Channel
    started_at: float
    phase: str = "starting"
    phase_at: float = 0.0
    loaded: bool = False
    failure: tuple[str, str] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """One thread per process for numeric libraries, unless the user said otherwise."""
    return {**dict.fromkeys(_ONE_THREAD, "1"), **environ}


def spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Execute template.py with the launch's descriptors under the same numbers."""
    fds = (launch.channel_fd, launch.state_fd, launch.stack_fd, launch.listener_fd, *launch.connection_fds)
    return subprocess.Popen(
        [sys.executable, "-m", "sessionpools.session.template", launch.dumps()],
        stdin=subprocess.DEVNULL,
        pass_fds=[fd for fd in fds if fd >= 0],
        env=environment(os.environ),
        cwd="/",  # `python -m` imports from there first
        start_new_session=True,
    )
