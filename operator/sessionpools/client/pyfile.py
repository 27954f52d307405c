"""Which functions of a Python file answer calls and run before them. The file is read, not run.

The same for `sessionpools run` and for publishing: `predict`, or the only public function, answers; `init` or `load`
runs once before.
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionpools.client.errors import InputInvalid

__all__ = ["Functions", "functions_of"]

_INIT: Final = ("init", "load")  # functions of a Python file that run once
_ENTRYPOINT: Final = "predict"


@dataclass(frozen=True, slots=True)
class Functions:
    """`module:function` each; init is empty where there is none."""

    entrypoint: str
    init: str = ""


def functions_of(path: Path) -> Functions:
    """Raises InputInvalid, which names file, line and remedy."""
    if not path.stem.isidentifier():
        raise InputInvalid(f"{path}: {path.stem!r} is no module name: use letters, digits and _")
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise InputInvalid(f"{path}:{error.lineno}: SyntaxError: {error.msg}") from None
    found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    public = [name for name in found if not name.startswith("_") and name not in _INIT]
    if _ENTRYPOINT not in public and len(public) != 1:
        has = f"has {', '.join(public)}" if public else "has no public function"
        raise InputInvalid(
            f"{path}: {has}: name the function that answers calls {_ENTRYPOINT}, or publish a WebService"
        )
    function = _ENTRYPOINT if _ENTRYPOINT in public else public[0]
    init = next((name for name in _INIT if name in found), "")
    return Functions(f"{path.stem}:{function}", f"{path.stem}:{init}" if init else "")
