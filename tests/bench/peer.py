"""A ready-made model server, BentoML, with the measured function; docs/benchmarks.md says why this one.

It has an environment of its own, build/peer-venv, made from requirements/peer.txt when it is measured first: nothing
else needs its 70 packages.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.figures import progress
from bench.services import Server, Service, end, environment, until_open
from support.runtime_pod import free_ports
from support.tools import ROOT

NAME: Final = "BentoML"
_LOCK: Final = ROOT / "requirements/peer.txt"
_VENV: Final = ROOT / "build/peer-venv"


@contextlib.contextmanager
def bentoml(service: Service, workers: int = 1) -> Iterator[Server]:
    """The service under BentoML with so many worker processes."""
    _install()
    port = free_ports()
    command = [str(_VENV / "bin/python"), "-m", "bentoml", "serve", "bench.bento_app:Peer", "--port", str(port)]
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "service.py").write_text(service.code)
        home = {"BENTOML_HOME": directory, "BENTOML_DO_NOT_TRACK": "True", "BENCH_WORKERS": str(workers)}
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--quiet"],
            stdout=subprocess.DEVNULL,
            env=environment(directory, PATH=f"{_VENV / 'bin'}{os.pathsep}{os.environ['PATH']}", **home),
            cwd=directory,
        )
        try:
            until_open(port, process)
            yield Server(port, process.pid)
        finally:
            end(process)


def _install() -> None:
    mark, wanted = _VENV / ".lock", hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return
    progress(f"{NAME}: install {_LOCK.relative_to(ROOT)} into {_VENV.relative_to(ROOT)}")
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_VENV)], check=True, env=alone)
    flags = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([str(_VENV / "bin/pip"), "install", *flags, "--requirement", str(_LOCK)], check=True, env=alone)
    mark.write_text(wanted)
