"""What is published, as the REST API takes it: from a function, a Python file, a folder or a script.

- A function of an imported module: the file of that module.
- A function of the main program or a notebook: itself, with the values that it uses, by dill. Its byte code runs only
  in the Python version (3.11, 3.12, ...) that it comes from; the session says so where it is another one.
- A file or folder: its files as they are.
- A script: a block of code that is run for each call with the inputs as variables, as Machine Learning Server has it.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sessionpools.client.errors import InputInvalid
from sessionpools.client.pyfile import functions_of

__all__ = ["Source", "definitions", "source_of", "type_name"]

_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "build", "dist"})  # and what begins with a dot
_SKIPPED_SUFFIXES: Final = frozenset({".pyc", ".pyo"})
_ENTRY_FILE: Final = "service.py"  # of a folder, where nothing else is said
_FILES: Final = 1000  # as the REST API has it
_MAIN: Final = "__main__"

_FROM_DILL: Final = '''"""A function and the values that it uses, published from Python {version}."""

import pathlib
import sys

if sys.version_info[:2] != {numbers}:
    raise RuntimeError(
        "this function was published from the main program of Python {version}, and this image has "
        f"{{sys.version_info[0]}}.{{sys.version_info[1]}}: publish it as a file, or use an image with {version}"
    )

import dill

predict = dill.loads(pathlib.Path(__file__).with_name("function.dill").read_bytes())
'''

_TYPES: Final[Mapping[str, str]] = {
    "builtins.float": "numeric",
    "builtins.int": "integer",
    "builtins.str": "character",
    "builtins.bool": "logical",
    "numpy.array": "vector",
    "numpy.ndarray": "vector",
    "numpy.matrix": "matrix",
    "numpy.matrixlib.defmatrix.matrix": "matrix",
    "pandas.DataFrame": "data.frame",
    "pandas.core.frame.DataFrame": "data.frame",
}
_NAMED: Final[Mapping[str, str]] = {
    **{kind: kind for kind in ("numeric", "integer", "character", "logical", "vector", "matrix", "data.frame")},
    "float": "numeric",
    "int": "integer",
    "str": "character",
    "bool": "logical",
    "DataFrame": "data.frame",
    **{name: kind for name, kind in _TYPES.items() if not name.startswith("builtins.")},
}


@dataclass(frozen=True, slots=True)
class Source:
    """`fields` of the publication that say what code it is, and the files that go with it, by relative path; `name` is
    what it may be called when nobody says so. An `init` that the code does not have is empty, so that an update takes
    away that of the code before."""

    fields: Mapping[str, str]
    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)


def source_of(code: Callable[..., Any] | Path | str, *, entrypoint: str = "", script: bool = False) -> Source:
    """Raises InputInvalid, which names file and remedy. Reads files; imports and runs nothing of theirs."""
    if callable(code):
        if script or entrypoint:
            raise InputInvalid("script and entrypoint are for files: a function is its own entrypoint")
        return _from_function(code)
    if script and isinstance(code, str) and "\n" in code:
        return Source({"code": code}, "")
    path = Path(code)
    if not path.exists():
        raise InputInvalid(f"{path}: there is no such file or folder")
    if path.is_dir():
        if script:
            raise InputInvalid(f"{path}: a script is one file: give that, or publish the folder with an entrypoint")
        return _from_folder(path, entrypoint)
    if path.suffix != ".py":
        raise InputInvalid(f"{path}: give a .py file, a folder or a function; YAML is for kubectl apply")
    if script:
        return Source({"code": _text(path)}, path.stem)
    return _from_file(path, entrypoint)


def definitions(parameters: Mapping[str, Any] | None, what: str) -> list[dict[str, str]] | None:
    """Inputs or outputs by name and type, as the REST API takes them. Raises InputInvalid, naming the parameter."""
    if parameters is None:
        return None
    return [{"name": name, "type": type_name(kind, f"{what} {name!r}")} for name, kind in parameters.items()]


def type_name(kind: Any, what: str) -> str:
    """Machine Learning Server's name of a type that is given as its name, or as Python's, numpy's or pandas'."""
    name = kind if isinstance(kind, str) else f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
    found = _NAMED.get(name) if isinstance(kind, str) else _TYPES.get(name)
    if found is None:
        raise InputInvalid(
            f"{what}: {kind if isinstance(kind, str) else name} is no type: use float, int, str, bool, numpy.ndarray, "
            "numpy.matrix or pandas.DataFrame"
        )
    return found


# --- a function -----------------------------------------------------------------------------------------------------


def _from_function(function: Callable[..., Any]) -> Source:
    name = getattr(function, "__name__", "")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InputInvalid(f"{name}: is a generator: return the values, or a list of them")
    module = getattr(function, "__module__", None)
    if not inspect.isfunction(function):
        raise InputInvalid(f"{function!r}: is no plain function: wrap it in one")
    if module in (None, _MAIN) or "<locals>" in function.__qualname__:
        return _from_main(function, name)
    loaded = sys.modules.get(str(module))
    file = getattr(loaded, "__file__", None)
    if file is None:
        return _from_main(function, name)
    if "." in str(module) or Path(file).name == "__init__.py":
        raise InputInvalid(
            f"{module}.{name}: is in a package, whose other modules it may need: publish the folder that contains "
            f"{str(module).partition('.')[0]} with entrypoint={f'{module}:{name}'!r}"
        )
    path = Path(file)
    return Source({"entrypoint": f"{module}:{name}", "init": ""}, name, {path.name: _read(path)})


def _from_main(function: Callable[..., Any], name: str) -> Source:
    try:
        dill = importlib.import_module("dill")
    except ImportError:
        raise InputInvalid(
            f"{name}: a function of the main program is sent by dill, which is not installed: pip install dill, or "
            "publish a .py file"
        ) from None

    try:
        content: bytes = dill.dumps(function, recurse=True)
    except Exception as error:  # whatever the values of user code raise
        raise InputInvalid(
            f"{name}: it, or a value that it uses, can not be sent: {type(error).__name__}: {error}"
        ) from error
    numbers = sys.version_info[:2]
    module = _FROM_DILL.format(version=".".join(map(str, numbers)), numbers=tuple(numbers))
    files = {_ENTRY_FILE: module.encode(), "function.dill": content}
    return Source({"entrypoint": "service:predict", "init": ""}, "" if name == "<lambda>" else name, files)


# --- files ----------------------------------------------------------------------------------------------------------


def _from_file(path: Path, entrypoint: str) -> Source:
    return Source(_entry(path, entrypoint), path.stem, {path.name: _read(path)})


def _from_folder(folder: Path, entrypoint: str) -> Source:
    files = {str(path.relative_to(folder).as_posix()): _read(path) for path in _walk(folder)}
    if len(files) > _FILES:
        raise InputInvalid(
            f"{folder}: has {len(files)} files, more than {_FILES}: publish the folder of the code alone"
        )
    entry = folder / _ENTRY_FILE
    if not entrypoint and not entry.exists():
        python = sorted(name for name in files if name.endswith(".py") and "/" not in name)
        if len(python) != 1:
            has = f"has {', '.join(python)}" if python else "has no Python file"
            raise InputInvalid(f"{folder}: {has}: name the one that answers calls {_ENTRY_FILE}, or give an entrypoint")
        entry = folder / python[0]
    return Source(_entry(entry, entrypoint), folder.resolve().name, files)


def _entry(path: Path, entrypoint: str) -> dict[str, str]:
    if entrypoint:
        module, colon, function = entrypoint.partition(":")
        if not colon or not module or not function.isidentifier():
            raise InputInvalid(f"entrypoint {entrypoint!r}: must be module:function, such as service:predict")
        return {"entrypoint": entrypoint}
    functions = functions_of(path)
    return {"entrypoint": functions.entrypoint, "init": functions.init}


def _walk(folder: Path) -> Iterator[Path]:
    """Its files, sorted; not what tools leave behind, nor hidden ones, in which credentials tend to be."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED or path.suffix in _SKIPPED_SUFFIXES:
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputInvalid(f"{path}: can not be read: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError:
        raise InputInvalid(f"{path}: is not in UTF-8") from None
