"""Imports the user's code and finds what the revision names in it; every failure is a LoadError in the user's words.

    LoadError      what the termination log says: `summary` its first line, `details` the traceback of the user's frames

Runs user code, so never in the supervisor. Called by invoke.py.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, Protocol

from sessionpools.session import userframes
from sessionpools.session.coroutines import CoroutineRunner
from sessionpools.session.userframes import UserCode

_SUMMARY_CHARACTERS = 1000  # of the 4096 bytes of the termination log

Report = Callable[[str], None]


class LoadError(Exception):
    """The revision cannot be served: an import, init, warm-up or hook failed, or something is not there."""

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.details = details


class Spec(Protocol):
    """What is needed of a revision; config.RevisionSpec is one."""

    @property
    def code(self) -> str: ...
    @property
    def entrypoint(self) -> str: ...
    @property
    def script(self) -> str: ...
    @property
    def init(self) -> str: ...
    @property
    def modules(self) -> Sequence[str]: ...
    @property
    def warmup(self) -> Mapping[str, Any] | None: ...
    @property
    def inputs(self) -> Sequence[Mapping[str, str]] | None: ...
    @property
    def outputs(self) -> Sequence[Mapping[str, str]] | None: ...
    @property
    def output_files(self) -> Sequence[str]: ...


@dataclass
class Loaded:
    """The user's code, imported and initialised. Either `function` or `script` is there."""

    code: UserCode
    function: Callable[..., Any] | None = None
    script: CodeType | None = None
    module: ModuleType | None = None  # the entrypoint's, or a script's init's: where hooks are looked for
    variables: dict[str, Any] = field(default_factory=dict)  # a script starts with what init returned


def load(spec: Spec, report: Report, runner: CoroutineRunner) -> Loaded:
    """Import modules, then the code, then run init. `report` is told each phase before it begins."""
    code = UserCode(spec.code)
    if spec.code:
        sys.path.insert(0, os.path.abspath(spec.code))
    importlib.invalidate_caches()
    for name in spec.modules:
        _import(name, report, code)
    loaded = Loaded(code)
    if spec.script:
        report(f"import {spec.script}")
        loaded.script = _compile(os.path.join(os.path.abspath(spec.code), spec.script), spec.script, code)
    else:
        module_name, _, path = spec.entrypoint.partition(":")
        loaded.module = _import_code(module_name, report, code, spec.code)
        loaded.function = _entrypoint(loaded.module, module_name, path)
    if spec.init:
        _initialise(spec, report, runner, loaded)
    return loaded


def call_hook(loaded: Loaded, name: str, runner: CoroutineRunner) -> None:
    """Call a function of the entrypoint's module, if there is one of this name."""
    hook = getattr(loaded.module, name, None)
    if callable(hook):
        with failing(name, loaded.code):
            finish(hook(), runner)


def finish(result: Any, runner: CoroutineRunner) -> Any:
    """What a function returned, or what the coroutine that it returned gives."""
    return runner.run(result) if inspect.iscoroutine(result) else result


@contextlib.contextmanager
def failing(phase: str, code: UserCode) -> Iterator[None]:
    """Turn whatever the user's code raises into a LoadError of this phase."""
    try:
        yield
    except LoadError:
        raise
    except BaseException as error:
        where = "" if isinstance(error, SyntaxError) else f" ({phase})"
        summary = " ".join(userframes.headline(error).split())[:_SUMMARY_CHARACTERS]
        raise LoadError(summary + where, userframes.details(error, code)) from None


# --- importing --------------------------------------------------------------------------------------------------------


def _import(name: str, report: Report, code: UserCode) -> ModuleType:
    phase = f"import {name}"
    report(phase)
    with failing(phase, code):
        return importlib.import_module(name)


def _import_code(name: str, report: Report, code: UserCode, directory: str) -> ModuleType:
    """Import a module of the code; not one of the same name that Python has already loaded."""
    top = name.partition(".")[0]
    there = sys.modules.get(top)
    own = next((p for p in (f"{top}.py", f"{top}/__init__.py") if os.path.exists(os.path.join(directory, p))), "")
    if directory and there is not None and own and not code.owns(getattr(there, "__file__", None) or ""):
        raise LoadError(f"ImportError: Python has a module {top!r} of its own; rename {own} (import {name})")
    module = _import(name, report, code)
    code.add_module(module)
    return module


def _compile(path: str, name: str, code: UserCode) -> CodeType:
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise LoadError(f"EntrypointNotFound: no script {name!r} in the code: {error.strerror}") from None
    with failing(f"import {name}", code):
        return compile(source, path, "exec", dont_inherit=True)


def _find(module: ModuleType, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), module)


def _entrypoint(module: ModuleType, module_name: str, path: str) -> Callable[..., Any]:
    try:
        function = _find(module, path)
    except AttributeError:
        raise LoadError(f"EntrypointNotFound: {module_name} has no function {path!r}") from None
    name = f"{module_name}:{path}"
    if not callable(function):
        raise LoadError(f"EntrypointInvalid: {name} is not a function but of type {type(function).__name__}")
    call = getattr(function, "__call__", None)  # noqa: B004  an object's method may be a generator
    for candidate in (function, call):
        if inspect.isgeneratorfunction(candidate):
            raise LoadError(f"EntrypointInvalid: {name} is a generator")
        if inspect.isasyncgenfunction(candidate):
            raise LoadError(f"EntrypointInvalid: {name} is an async generator")
    return function  # type: ignore[no-any-return]


def _initialise(spec: Spec, report: Report, runner: CoroutineRunner, loaded: Loaded) -> None:
    module_name, _, path = spec.init.partition(":")
    if loaded.module is not None and loaded.module.__name__ == module_name:
        module = loaded.module
    else:
        module = _import_code(module_name, report, loaded.code, spec.code)
    try:
        function = _find(module, path)
    except AttributeError:
        raise LoadError(f"InitNotFound: {module_name} has no function {path!r}") from None
    if not callable(function):
        raise LoadError(f"InitInvalid: {spec.init} is not a function but of type {type(function).__name__}")
    report("init")
    with failing("init", loaded.code):
        result = finish(function(), runner)
    if loaded.script is not None:
        loaded.module = module
        if isinstance(result, dict):
            loaded.variables = result
