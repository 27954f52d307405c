"""What the measures run: services as session pods without containers, under FastAPI, and in interpreters of their own.

Each is a context manager that ends what it started. The session pod is the real runtime; see runtime_pod.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bench.client import PATH, connect
from support.runtime_pod import Pod, free_ports
from support.tools import ROOT

_START_SECONDS: Final = 180
# As the session runtime sets it: one thread per process for numeric libraries.
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MODULES: Final = ["numpy", "pandas", "sklearn"]


@dataclass(frozen=True)
class Service:
    """Code with what a revision says of it."""

    code: str
    inputs: dict[str, Any]  # of a call, and of the warm-up
    revision: dict[str, Any] = field(default_factory=dict)


def diabetes() -> Service:
    """The example of the manifests: a gradient boosting model with four inputs."""
    spec = yaml.safe_load((ROOT / "manifests/examples/diabetes/webservice.yaml").read_text())["spec"]
    keys = ("modules", "init", "entrypoint", "warmup", "inputs", "outputs")
    return Service(spec["code"]["inline"]["service.py"], spec["warmup"], {key: spec[key] for key in keys})


def ridge() -> Service:
    """The example with a linear model, which leaves more of a call to the server."""
    example = diabetes()
    code = example.code.replace(
        "sklearn.ensemble import GradientBoostingRegressor", "sklearn.linear_model import Ridge"
    )
    code = code.replace("GradientBoostingRegressor(random_state=0)", "Ridge()")
    return Service(code, example.inputs, example.revision)


def sleeper() -> Service:
    """Sleeps as long as it is told and answers its pid, beside as many imported modules as the example has."""
    code = """
        import os
        import time


        def predict(seconds: float) -> int:
            time.sleep(seconds)
            return os.getpid()
    """
    return Service(textwrap.dedent(code), {"seconds": 0}, {"modules": _MODULES, "warmup": {"seconds": 0}})


@contextlib.contextmanager
def session_pod(service: Service, initial: int = 1, maximum: int = 0, **settings: Any) -> Iterator[Pod]:
    """A session pod whose initial sessions, and spare, are ready."""
    sizes = {"initialPoolSize": initial, "maxPoolSize": maximum or initial}
    with tempfile.TemporaryDirectory() as directory:
        pod = Pod(Path(directory), service.code, settings={**sizes, **settings}, **service.revision)
        try:
            pod.start().wait_ready(_START_SECONDS).wait_spare()
            yield pod
        finally:
            pod.stop()


@dataclass(frozen=True)
class Server:
    """Something that answers the calls of a service."""

    port: int
    pid: int
    path: str = PATH
    token: str = ""  # that its callers bring; "": it asks for none

    @property
    def pids(self) -> list[int]:
        """Its processes, as they are now."""
        return process_tree(self.pid)


def pids(pod: Pod) -> list[int]:
    """Supervisor, template and sessions."""
    assert pod.process is not None
    return process_tree(pod.process.pid)


def process_tree(*roots: int) -> list[int]:
    """Processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    members = list(roots)
    for member in members:
        members += (child for child in children.get(member, []) if child not in members)
    return members


@contextlib.contextmanager
def fastapi(service: Service, kind: str, workers: int = 1) -> Iterator[Server]:
    """The service under FastAPI and uvicorn. Kind is `def` or `async def`."""
    port = free_ports()
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    if workers > 1:  # else uvicorn needs no process beside the one that answers
        flags += ["--workers", str(workers), "--timeout-worker-healthcheck", str(_START_SECONDS)]
    command = [sys.executable, "-m", "uvicorn", "bench.fastapi_app:app", "--port", str(port), *flags]
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "service.py").write_text(service.code)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env=environment(directory, BENCH_KIND=kind), cwd=directory
        )
        try:
            until_open(port, process)
            yield Server(port, process.pid)
        finally:
            end(process)


@contextlib.contextmanager
def own_interpreter(service: Service, calls: int) -> Iterator[int]:
    """An interpreter that imported, loaded and called the function so often, and now waits; its pid."""
    script = f"""
        import json, sys, {", ".join(_MODULES)}
        import service
        service.load()
        inputs = json.loads(sys.argv[1])
        for _ in range({calls}):
            service.predict(**inputs)
        print("done", flush=True)
        sys.stdin.read()
    """
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "service.py").write_text(service.code)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), json.dumps(service.inputs)],
            env=environment(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            if not any(line == "done\n" for line in process.stdout):
                raise RuntimeError("the interpreter ended before it was loaded")
            yield process.pid
        finally:
            end(process)


def environment(*folders: str, **more: str) -> Mapping[str, str]:
    path = os.pathsep.join([*folders, str(ROOT / "tests")])
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": path, **more}


def until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), connect(port):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.05)


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.wait(30)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
