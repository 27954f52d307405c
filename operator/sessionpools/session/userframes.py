"""What the author of a service reads about an exception: its type, its message, and the frames of their own files.

The first line is `TypeName: message`; then the traceback, causes and exception groups included, as Python prints it but
for these: frames of this runtime, of the import system and of libraries are left out, files are named relative to the
code directory, and the last line is not repeated when it is the first. An exception that has no frame of the user's
shows the innermost frame there is (a package that fails to import, say); causes without one show their message only.
Never raises: what cannot be formatted is named at least. Called by loading.py and invoke.py.
"""

from __future__ import annotations

import os
import traceback
from types import ModuleType
from typing import Any, Final

# A caller reads a message, not a dump; an exception that quotes its input may quote megabytes.
MAX_CHARACTERS: Final = 64 * 1024
_MAX_HEADLINE: Final = 16 * 1024
_RUNTIME: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class UserCode:
    """Which files are the user's: those of the code directory, but for an environment of libraries inside it."""

    def __init__(self, directory: str = "") -> None:
        self._directories: list[str] = []
        self._files: set[str] = set()
        if directory:
            self._add_directory(directory)

    def add_module(self, module: ModuleType) -> None:
        """The entrypoint's module is the user's, wherever it is installed, with the package that it is part of."""
        file = getattr(module, "__file__", None)
        if not file or self.owns(file):
            return
        levels = module.__name__.count(".") + (1 if os.path.basename(file).startswith("__init__.") else 0)
        if levels == 0:
            self._files.add(file)
            return
        directory = file
        for _ in range(levels):
            directory = os.path.dirname(directory)
        self._add_directory(directory)

    def owns(self, file: str) -> bool:
        return file in self._files or bool(self._directory_of(file))

    def short(self, file: str) -> str:
        directory = self._directory_of(file)
        return file[len(directory) :] if directory else os.path.basename(file)

    def _add_directory(self, directory: str) -> None:
        for path in (os.path.abspath(directory), os.path.realpath(directory)):
            if path.rstrip(os.sep) + os.sep not in self._directories:
                self._directories.append(path.rstrip(os.sep) + os.sep)

    def _directory_of(self, file: str) -> str:
        for directory in self._directories:
            if file.startswith(directory):
                rest = os.sep + file[len(directory) :]
                if not any(marker in rest for marker in _LIBRARIES):
                    return directory
        return ""


def headline(error: BaseException) -> str:
    """`TypeName: message`, or the name alone."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    return _cut(f"{name}: {message}" if message else name, _MAX_HEADLINE)


def describe(error: BaseException, code: UserCode) -> str:
    """The whole text: headline, then the traceback."""
    first = headline(error)
    try:
        frames = user_traceback(error, code)
    except Exception:  # no memory left, or an exception class that fails when it is looked at
        return _printable(first)
    # Python repeats it at the end, classes of modules with their module's name.
    qualified = f"{type(error).__module__}.{type(error).__qualname__}{first[len(type(error).__name__) :]}"
    for last in (first, qualified):
        if f"\n{frames}".endswith(f"\n{last}\n"):
            frames = frames[: -len(last) - 1]
            break
    return _printable(_cut(f"{first}\n{frames}".rstrip("\n"), MAX_CHARACTERS))


def details(error: BaseException, code: UserCode) -> str:
    """The traceback alone, for where the headline stands on a line of its own."""
    try:
        return _printable(_cut(user_traceback(error, code), MAX_CHARACTERS))
    except Exception:
        return ""


def user_traceback(error: BaseException, code: UserCode) -> str:
    """The traceback as Python prints it, with the user's frames only."""
    # Lines of source are read after the frames are chosen: library files are not worth reading.
    trace = traceback.TracebackException(type(error), error, error.__traceback__, lookup_lines=False, compact=True)
    todo: list[Any] = [trace]
    seen: set[int] = set()
    while todo:
        part = todo.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack = _choose(part.stack, code, or_innermost=part is trace)
        todo += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    return "".join(trace.format())


def _choose(stack: traceback.StackSummary, code: UserCode, or_innermost: bool) -> traceback.StackSummary | None:
    own = [frame for frame in stack if code.owns(frame.filename)]
    if not own and or_innermost:
        own = [f for f in stack if not f.filename.startswith(_RUNTIME) and not f.filename.startswith("<")][-1:]
    for frame in own:
        _ = frame.line  # looked up by the real name, before it is shortened
        if code.owns(frame.filename):
            frame.filename = code.short(frame.filename)
    return traceback.StackSummary.from_list(own) if own else None


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[{len(text) - limit} characters cut]"


def _printable(text: str) -> str:
    """Lone surrogates (undecodable file names in messages) cannot be sent as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
