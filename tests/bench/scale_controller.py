"""The controller's own program, for simulated pods: `python -m bench.scale_controller`, started by bench.scale_process.

It differs from `session-pools-controller` in one thing: what goes to the control port of a pod, whatever the pod's
address, goes to bench.scale_pods on this machine. Nothing answers at a simulated pod's own address, and each inquiry
would wait for a second.
"""

import os
import socket
from typing import Any, Final

import uvloop

from sessionpools.api import names
from sessionpools.controller.__main__ import main

PODS_PORT: Final = "SCALE_PODS_PORT"  # the environment variable that says where bench.scale_pods answers


class _Loop(uvloop.Loop):
    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        to_pod = isinstance(address, tuple) and address[1] == names.CONTROL_PORT
        await super().sock_connect(sock, ("127.0.0.1", int(os.environ[PODS_PORT])) if to_pod else address)


if __name__ == "__main__":
    uvloop.new_event_loop = _Loop
    main()
