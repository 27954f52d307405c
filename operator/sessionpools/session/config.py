"""What a session pod is told: its revision, its live settings, and where its files and ports are.

Frozen values, read once at the edge and passed on. Never imports the rest of Session Pools: this package runs in users'
images. Called by the supervisor (everything) and by the template and the sessions (through `Launch`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

MAX_SLOTS = 1024  # rows of the shared memory; a kubelet holds 110 pods, a node seldom more interpreters than that
FORMAT = 1  # of session.json
_MOST = 2**31 - 1  # of any setting: seconds, sessions, requests


class ConfigError(ValueError):
    """The revision or the settings cannot be used. The message is a sentence for the pod's termination log."""


@dataclass(frozen=True)
class RevisionSpec:
    """session.json: all that decides what a session is. Immutable while the pod lives."""

    name: str = ""
    version: str = ""
    code: str = ""
    entrypoint: str = ""
    script: str = ""
    init: str = ""
    modules: tuple[str, ...] = ()
    warmup: dict[str, Any] | None = None
    inputs: tuple[dict[str, str], ...] | None = None
    outputs: tuple[dict[str, str], ...] | None = None
    output_files: tuple[str, ...] = ()
    fork_safe: bool = True
    bundle: str = ""  # the sha256 of the archive that `code` is to hold; "": the code is there

    @classmethod
    def parse(cls, text: bytes | str) -> RevisionSpec:
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"session.json is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError("session.json is not a JSON object")
        if raw.get("format") != FORMAT:
            raise ConfigError(f"session.json has format {raw.get('format')!r}, this runtime reads {FORMAT}")
        service = raw.get("service") or {}
        spec = cls(
            name=service.get("name", ""),
            version=service.get("version", ""),
            code=raw.get("code") or "",
            entrypoint=raw.get("entrypoint") or "",
            script=raw.get("script") or "",
            init=raw.get("init") or "",
            modules=tuple(raw.get("modules") or ()),
            warmup=raw.get("warmup"),
            inputs=None if raw.get("inputs") is None else tuple(raw["inputs"]),
            outputs=None if raw.get("outputs") is None else tuple(raw["outputs"]),
            output_files=tuple(raw.get("outputFiles") or ()),
            fork_safe=raw.get("forkSafe", True) is not False,
            bundle=(raw.get("bundle") or {}).get("sha256", ""),
        )
        if bool(spec.entrypoint) == bool(spec.script):
            raise ConfigError("session.json must name exactly one of entrypoint and script")
        return spec

    @classmethod
    def read(cls, path: str) -> RevisionSpec:
        try:
            with open(path, "rb") as file:
                return cls.parse(file.read())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Settings:
    """The live file: what may change without a new revision."""

    initial_pool_size: int = 1
    max_pool_size: int = 1
    idle_timeout_seconds: float = 300
    request_timeout_seconds: float = 60
    start_timeout_seconds: float = 600
    drain_timeout_seconds: float = 60
    recycle_after_requests: int = 0

    @classmethod
    def parse(cls, text: bytes | str) -> Settings:
        """Read the JSON of the annotation; unknown keys belong to a newer controller and are ignored."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the settings are not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError("the settings are not a JSON object")
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = raw.get(camel(item.name), item.default)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
                raise ConfigError(f"the setting {camel(item.name)} is {value!r}, not a number of 0 to {_MOST}")
            whole = item.name in ("initial_pool_size", "max_pool_size", "recycle_after_requests")
            values[item.name] = int(value) if whole else value
        values["initial_pool_size"] = min(values["initial_pool_size"], MAX_SLOTS)
        values["max_pool_size"] = min(max(values["max_pool_size"], values["initial_pool_size"]), MAX_SLOTS)
        return cls(**values)

    def as_json(self) -> dict[str, float]:
        return {camel(item.name): getattr(self, item.name) for item in fields(self)}


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class SettingsFile:
    """The live file on disk: read again when the kubelet has replaced it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._settings = Settings()

    def read(self) -> Settings:
        """The settings now; defaults while there is no file. A version that cannot be used raises ConfigError, once."""
        try:
            now = os.stat(self._path)
            stamp = (now.st_ino, now.st_mtime_ns, now.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                with open(self._path, "rb") as file:
                    self._settings = Settings.parse(file.read())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error
        return self._settings


@dataclass(frozen=True)
class Paths:
    """Where things are. The defaults are those of a session pod; flags or variables say otherwise on a laptop."""

    config_dir: str = "/etc/session-pools"
    work_dir: str = "/tmp"  # noqa: S108  an emptyDir of the pod
    termination_log: str = "/dev/termination-log"
    host: str = ""  # every address, IPv6 too where there is any
    base_port: int = 9000  # slot n listens on base_port + n
    control_port: int = 8999
    pool: str = ""  # "<pool uid>/<revision>"; X-Session-Pool must name this uid
    session_memory_bytes: int = 0  # 0: no limit of its own

    @property
    def revision_file(self) -> str:
        return os.path.join(self.config_dir, "revision", "session.json")

    @property
    def settings_file(self) -> str:
        return os.path.join(self.config_dir, "live", "settings")


@dataclass(frozen=True)
class Launch:
    """What the supervisor hands to a process that it executes: paths and the numbers of inherited descriptors."""

    paths: Paths
    channel_fd: int
    state_fd: int
    stack_fd: int
    slot: int = -1  # -1: a template; else a session that loads for itself and serves this slot
    listener_fd: int = -1
    connection_fds: tuple[int, ...] = ()
    max_slots: int = 1
    start_by: float = 0.0  # time.monotonic() at which its start has taken too long

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Launch:
        raw = json.loads(text)
        raw["paths"] = Paths(**raw["paths"])
        raw["connection_fds"] = tuple(raw["connection_fds"])
        return cls(**raw)


@dataclass(frozen=True)
class _Option:
    flag: str
    env: str
    field: str
    help: str
    kind: Callable[[str], str | int] = str


_OPTIONS = (
    _Option(
        "--config-dir", "SESSIONPOOLS_CONFIG_DIR", "config_dir", "directory of revision/session.json and live/settings"
    ),
    _Option("--work-dir", "SESSIONPOOLS_WORK_DIR", "work_dir", "writable directory; each slot gets one below it"),
    _Option("--termination-log", "SESSIONPOOLS_TERMINATION_LOG", "termination_log", "file for why the pod failed"),
    _Option("--host", "SESSIONPOOLS_HOST", "host", "address to listen on (default: all)"),
    _Option("--base-port", "SESSIONPOOLS_BASE_PORT", "base_port", "port of slot 0; slot n is base + n", int),
    _Option(
        "--control-port", "SESSIONPOOLS_CONTROL_PORT", "control_port", "port of /livez, /readyz, /sessions, ...", int
    ),
    _Option("--pool", "SESSIONPOOLS_POOL", "pool", "<pool uid>/<revision>; X-Session-Pool must name the uid"),
    _Option(
        "--session-memory", "SESSIONPOOLS_SESSION_MEMORY", "session_memory_bytes", "bytes of one session; 0: none", int
    ),
)


def parse_paths(arguments: Sequence[str], environ: Mapping[str, str]) -> Paths:
    """Read flags, then variables, then the defaults of a session pod. Ends the process on --help and on bad flags."""
    parser = argparse.ArgumentParser(
        prog="sessionpools-session",
        description="Run the slots of one session pool: import, load and warm once, then serve requests from warm "
        "interpreters, one request at a time each.",
        epilog="Each flag can be given by the variable in brackets too. Slots answer POST on any path; the control "
        "port answers GET /livez /readyz /sessions /signature /metrics.",
    )
    defaults = Paths()
    for option in _OPTIONS:
        default = getattr(defaults, option.field)
        shown = f" (default {default})" if default else ""
        parser.add_argument(option.flag, dest=option.field, help=f"{option.help}{shown} [{option.env}]")
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for option in _OPTIONS:
        text = given[option.field] if given[option.field] is not None else environ.get(option.env, "")
        if text == "":
            continue
        try:
            values[option.field] = option.kind(text)
        except ValueError:
            parser.error(f"{option.flag} ({option.env}): {text!r} is not a whole number")
    return Paths(**values)
