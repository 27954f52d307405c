"""`sessionpools run`: supervisors, slots and the gateway as processes of this machine, without a cluster.

What runs is what runs in session pods and in gateway pods; here each pool has one node, this one, and its sessions are
forked from one template whatever its isolation says. Ends when one of the processes does, or on Ctrl-C.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.client.published import InputError, Published
from sessionpools.core.pods import settings_of
from sessionpools.core.revision import resolve

__all__ = ["Options", "StartError", "serve"]

_HOST: Final = "127.0.0.1"
_NODE: Final = "local"
_PORTS: Final = range(20000, 32000)  # below those that the kernel gives to outgoing connections
_END_SECONDS: Final = 5.0  # what processes get beyond drainTimeoutSeconds
_FILES: Final = "session-pools-"
_GATEWAY_LOG: Final = "gateway.log"


class StartError(Exception):
    """A service does not become ready; the message is its own."""


@dataclass(frozen=True, slots=True)
class Options:
    port: int = 12800
    host: str = _HOST


@dataclass(slots=True)
class _Pod:
    """One supervisor."""

    published: Published
    pool: SessionPool
    folder: Path
    base_port: int
    process: subprocess.Popen[bytes]
    phase: str = ""

    @property
    def termination(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "termination-log").read_text().strip()
        return ""


def serve(published: Sequence[Published], options: Options) -> int:
    """Serve until interrupted; the exit code. Raises InputError and StartError before anything is served."""
    _check_free(options)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_FILES)))
        stop = _Stop()
        pods: list[_Pod] = []
        stack.callback(_end, pods)
        for number, item in enumerate(published):
            pods.append(_start(item, folder / f"pod-{number}", f"local-{number}"))
        started = time.monotonic()
        while not stop.asked and not _all_ready(pods, started):
            time.sleep(0.05)
        if stop.asked:
            return 0
        gateway = _start_gateway(pods, folder, options)
        stack.callback(_end_gateway, gateway, max(pod.pool.spec.request_timeout_seconds for pod in pods))
        _await_gateway(gateway, folder, options)
        _say_ready(pods, options)
        while not stop.asked:
            _check_gateway(gateway, folder)
            for pod in pods:
                if pod.process.poll() is not None:
                    raise StartError(f"{pod.published.label}: {pod.termination or 'its supervisor ended'}")
            time.sleep(0.2)
        _say("ending: calls that run are answered; once more Ctrl-C ends at once")
    return 0


class _Stop:
    """Ctrl-C and SIGTERM ask for the end; the second one ends this process, and its children by their own signals."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


# --- a pool ---------------------------------------------------------------------------------------------------------


def _start(item: Published, folder: Path, uid: str) -> _Pod:
    spec = item.pool.spec.model_copy(update={"isolation": Isolation.PROCESS})
    metadata = item.pool.metadata.model_copy(update={"uid": uid})
    pool = item.pool.model_copy(update={"spec": spec, "metadata": metadata})
    revision = resolve(pool, item.service, item.code, "")
    for name in ("revision", "live", "code", "bundle", "work"):
        (folder / name).mkdir(parents=True)
    for path, content in item.code.files:
        file = folder / "code" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    code = folder / ("bundle/code" if item.bundle_url else "code")
    document = {**revision.session, "code": item.folder or str(code)}
    (folder / "revision" / "session.json").write_text(json.dumps(document))
    (folder / "live" / "settings").write_text(settings_of(pool))
    base_port = _free_ports(spec.max_pool_size + 1) + 1
    flags = {
        "--config-dir": folder,
        "--work-dir": folder / "work",
        "--termination-log": folder / "termination-log",
        "--host": _HOST,
        "--base-port": base_port,
        "--control-port": base_port - 1,
        "--pool": f"{uid}/{revision.name}",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sessionpools.session", *(str(part) for pair in flags.items() for part in pair)],
            env={**os.environ, **_environment(item)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends them in order
        )
    return _Pod(item, pool, folder, base_port, process)


def _environment(item: Published) -> dict[str, str]:
    """The service's variables that are plain text; what comes from Secrets and the like is not here."""
    spec = item.service.spec
    for field, given in (("envFrom", spec.env_from), ("volumes", spec.volumes)):
        if given:
            _say(f"{item.label}: spec.{field} needs a cluster and is left out")
    found = {names.ENV_BUNDLE_URL: item.bundle_url}
    for variable in spec.env:
        if "valueFrom" in variable:
            _say(f"{item.label}: spec.env {variable['name']}: valueFrom needs a cluster; set it in your environment")
        else:
            found[variable["name"]] = str(variable.get("value", ""))
    return found


def _all_ready(pods: Sequence[_Pod], started: float) -> bool:
    found = [_ready(pod, started) for pod in pods]  # each is asked: all of them tell their phases
    return all(found)


def _ready(pod: _Pod, started: float) -> bool:
    """Whether it is; tells its phases. Raises StartError when it has failed."""
    if pod.process.poll() is not None:
        details = pod.termination or (pod.folder / "log").read_text(errors="replace")[-2000:]
        raise StartError(f"{pod.published.label}: {details}")
    view = _view(pod)
    if view is None:
        return False
    phase = str(view["phase"])
    if phase != pod.phase:
        pod.phase = phase
        _say(f"[{time.monotonic() - started:5.1f} s] {pod.published.label}: {phase}")
    return bool(view["ready"])


def _view(pod: _Pod) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://{_HOST}:{pod.base_port - 1}/sessions", timeout=2) as answer:
            view: dict[str, Any] = json.load(answer)
            return view
    except (OSError, ValueError):
        return None


def _end(pods: Sequence[_Pod]) -> None:
    running = [pod for pod in pods if pod.process.poll() is None]
    for pod in running:
        pod.process.send_signal(signal.SIGTERM)
    for pod in running:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            pod.process.wait(pod.pool.spec.drain_timeout_seconds + _END_SECONDS)
            continue
        pod.process.send_signal(signal.SIGINT)  # already draining: the second signal ends it and its sessions
        pod.process.wait(_END_SECONDS)


# --- the gateway ----------------------------------------------------------------------------------------------------


def _start_gateway(pods: Sequence[_Pod], folder: Path, options: Options) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sessionpools.gateway.local"]
    with (folder / _GATEWAY_LOG).open("wb") as log:  # HAProxy's own notices; the calls' lines go to standard output
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, start_new_session=True)
    described = {
        "directory": str(folder),
        "port": options.port,
        "host": options.host,
        "apiNamespace": _namespace(pods[0].published),
        "routes": [_route(pod) for pod in pods],
    }
    assert process.stdin is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(described).encode())
    return process


