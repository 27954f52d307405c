"""The controller as a process of its own beside a cluster: what it takes, and what it says of itself."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scale_controller import PODS_PORT
from bench.scale_metrics import Samples
from support.cluster import kubectl
from support.tools import ROOT

LOG: Final = ROOT / "build/bench-scale-controller.log"
START_SECONDS: Final = 300.0  # until it has listed 10,000 session pods on a busy machine, and leads
_STOP_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Controller:
    """One that runs, and leads."""

    pid: int
    metrics_url: str
    started_seconds: float  # from its start until it led

    def metrics(self) -> Samples:
        with urllib.request.urlopen(self.metrics_url, timeout=30) as answer:
            return Samples.parse(answer.read().decode(), "sessionpools_controller_")

    def cpu_seconds(self) -> float:
        """Of all its threads, those that have ended included."""
        return cpu_seconds(Path(f"/proc/{self.pid}/stat").read_text())

    def memory_mb(self) -> tuple[float, float]:
        """What it has of memory now (resident), and the most that it ever had."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        now, most = (float(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
        return now, most


def cpu_seconds(stat: str) -> float:
    """What a line of /proc/PID/stat says of processor time, in user and kernel mode."""
    after_name = stat.rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


@contextlib.contextmanager
def kubeconfig(context: str) -> Iterator[Path]:
    """One whose only context this is: the controller takes the current one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        path.touch(0o600)
        path.write_text(kubectl("config", "view", "--raw", "--minify", "--flatten", context=context).stdout)
        yield path


@contextlib.contextmanager
def controller(config: Path, namespace: str, pods_port: int) -> Iterator[Controller]:
    """It watches all namespaces and has its Lease in this one."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "KUBECONFIG": str(config),
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("operator", "tests")),
        "PATH": os.environ.get("PATH", ""),
        "POD_NAME": "bench-controller",
        "POD_NAMESPACE": namespace,
        "SESSIONPOOLS_SESSION_IMAGE": "session:bench",
        "SESSIONPOOLS_LEASE": "session-pools-controller",
        "SESSIONPOOLS_HTTP_PORT": str(port),
        PODS_PORT: str(pods_port),
    }
    LOG.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with LOG.open("ab") as log:
        command = [sys.executable, "-m", "bench.scale_controller"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        _until_it_leads(process, url, began + START_SECONDS)
        yield Controller(process.pid, url, time.monotonic() - began)
    finally:
        _stop(process)


def _until_it_leads(process: subprocess.Popen[bytes], url: str, deadline: float) -> None:
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            found = Samples.parse(answer.read().decode(), "sessionpools_controller_leading")
            if found.total("sessionpools_controller_leading"):
                return
        time.sleep(0.1)
    ended = "has not begun to lead" if process.poll() is None else f"has ended with {process.returncode}"
    raise RuntimeError(f"the controller {ended}: {LOG}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Kubernetes does it: it gives its Lease back, so that the next one does not have to wait."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def writes(samples: Samples) -> Mapping[tuple[str, str], float]:
    """The writes that its client sent, those that were refused included, by verb and resource."""
    calls = samples.by("sessionpools_controller_api_seconds_count", "verb", "resource")
    return {
        (verb, resource): count for (verb, resource), count in calls.items() if verb not in ("get", "list", "watch")
    }
