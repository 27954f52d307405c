"""Tracebacks: the user's frames, and nobody else's."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sessionpools.session.userframes import MAX_CHARACTERS, UserCode, describe, details, headline

Make = Callable[..., ModuleType]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a module into the code directory, or elsewhere, and import it."""

    def module(name: str, text: str, folder: str = "code") -> ModuleType:
        path = tmp_path / folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        result = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(result)
        return result

    return module


def caught(function: Callable[..., Any], *arguments: Any) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def frames(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("File ")]


def test_library_frames_between_the_users_are_left_out(make: Make, tmp_path: Path) -> None:
    library = make("library", "def apply(f):\n    return f()\n", folder="lib/site-packages")
    user = make("user", "def predict(library):\n    return library.apply(inner)\ndef inner():\n    return 1 / 0\n")
    text = describe(caught(user.predict, library), UserCode(str(tmp_path / "code")))
    assert text.splitlines()[0] == "ZeroDivisionError: division by zero"
    assert frames(text) == ['File "user.py", line 2, in predict', 'File "user.py", line 4, in inner']
    assert "return library.apply(inner)" in text
    assert text.count("ZeroDivisionError") == 1


def test_a_library_that_raises_is_left_out_too(make: Make, tmp_path: Path) -> None:
    library = make("library", "def fail():\n    raise KeyError('bmi')\n", folder="lib")
    user = make("user", "def predict(library):\n    library.fail()\n")
    text = describe(caught(user.predict, library), UserCode(str(tmp_path / "code")))
    assert frames(text) == ['File "user.py", line 2, in predict']


def test_an_environment_inside_the_code_directory_is_a_library(make: Make, tmp_path: Path) -> None:
    library = make("library", "def fail():\n    raise KeyError\n", folder="code/.venv/lib/python3/site-packages/pkg")
    user = make("user", "def predict(library):\n    library.fail()\n")
    assert frames(describe(caught(user.predict, library), UserCode(str(tmp_path / "code")))) == [
        'File "user.py", line 2, in predict'
    ]


def test_without_a_frame_of_the_users_the_innermost_is_shown(make: Make, tmp_path: Path) -> None:
    library = make("library", "def fail():\n    deeper()\ndef deeper():\n    raise KeyError\n", folder="lib")
    text = describe(caught(library.fail), UserCode(str(tmp_path / "code")))
    assert frames(text) == [f'File "{tmp_path}/lib/library.py", line 4, in deeper']


def test_causes_are_told_with_the_users_frames_or_by_their_message(make: Make, tmp_path: Path) -> None:
    library = make("library", "def fail():\n    raise OSError('refused')\n", folder="lib")
    user = make(
        "user",
        """
        def predict(library):
            try:
                library.fail()
            except OSError as error:
                raise RuntimeError("no model") from error
        def context():
            try:
                {}["a"]
            except KeyError:
                1 / 0
        """,
    )
    code = UserCode(str(tmp_path / "code"))
    text = describe(caught(user.predict, library), code)
    assert text.splitlines()[0] == "RuntimeError: no model"
    assert "OSError: refused" in text
    assert "direct cause" in text
    assert [frame.split(", ")[1] for frame in frames(text)] == ["line 4", "line 6"]
    error = caught(user.predict, library)
    assert error.__cause__ is not None
    error.__cause__.__traceback__ = None
    text = describe(error, code)
    assert "OSError: refused\n\nThe above exception was the direct cause" in text
    text = describe(caught(user.context), code)
    assert "During handling of the above exception" in text
    assert [frame.split(", ")[1] for frame in frames(text)] == ["line 9", "line 11"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_exception_groups_are_told_with_their_members(make: Make, tmp_path: Path) -> None:
    library = make("library", "def fail():\n    raise OSError('refused')\n", folder="lib")
    user = make(
        "user",
        """
        def predict(library):
            found = []
            for f in (library.fail, own):
                try:
                    f()
                except Exception as error:
                    found.append(error)
            raise ExceptionGroup("two", found)
        def own():
            raise ValueError("mine")
        """,
    )
    text = describe(caught(user.predict, library), UserCode(str(tmp_path / "code")))
    assert text.splitlines()[0] == "ExceptionGroup: two (2 sub-exceptions)"
    assert "OSError: refused" in text
    assert "ValueError: mine" in text
    assert "library.py" not in text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the traceback module suggests names since Python 3.12")
def test_a_name_that_was_meant_is_suggested(make: Make, tmp_path: Path) -> None:
    user = make("user", "value = 1\ndef predict():\n    return valu\n")
    assert "Did you mean: 'value'" in describe(caught(user.predict), UserCode(str(tmp_path / "code")))


def test_an_installed_entrypoint_is_the_users_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "scoring_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "service.py").write_text("from scoring_pkg import model\ndef predict(): model.run()\n")
    (package / "model.py").write_text("def run(): raise ValueError\n")
    monkeypatch.syspath_prepend(str(package.parent))
    service = importlib.import_module("scoring_pkg.service")
    code = UserCode("")
    code.add_module(service)
    assert [f.split(",")[0] for f in frames(describe(caught(service.predict), code))] == [
        'File "service.py"',
        'File "model.py"',
    ]


def test_an_installed_module_alone_is_the_users(make: Make) -> None:
    user = make("user", "def predict(): raise ValueError\n", folder="site-packages")
    other = make("other", "def call(f): f()\n", folder="site-packages")
    code = UserCode("")
    code.add_module(user)
    assert [f.split(",")[0] for f in frames(describe(caught(other.call, user.predict), code))] == ['File "user.py"']


def test_no_text_is_longer_than_its_limit() -> None:
    class LongError(Exception):
        def __repr__(self) -> str:
            return "x"

    assert len(headline(LongError("x" * 1_000_000))) < 17_000
    assert len(describe(LongError("x\n" * 1_000_000), UserCode())) < MAX_CHARACTERS + 100
    assert len(details(LongError("x" * 1_000_000), UserCode())) < MAX_CHARACTERS + 100


def test_a_chain_that_goes_round_is_told() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert describe(one, UserCode()).startswith("ValueError: one\n")
