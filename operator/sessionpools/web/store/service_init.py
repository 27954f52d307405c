"""Makes the variables that a published block of code starts with; `load` is the WebService's init.

This file is copied as it is into the bundle of each service that one of Machine Learning Server's clients publishes,
and runs in the session pods, on any Python 3.8 or later, with what their image has: the standard library, and dill if
there are objects. `web.store.bundles` does the copying; nothing imports it here.

Dill keeps functions, lambdas and classes of a notebook by value, and their globals as "those of __main__". So all
objects are loaded into one module that is __main__ meanwhile, the init block runs in it, and what either defines sees
all of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path
from typing import Any, Iterator  # noqa: UP035  collections.abc.Iterator takes no [] in Python 3.8

_FOLDER = Path(__file__).resolve().parent
_SUFFIX = ".dill"


def load() -> dict[str, Any]:
    """Every variable that the objects and the init block leave, but for those that begin with two underscores."""
    main = types.ModuleType("__main__")
    with _as_main(main), _files_as_current_folder():
        for path in sorted((_FOLDER / "objects").glob("*" + _SUFFIX)):
            name = path.name[: -len(_SUFFIX)]
            main.__dict__[name] = _loaded(path, name, main)
        _run(_FOLDER / "init_block.py", main)
    return {name: value for name, value in vars(main).items() if not name.startswith("__")}


def _loaded(path: Path, name: str, main: types.ModuleType) -> Any:
    try:
        import dill
    except ImportError:
        raise ModuleNotFoundError(
            "No module named 'dill', which loads the service's objects: add it to the image of the sessions"
        ) from None
    with path.open("rb") as file:
        unpickler = dill.Unpickler(file)  # noqa: S301  the publisher's own code, as all of this is
        unpickler._main = main  # whose globals functions of the publisher's __main__ get
        try:
            return unpickler.load()
        except Exception as error:
            raise _naming(error, name) from error


def _naming(error: Exception, name: str) -> Exception:
    """The error, saying which object it is about: `ModuleNotFoundError: No module named 'foo' (object 'model')`."""
    text = f"{error} (object {name!r})"
    with contextlib.suppress(Exception):  # a class that wants other arguments, or shows them otherwise
        if isinstance(error, ImportError):
            named: Exception = type(error)(text, name=error.name, path=error.path)
        else:
            named = type(error)(text)
        if text in str(named):
            return named
    return RuntimeError(f"{type(error).__name__}: {text}")


def _run(path: Path, main: types.ModuleType) -> None:
    main.__dict__["__file__"] = str(path)
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), main.__dict__)  # noqa: S102


@contextlib.contextmanager
def _as_main(main: types.ModuleType) -> Iterator[None]:
    before = sys.modules.get("__main__")
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        if before is not None:
            sys.modules["__main__"] = before


@contextlib.contextmanager
def _files_as_current_folder() -> Iterator[None]:
    """Paths in the init block are relative to the service's files, as they were in the publisher's workspace."""
    files = _FOLDER / "files"
    before = Path.cwd()
    if files.is_dir():
        os.chdir(files)
    try:
        yield
    finally:
        os.chdir(before)