def _route(pod: _Pod) -> dict[str, Any]:
    service, pool = pod.published.service, pod.pool
    return {
        "namespace": _namespace(pod.published),
        "service": service.spec.name,
        "version": service.spec.version,
        "pool": pool.metadata.name,
        "poolUid": pool.metadata.uid,
        "queueLength": pool.spec.queue.max_length,
        "queueSeconds": pool.spec.queue.timeout_seconds,
        "requestSeconds": pool.spec.request_timeout_seconds,
        "slots": [
            {"server": f"{_NODE}:{pool.metadata.name}:{slot}", "address": _HOST, "port": pod.base_port + slot}
            for slot in range(pool.spec.max_pool_size)
        ],
    }


def _check_gateway(gateway: subprocess.Popen[bytes], folder: Path) -> None:
    if gateway.poll() is not None:
        said = (folder / _GATEWAY_LOG).read_text(errors="replace")[-2000:].strip()
        raise StartError(f"the gateway ended with exit code {gateway.returncode}: {said}")


def _await_gateway(gateway: subprocess.Popen[bytes], folder: Path, options: Options) -> None:
    for _ in range(200):
        _check_gateway(gateway, folder)
        with contextlib.suppress(OSError), socket.create_connection((options.host, options.port), timeout=1):
            return
        time.sleep(0.05)
    raise StartError(f"the gateway does not listen on port {options.port}")


def _end_gateway(gateway: subprocess.Popen[bytes], seconds: float) -> None:
    """Before the supervisors: it takes no new calls and ends when those that run are answered."""
    if gateway.poll() is not None:
        return
    gateway.send_signal(signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        gateway.wait(seconds + _END_SECONDS)
        return
    gateway.kill()
    gateway.wait()


# --- this machine ---------------------------------------------------------------------------------------------------


def _check_free(options: Options) -> None:
    try:
        with socket.create_server((options.host, options.port)):
            pass
    except OSError as error:
        raise InputError(
            f"port {options.port} of {options.host} can not be had ({error.strerror}): give --port"
        ) from None


def _free_ports(count: int) -> int:
    """The first of `count` consecutive ports that nobody listens on."""
    first = _PORTS.start
    while first + count <= _PORTS.stop:
        taken = next((port for port in range(first, first + count) if not _free(port)), None)
        if taken is None:
            return first
        first = taken + 1
    raise InputError(f"no {count} consecutive free ports between {_PORTS.start} and {_PORTS.stop}")


def _free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((_HOST, port))
        except OSError:
            return False
    return True


def _namespace(published: Published) -> str:
    return published.service.metadata.namespace or "default"


# --- words ----------------------------------------------------------------------------------------------------------


def _say_ready(pods: Sequence[_Pod], options: Options) -> None:
    _say("\nready; Ctrl-C ends it. One JSON line per call follows.")
    for line in _examples(pods, options):
        _say(line)
    _say("")


def _examples(pods: Sequence[_Pod], options: Options) -> Iterator[str]:
    first = _namespace(pods[0].published)
    for pod in pods:
        spec = pod.published.service.spec
        namespace = _namespace(pod.published)
        prefix = "" if namespace == first else f"/namespaces/{namespace}"
        url = f"http://{options.host}:{options.port}{prefix}/api/{quote(spec.name)}/{quote(spec.version)}"
        sizes = f"{pod.pool.spec.initial_pool_size} to {pod.pool.spec.max_pool_size} sessions"
        inputs = json.dumps(spec.warmup) if spec.warmup is not None else '{"NAME": VALUE}'
        yield f"  {pod.published.label}, {sizes}, logs in {pod.folder / 'log'}"
        yield f"    curl --json {_quoted(inputs)} {url}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
