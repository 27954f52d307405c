"""Scripts: inputs are variables, outputs are variables, nothing stays between requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionpools.session.invoke import LoadError
from unit.session.services import Running, Serve, serving


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as run:
        yield run


def script(run: Serve, text: str, files: dict[str, str] | None = None, **revision: Any) -> Running:
    revision.setdefault("outputs", {"answer": "any"})
    return run(script="score.py", files={"score.py": text, **(files or {})}, **revision)


def test_inputs_and_outputs_are_variables(run: Serve) -> None:
    service = script(
        run,
        "total = a + b\nnames = 'x'\n",
        inputs={"a": "numeric", "b": "integer"},
        outputs={"total": "numeric", "names": "character"},
    )
    assert service.outputs(a=1, b=2) == {"total": 3.0, "names": "x"}
    assert service.refusal({"a": 1}) == "input 'b': missing"
    assert service.service.signature() == {
        "inputs": [
            {"name": "a", "type": "numeric", "required": True},
            {"name": "b", "type": "integer", "required": True},
        ],
        "outputs": [{"name": "total", "type": "numeric"}, {"name": "names", "type": "character"}],
    }


def test_undeclared_inputs_may_be_anything(run: Serve) -> None:
    assert script(run, "answer = [x, y]").value(x=1, y=[2]) == [1, [2]]


def test_each_request_has_a_namespace_of_its_own(run: Serve) -> None:
    service = script(run, "try:\n    count += 1\nexcept NameError:\n    count = 1\nanswer = count\n")
    assert [service.value() for _ in range(3)] == [1, 1, 1]


def test_a_variable_that_the_script_did_not_set_is_named(run: Serve) -> None:
    error = script(run, "x = 1\n", outputs={"x": "any", "y": "any"}).error()
    assert error == "OutputError: output 'y': the script set no such variable"


def test_what_init_returns_is_there_in_each_request(run: Serve) -> None:
    service = script(
        run,
        "answer = [model['weight'], more]\nmore = 'changed'\n",
        {"setup_script.py": "def load():\n    return {'model': {'weight': 2}, 'more': 'unchanged'}\n"},
        init="setup_script:load",
    )
    assert service.phases == ["import score.py", "import setup_script", "init"]
    assert service.value() == service.value() == [2, "unchanged"]


def test_what_is_copied_for_each_request_are_names_and_not_objects(run: Serve) -> None:
    service = script(
        run,
        "answer = [list(seen), len(seen)]\nseen.append(x)\nseen = 'mine'\ndel other\n",
        {"setup_names.py": "def load():\n    return {'seen': [], 'other': 1, 'x': 'of init'}\n"},
        init="setup_names:load",
        inputs={"x": "integer"},
    )
    assert [service.value(x=1), service.value(x=2), service.value(x=3)] == [[[], 0], [[1], 1], [[1, 2], 2]]


def test_a_script_runs_as_the_main_module(run: Serve) -> None:
    service = script(
        run,
        """
        import pickle, sys
        class Thing:
            pass
        copy = pickle.loads(pickle.dumps(Thing()))
        if __name__ == "__main__":
            answer = [type(copy).__name__, __file__.endswith("score.py")]
        """,
    )
    before = sys.modules["__main__"]
    assert service.value() == ["Thing", True]
    assert sys.modules["__main__"] is before


def test_a_script_that_fails_shows_its_own_lines(run: Serve) -> None:
    error = script(run, "def f():\n    return 1 / 0\nanswer = f()\n").error()
    assert [line.strip() for line in error.splitlines() if "File" in line] == [
        'File "score.py", line 3, in <module>',
        'File "score.py", line 2, in f',
    ]


def test_a_script_may_exit(run: Serve) -> None:
    assert script(run, "import sys\nsys.exit('enough')\n").error().startswith("SystemExit: enough\n")


def test_a_script_lets_go_of_what_it_held(run: Serve) -> None:
    service = script(
        run,
        """
        import sys, weakref
        class Thing: pass
        def keep(): return thing
        thing = Thing()
        sys.refs = getattr(sys, "refs", [])
        answer = [ref() is None for ref in sys.refs]
        sys.refs.append(weakref.ref(thing))
        """,
    )
    try:
        assert service.value() == []
        assert service.value() == [True]
    finally:
        del sys.refs  # type: ignore[attr-defined]


def test_hooks_of_a_scripts_init_module_are_called(run: Serve) -> None:
    files = {"setup_hook.py": "STATE = []\ndef after_fork(): STATE.append(1)\ndef load(): return {'state': STATE}\n"}
    service = script(run, "answer = state\n", files, init="setup_hook:load")
    service.service.after_fork()
    assert service.value() == [1]


@pytest.mark.parametrize(
    ("text", "revision", "summary"),
    [
        ("x = (\n", {}, "SyntaxError: '(' was never closed (score.py, line 1)"),
        (
            "x = 1\n",
            {"script": "other.py"},
            "EntrypointNotFound: no script 'other.py' in the code: No such file or directory",
        ),
        (
            "x = 1\n",
            {"outputs": None},
            "EntrypointInvalid: score.py declares no outputs: name the variables that it gives",
        ),
    ],
)
def test_a_script_that_cannot_be_served_is_told(run: Serve, text: str, revision: dict[str, Any], summary: str) -> None:
    with pytest.raises(LoadError) as caught:
        run(**{"script": "score.py", "files": {"score.py": text}, "outputs": {"x": "any"}, **revision})
    assert caught.value.summary == summary
