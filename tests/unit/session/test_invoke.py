"""What a caller sends and gets: inputs by name, outputs by declaration, files, coroutines, hooks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.session.services import Running, Serve, serving


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[Serve]:
    with serving(tmp_path) as run:
        yield run


SCORE = """
    def predict(bmi: float, age: int = 40, sex: bool = False, name: str = ""):
        return [bmi, age, sex, name]
"""


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_inputs_are_passed_by_name_and_defaults_fill_in(run: Serve) -> None:
    service = run(SCORE)
    assert service.value(bmi=1, age=2.0, sex=True, name="x") == [1.0, 2, True, "x"]
    assert service.value(bmi=0.5) == [0.5, 40, False, ""]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"age": 3}', "input 'bmi': missing"),
        (b'{"bmi": "high"}', "input 'bmi': expected numeric, got string"),
        (b'{"bmi": true}', "input 'bmi': expected numeric, got boolean"),
        (b'{"bmi": null}', "input 'bmi': expected numeric, got null"),
        (b'{"bmi": [1]}', "input 'bmi': expected numeric, got array"),
        (b'{"bmi": 1, "age": 2.5}', "input 'age': expected integer, got 2.5"),
        (b'{"bmi": 1, "age": 1e300}', "input 'age': expected integer, got 1e+300"),
        (b'{"bmi": 1, "sex": 1}', "input 'sex': expected logical, got number"),
        (b'{"bmi": 1, "name": {}}', "input 'name': expected character, got object"),
        (b'{"bmi": 1, "BMI": 2}', "input 'BMI': unknown; the inputs are 'bmi', 'age', 'sex', 'name'"),
        (
            b'{"bmi": "x", "age": "y"}',
            "input 'bmi': expected numeric, got string; input 'age': expected integer, got string",
        ),
        (b"[1]", "the body must be a JSON object of inputs, got array"),
        (b"null", "the body must be a JSON object of inputs, got null"),
        (b"", "the body is not JSON: Input is a zero-length, empty document: line 1 column 1 (char 0)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(run: Serve, body: bytes, message: str) -> None:
    assert run(SCORE).refusal(body) == message


@pytest.mark.parametrize("body", [b'{"bmi": 1', b'{"bmi": NaN}', b"\xff", b"bmi=1", b'{"bmi": "\\ud800"}', b"[" * 2000])
def test_a_body_that_is_not_json_is_refused_with_the_position(run: Serve, body: bytes) -> None:
    message = run(SCORE).refusal(body)
    assert message.startswith("the body is not JSON: ")
    assert "line 1 column " in message


def test_a_service_without_inputs_says_so(run: Serve) -> None:
    service = run("def predict():\n    return 1\n")
    assert service.value() == 1
    assert service.refusal({"x": 1}) == "input 'x': unknown; there are no inputs"


def test_further_inputs_go_to_keyword_arguments(run: Serve) -> None:
    assert run("def predict(a: int, **more):\n    return [a, more]\n").value(a=1, b="x") == [1, {"b": "x"}]


def test_declared_inputs_are_the_only_ones(run: Serve) -> None:
    service = run("def predict(a, b=2, **more):\n    return [a, b, more]\n", inputs={"a": "integer", "c": "vector"})
    assert service.value(a=1, c=[]) == [1, 2, {"c": []}]
    assert "input 'b': unknown" in service.refusal({"a": 1, "c": [], "b": 3})


def test_null_is_none_for_an_optional_scalar_only(run: Serve) -> None:
    service = run("def predict(a: float | None, b: int = None, c: str = ''):\n    return [a, b, c]\n")
    assert service.value(a=None, b=None) == [None, None, ""]
    assert service.refusal({"a": 1, "c": None}) == "input 'c': expected character, got null"


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_what_is_returned_is_the_answer_when_nothing_is_declared(run: Serve) -> None:
    assert run("def predict():\n    return {'answer': 1}\n").outputs() == {"answer": {"answer": 1}}


def test_one_declared_output_is_the_value_or_a_dict_of_it(run: Serve) -> None:
    service = run("def predict(how):\n    return {'score': 2} if how else 3\n", outputs={"score": "integer"})
    assert service.outputs(how=True) == {"score": 2}
    assert service.outputs(how=False) == {"score": 3}


def test_one_declared_frame_may_have_other_columns(run: Serve) -> None:
    service = run("def predict():\n    return {'a': [1], 'b': [2]}\n", outputs={"table": "data.frame"})
    assert service.outputs() == {"table": {"a": [1], "b": [2]}}


def test_several_declared_outputs_come_as_a_dict_or_a_tuple(run: Serve) -> None:
    code = "def predict(how):\n    return {'b': 'x', 'a': 1.5} if how else (1.5, 'x')\n"
    service = run(code, outputs={"a": "numeric", "b": "character"})
    assert service.outputs(how=True) == service.outputs(how=False) == {"a": 1.5, "b": "x"}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'a': 1}", "OutputError: output 'b': missing"),
        ("{'a': 1, 'b': 'x', 'c': 2}", "OutputError: output 'c': unknown; the outputs are a, b"),
        ("(1,)", "OutputError: 2 outputs are declared, the function returned 1"),
        ("[1, 'x']", "OutputError: the outputs a, b must be returned as a dict or a tuple, got list"),
        ("(1, 2)", "OutputError: output 'b': expected character, got int"),
        ("(object(), 'x')", "OutputError: output 'a': expected numeric, got object"),
    ],
)
def test_outputs_that_do_not_fit_are_named(run: Serve, returned: str, message: str) -> None:
    service = run(f"def predict():\n    return {returned}\n", outputs={"a": "numeric", "b": "character"})
    assert service.error() == message


def test_no_declared_outputs_at_all_are_none(run: Serve) -> None:
    assert run("def predict():\n    return 5\n", outputs=()).outputs() == {}


def test_a_typed_dict_names_the_outputs(run: Serve) -> None:
    service = run(
        """
        from typing import TypedDict
        class Result(TypedDict):
            score: float
            label: str
        def predict() -> Result:
            return {"score": 1, "label": "x"}
        """
    )
    assert service.service.signature()["outputs"] == [
        {"name": "score", "type": "numeric"},
        {"name": "label", "type": "character"},
    ]
    assert service.outputs() == {"score": 1.0, "label": "x"}


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("echo")) as run:
        yield run("def predict(x):\n    return x\n")


@given(value=_json)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_json_says_goes_through_unchanged(echo: Running, value: object) -> None:
    assert echo.value(x=value) == value


@given(value=_json)
@settings(max_examples=100)
def test_any_json_body_is_answered(echo: Running, value: object) -> None:
    status, content = echo.answer(orjson.dumps(value))
    fits = isinstance(value, dict) and set(value) == {"x"}
    assert (status == 200) is fits
    assert content["success"] is fits


# --- files ------------------------------------------------------------------------------------------------------------


def test_new_files_are_named_relative_to_the_work_directory(run: Serve) -> None:
    service = run(
        """
        import os
        def predict():
            os.makedirs("plots/deep")
            open("plots/deep/a.png", "w").close()
            open("b.txt", "w").close()
        """
    )
    _, content = service.answer({})
    assert content["changedFiles"] == ["b.txt", "plots/deep/a.png"]
    _, content = run("def predict():\n    pass\n").answer({})
    assert content["changedFiles"] == []


def test_files_of_a_failed_call_are_named_too(run: Serve) -> None:
    _, content = run("def predict():\n    open('a', 'w').close()\n    raise ValueError\n").answer({})
    assert content["changedFiles"] == ["a"]


def test_at_most_a_thousand_names_are_given(run: Serve) -> None:
    _, content = run("def predict():\n    for i in range(1200):\n        open(f'{i}', 'w').close()\n").answer({})
    assert len(content["changedFiles"]) == 1000


def test_a_file_name_that_is_no_text_is_shown_with_replacements(run: Serve) -> None:
    _, content = run("def predict():\n    open(b'caf\\xe9', 'w').close()\n").answer({})
    assert content["changedFiles"] == ["caf\ufffd"]


def test_declared_files_come_as_base64_and_null_when_not_written(run: Serve) -> None:
    code = "def predict():\n    open('plot.png', 'wb').write(b'\\x89PNG')\n"
    _, content = run(code, output_files=("plot.png", "other.png")).answer({})
    assert content["outputFiles"] == {"plot.png": base64.b64encode(b"\x89PNG").decode(), "other.png": None}


def test_a_declared_file_is_never_read_from_elsewhere(run: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    code = f"""
        import os
        def predict():
            os.symlink({str(tmp_path / "secret")!r}, "link")
            os.symlink({str(tmp_path)!r}, "folder")
            os.mkfifo("fifo")
            os.mkdir("directory")
            open("inside", "w").write("x")
            os.symlink("inside", "alias")
    """
    names = ("link", "folder/secret", "fifo", "directory", "../../secret", str(tmp_path / "secret"), "alias")
    _, content = run(code, output_files=names).answer({})
    assert content["outputFiles"] == {**dict.fromkeys(names), "alias": base64.b64encode(b"x").decode()}
    assert content["changedFiles"] == ["alias", "fifo", "folder", "inside", "link"]


def test_a_declared_file_that_is_too_large_is_named(run: Serve) -> None:
    code = "def predict():\n    open('big', 'wb').truncate(50 << 20)\n"
    error = run(code, output_files=("big",)).error()
    assert error == f"FileTooLargeError: output file 'big' has {50 << 20} bytes; {48 << 20} is the limit"


# --- coroutines -------------------------------------------------------------------------------------------------------


def test_an_async_function_is_awaited_in_one_loop(run: Serve) -> None:
    service = run(
        """
        import asyncio
        async def predict(x: float) -> float:
            await asyncio.sleep(0)
            return id(asyncio.get_running_loop())
        """
    )
    assert service.value(x=1) == service.value(x=2)
    service.service.warm_up(service.work.path)


def test_a_function_that_returns_a_coroutine_is_awaited(run: Serve) -> None:
    code = "async def work():\n    return 3\ndef predict():\n    return work()\n"
    assert run(code).value() == 3


def test_the_warm_up_leaves_no_loop_and_no_thread_for_a_fork(run: Serve) -> None:
    service = run(
        """
        import asyncio, threading
        async def predict():
            asyncio.get_running_loop().create_task(asyncio.sleep(60))
            return await asyncio.to_thread(threading.active_count)
        """,
        warmup={},
    )
    before = len(list(Path("/proc/self/task").iterdir()))
    service.service.warm_up(service.work.path)
    assert len(list(Path("/proc/self/task").iterdir())) == before
    assert service.value() >= 2


def test_an_async_function_that_fails_shows_its_frames(run: Serve) -> None:
    code = "import asyncio\nasync def predict():\n    await asyncio.sleep(0)\n    raise ValueError('x')\n"
    error = run(code).error()
    assert error.startswith("ValueError: x\nTraceback")
    assert "asyncio/" not in error


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_the_hook_after_fork_is_called_when_there_is_one(run: Serve) -> None:
    service = run("STATE = []\ndef after_fork():\n    STATE.append(1)\ndef predict():\n    return STATE\n")
    service.service.after_fork()
    assert service.value() == [1]
    run("def predict():\n    return 1\n").service.after_fork()


def test_the_hook_after_fork_may_be_async(run: Serve) -> None:
    service = run("STATE = []\nasync def after_fork():\n    STATE.append(1)\ndef predict():\n    return STATE\n")
    service.service.after_fork()
    assert service.value() == [1]
