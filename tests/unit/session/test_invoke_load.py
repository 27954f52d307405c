"""Loading: the phases, and the first line that a person reads when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionpools.session.invoke import LoadError
from unit.session.services import Serve, serving


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as run:
        yield run


def failure(run: Serve, code: str, **revision: Any) -> LoadError:
    with pytest.raises(LoadError) as caught:
        run(code, **revision)
    assert "sessionpools/session" not in caught.value.details
    assert "\n" not in caught.value.summary
    return caught.value


def test_phases_are_reported_in_order(run: Serve) -> None:
    code = "def load(): pass\ndef predict(): pass\n"
    service = run(code, modules=("json", "math"), init="MODULE:load")
    assert service.phases == ["import json", "import math", "import MODULE", "init"]


def test_init_of_another_module_is_imported_too(run: Serve) -> None:
    service = run(
        "import setup_x\ndef predict(): return setup_x.MODEL\n",
        init="setup_x:load",
        files={"setup_x.py": "def load():\n    global MODEL\n    MODEL = 5\n"},
    )
    assert service.value() == 5


def test_an_async_init_is_awaited(run: Serve) -> None:
    code = """
        import asyncio
        async def load():
            global X
            await asyncio.sleep(0)
            X = 1
        def predict():
            return X
    """
    assert run(code, init="MODULE:load").value() == 1


@pytest.mark.parametrize(
    ("code", "revision", "summary"),
    [
        ("import no_such\n", {}, "ModuleNotFoundError: No module named 'no_such' (import MODULE)"),
        ("", {"modules": ("no_such",)}, "ModuleNotFoundError: No module named 'no_such' (import no_such)"),
        ("", {"entrypoint": "nowhere:predict"}, "ModuleNotFoundError: No module named 'nowhere' (import nowhere)"),
        ("x = 1\ndef predict(:\n", {}, "SyntaxError: invalid syntax (MODULE.py, line 2)"),
        ("x = 1\n y = 2\n", {}, "IndentationError: unexpected indent (MODULE.py, line 2)"),
        ("raise ValueError('two\\nlines')\n", {}, "ValueError: two lines (import MODULE)"),
        ("import sys\nsys.exit(3)\n", {}, "SystemExit: 3 (import MODULE)"),
        ("x = 1\n", {}, "EntrypointNotFound: MODULE has no function 'predict'"),
        ("predict = 1\n", {}, "EntrypointInvalid: MODULE:predict is not a function but of type int"),
        ("def predict():\n    yield 1\n", {}, "EntrypointInvalid: MODULE:predict is a generator"),
        ("async def predict():\n    yield 1\n", {}, "EntrypointInvalid: MODULE:predict is an async generator"),
        (
            "class P:\n    def __call__(self):\n        yield 1\npredict = P()\n",
            {},
            "EntrypointInvalid: MODULE:predict is a generator",
        ),
        (
            "def predict(*args): pass\n",
            {},
            "EntrypointInvalid: MODULE:predict has *args: inputs are passed by name",
        ),
        (
            "def predict(a, /): pass\n",
            {},
            "EntrypointInvalid: MODULE:predict has the positional-only parameter 'a': inputs are passed by name",
        ),
        (
            "def predict(a): pass\n",
            {"inputs": {"a": "numeric", "b": "numeric"}},
            "EntrypointInvalid: MODULE:predict has no parameter 'b', which is a declared input",
        ),
        (
            "def predict(a, b): pass\n",
            {"inputs": {"a": "numeric"}},
            "EntrypointInvalid: MODULE:predict requires the parameter 'b', which is not among the declared inputs",
        ),
        (
            "def predict(a): pass\n",
            {"inputs": {"a": "float"}},
            "EntrypointInvalid: MODULE:predict declares the type 'float' for 'a'; types are numeric, integer, logical, "
            "character, vector, matrix, data.frame, any",
        ),
        ("def predict(): pass\n", {"init": "MODULE:load"}, "InitNotFound: MODULE has no function 'load'"),
        (
            "load = 1\ndef predict(): pass\n",
            {"init": "MODULE:load"},
            "InitInvalid: MODULE:load is not a function but of type int",
        ),
        (
            "def load(): 1 / 0\ndef predict(): pass\n",
            {"init": "MODULE:load"},
            "ZeroDivisionError: division by zero (init)",
        ),
    ],
)
def test_the_summary_says_what_failed_and_where(run: Serve, code: str, revision: dict[str, Any], summary: str) -> None:
    assert re.sub(r"service_\d+", "MODULE", failure(run, code, **revision).summary) == summary


def test_the_details_are_the_users_frames(run: Serve) -> None:
    details = failure(run, "def load():\n    open('/no/such')\ndef predict(): pass\n", init="MODULE:load").details
    lines = details.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'py", line 2, in load' in lines[1]
    assert lines[-1] == "FileNotFoundError: [Errno 2] No such file or directory: '/no/such'"
    assert "importlib" not in details


def test_a_syntax_error_shows_the_line(run: Serve) -> None:
    assert "def predict(:" in failure(run, "def predict(:\n").details


def test_a_module_with_the_name_of_one_that_is_loaded_is_refused(run: Serve) -> None:
    error = failure(run, "", entrypoint="signal:predict", files={"signal.py": "def predict(): pass\n"})
    assert error.summary == "ImportError: Python has a module 'signal' of its own; rename signal.py (import signal)"


def test_a_method_of_a_module_object_can_be_the_entrypoint(run: Serve) -> None:
    code = "class Model:\n    def predict(self, x: float): return x\nmodel = Model()\n"
    assert run(code, entrypoint="MODULE:model.predict").value(x=2) == 2.0


# --- warm-up ----------------------------------------------------------------------------------------------------------


def test_a_warm_up_calls_the_function(run: Serve) -> None:
    service = run("CALLS = []\ndef predict(x: int):\n    CALLS.append(x)\n    return CALLS\n", warmup={"x": 1})
    service.service.warm_up(service.work.path)
    assert service.value(x=2) == [1, 2]


@pytest.mark.parametrize(
    ("warmup", "summary"),
    [
        ({"x": 0}, "ZeroDivisionError: division by zero (warmup)"),
        ({"x": "a"}, "InputInvalid: input 'x': expected integer, got string (warmup)"),
        ({}, "InputInvalid: input 'x': missing (warmup)"),
    ],
)
def test_a_warm_up_that_fails_is_told(run: Serve, warmup: dict[str, Any], summary: str) -> None:
    service = run("def predict(x: int):\n    return 1 // x\n", warmup=warmup)
    with pytest.raises(LoadError) as caught:
        service.service.warm_up(service.work.path)
    assert caught.value.summary.replace("integer division or modulo", "division") == summary


def test_a_hook_that_fails_is_told(run: Serve) -> None:
    service = run("def after_fork():\n    raise OSError('no connection')\ndef predict(): pass\n")
    with pytest.raises(LoadError, match=r"^OSError: no connection \(after_fork\)$"):
        service.service.after_fork()
