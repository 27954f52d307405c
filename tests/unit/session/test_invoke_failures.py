"""Whatever the user's code raises, the caller gets an answer and the session goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from unit.session.services import Serve, serving


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as run:
        yield run


def test_an_exception_is_told_with_type_message_and_the_users_frames(run: Serve) -> None:
    service = run(
        "import json\ndef inner(text):\n    return json.loads(text)\ndef predict(text: str):\n    return inner(text)\n"
    )
    lines = service.error(text="{").splitlines()
    assert lines[0].startswith("JSONDecodeError: Expecting property name")
    assert lines[1] == "Traceback (most recent call last):"
    frames = [line.strip() for line in lines if line.startswith("  File")]
    assert [frame.split(", ", 1)[1] for frame in frames] == ["line 5, in predict", "line 3, in inner"]
    assert frames[0].startswith('File "service_')
    assert service.value(text="[1]") == [1]


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("raise ValueError('bad')", "ValueError: bad"),
        ("raise ValueError", "ValueError"),
        ("import sys; sys.exit(2)", "SystemExit: 2"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("{}['bmi']", "KeyError: 'bmi'"),
        ("assert 1 == 2, 'no'", "AssertionError: no"),
    ],
)
def test_each_exception_is_an_answer(run: Serve, statement: str, first: str) -> None:
    service = run(f"def predict():\n    {statement}\n")
    assert service.error().splitlines()[0] == first
    assert service.error().splitlines()[0] == first


def test_endless_recursion_is_an_answer(run: Serve) -> None:
    error = run("def predict():\n    return predict()\n").error()
    assert error.startswith("RecursionError: maximum recursion depth exceeded")
    assert "[Previous line repeated" in error
    assert len(error) < 2000


def test_a_memory_error_is_told_to_the_session(run: Serve) -> None:
    service = run(
        """
        def predict(how: str):
            if how == "numpy":
                import numpy
                return numpy.zeros(1 << 48)
            if how == "wrapped":
                try:
                    bytearray(1 << 60)
                except MemoryError as error:
                    raise RuntimeError("wrapped") from error
            if how == "plain":
                return bytearray(1 << 60)
            raise ValueError
        """
    )
    for how, expected in (("plain", True), ("numpy", True), ("wrapped", True), ("other", False)):
        answer = service.service.call(orjson.dumps({"how": how}), service.work.path)
        assert (answer.status, answer.success, answer.memory_error) == (200, False, expected)


def test_an_exception_whose_message_fails_is_named(run: Serve) -> None:
    code = "class Odd(Exception):\n    def __str__(self): raise ValueError\ndef predict():\n    raise Odd\n"
    assert run(code).error().startswith("Odd: (its message cannot be read)\n")


def test_a_message_of_any_length_is_cut(run: Serve) -> None:
    error = run("def predict():\n    raise ValueError('x' * 10_000_000)\n").error()
    assert len(error) < 66_000
    assert "characters cut]" in error


def test_a_message_that_is_no_utf_8_is_escaped(run: Serve) -> None:
    assert run("def predict():\n    raise ValueError('\\ud800')\n").error().startswith("ValueError: \\ud800\n")


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("object()", "object has no JSON form"),
        ("b'x'", "bytes have no JSON form; return text, or write them to an output file"),
        ("(i for i in range(3))", "generator has no JSON form"),
        ("2 ** 64", "Integer exceeds 64-bit range"),
        ("1j", "complex has no JSON form"),
        ("{(1, 2): 3}", "a key of a dict is a tuple; keys must be strings"),
        ("{1: 'a', '1': 'b'}", "a dict has two keys that are the same text"),
        ("loop()", "nested too deeply, or within itself"),
        ("'\\ud800'", "str is not valid UTF-8: surrogates not allowed"),
    ],
)
def test_an_output_without_a_json_form_is_named(run: Serve, returned: str, reason: str) -> None:
    service = run(f"def loop():\n    a = []\n    a.append(a)\n    return a\ndef predict():\n    return {returned}\n")
    assert service.error() == f"OutputError: output 'answer': {reason}"


def test_nothing_of_a_failed_call_is_kept(run: Serve) -> None:
    service = run(
        """
        import weakref
        class Thing: pass
        SEEN = []
        def predict(fail: bool):
            alive = [ref() is not None for ref in SEEN]
            thing = Thing()
            SEEN.append(weakref.ref(thing))
            if fail:
                raise ValueError
            return alive
        """
    )
    service.error(fail=True)
    service.error(fail=True)
    assert service.value(fail=False) == [False, False]
