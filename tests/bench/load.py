"""Closed-loop load on as many connections as are wanted: wrk where it is installed, else a process per connection.

In a closed loop each connection sends its next request when it has its answer, so that the servers are as busy as they
can be: it tells throughput. Its latencies are those of a busy server and leave out what did not get sent meanwhile;
open_loop.py tells what a caller sees.
"""

import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bench.client import Caller
from bench.services import Server, end

WRK: Final = shutil.which("wrk")
CLIENT: Final = "wrk, 1 thread" if WRK else "a Python process per connection"

_SCRIPT: Final = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %s
%s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"requests": %%d, "seconds": %%f, "errors": %%d, "refused": %%d}\\n', summary.requests,
    summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
"""


@dataclass(frozen=True)
class Load:
    requests: int  # answered with 200
    seconds: float
    errors: int  # answered otherwise, or not at all

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def closed_loop(server: Server, inputs: Mapping[str, Any], connections: int, seconds: int) -> Load:
    """Load for so long."""
    if WRK is None:
        return _with_processes(server, inputs, connections, seconds)
    with tempfile.TemporaryDirectory() as directory:
        command = _wrk(server, inputs, connections, seconds, Path(directory))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return _parsed(done.stdout)


@contextmanager
def flood(server: Server, inputs: Mapping[str, Any], connections: int, seconds: int) -> Iterator[list[Load]]:
    """Load beside what the body does, for so long at most; what came of it is in the list afterwards."""
    if WRK is None:
        raise RuntimeError("wrk is not installed: this takes a client that takes little of the processors")
    found: list[Load] = []
    with tempfile.TemporaryDirectory() as directory:
        command = _wrk(server, inputs, connections, seconds, Path(directory))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(0.3)  # until the queue is what it will be
            yield found
            if process.poll() is not None:
                raise RuntimeError("the flood ended before what was measured beside it")
            process.send_signal(2)  # it tells what it has
            out, _ = process.communicate(timeout=30)
            found.append(_parsed(out))
        finally:
            end(process)


def _wrk(server: Server, inputs: Mapping[str, Any], connections: int, seconds: int, directory: Path) -> list[str]:
    script = directory / "call.lua"
    token = f'wrk.headers["Authorization"] = "Bearer {server.token}"' if server.token else ""
    script.write_text(_SCRIPT % (json.dumps(json.dumps(inputs)), token))  # a JSON string is one of Lua's
    url = f"http://127.0.0.1:{server.port}{server.path}"
    return [str(WRK), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]


def _parsed(out: str) -> Load:
    found = json.loads(out.splitlines()[-1])
    bad = found["errors"] + found["refused"]
    return Load(found["requests"] - found["refused"], found["seconds"], bad)


def _with_processes(server: Server, inputs: Mapping[str, Any], connections: int, seconds: int) -> Load:
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for _ in range(connections):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_call, args=(server, inputs, seconds, sender))
        process.start()
        pipes.append(receiver)
        processes.append(process)
    counts = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return Load(sum(good for good, _ in counts), seconds, sum(bad for _, bad in counts))


def _call(server: Server, inputs: Mapping[str, Any], seconds: int, sender: "Connection[tuple[int, int], Any]") -> None:
    good = bad = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with Caller(server.port, inputs, server.path, server.token) as caller:
                while time.monotonic() < until:
                    caller.call()
                    good += 1
        except OSError:
            bad += 1
    sender.send((good, bad))
