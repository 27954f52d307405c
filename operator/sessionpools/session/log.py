"""JSON lines on standard output: one per thing that happened, none per loop.

Called by supervisor, template and sessions. A line is one write, so that lines of several processes do not mix.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any


class Log:
    def __init__(self, fd: int = 1, **always: Any) -> None:
        self.fd = fd
        self._always = always

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        line = {"time": stamp, "level": level, "event": event, **self._always, **fields}
        data = json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            pass  # nobody reads: not a reason to stop serving
