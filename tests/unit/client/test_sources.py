"""What is published of functions, files, folders and scripts."""

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sessionpools.client import InputInvalid
from sessionpools.client.sources import definitions, source_of, type_name
from support.builders import pool
from support.tools import ROOT


def test_a_file_is_sent_as_it_is_with_the_functions_it_is_called_by(tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text("def load(): ...\ndef predict(x): return x\n")
    source = source_of(path)
    assert source.name == "score"
    assert source.fields["entrypoint"] == "score:predict"
    assert source.fields["init"] == "score:load"
    assert source.files == {"score.py": path.read_bytes()}


def test_a_folder_is_sent_without_what_tools_leave_and_people_hide(tmp_path: Path) -> None:
    for name in ("service.py", "lib/model.py", "model.bin", ".env", "__pycache__/a.pyc", "lib/__pycache__/b.pyc"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("def predict(x): return x\n")
    source = source_of(str(tmp_path))
    assert sorted(source.files) == ["lib/model.py", "model.bin", "service.py"]
    assert source.fields["entrypoint"] == "service:predict"


def test_an_entrypoint_that_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def one(): ...\ndef two(): ...\n")
    source = source_of(tmp_path, entrypoint="a:two")
    assert source.fields["entrypoint"] == "a:two"
    with pytest.raises(InputInvalid, match="'two': must be module:function"):
        source_of(tmp_path, entrypoint="two")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a-b.py", "def predict(): ...", "no module name"),
        ("a.py", "def predict(:", "a.py:1: SyntaxError"),
        ("a.py", "x = 1", "has no public function"),
        ("a.py", "def one(): ...\ndef two(): ...", "has one, two: name the function that answers calls predict"),
        ("a.yaml", "kind: WebService", "YAML is for kubectl apply"),
    ],
)
def test_a_file_that_can_not_be_published_is_refused_by_name(tmp_path: Path, name: str, content: str, why: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputInvalid, match=why) as error:
        source_of(tmp_path / name)
    assert name in str(error.value)


def test_a_folder_whose_entry_is_not_clear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="has no Python file"):
        source_of(tmp_path)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("def predict(): ...")
    with pytest.raises(InputInvalid, match=r"has a.py, b.py: name the one that answers calls service.py"):
        source_of(tmp_path)
    with pytest.raises(InputInvalid, match="no such file"):
        source_of(tmp_path / "missing")


def test_a_script_is_its_text(tmp_path: Path) -> None:
    path = tmp_path / "block.py"
    path.write_text("answer = 1\n")
    assert source_of(path, script=True).fields == {"code": "answer = 1\n"}
    assert source_of("a = 1\nb = 2\n", script=True).fields == {"code": "a = 1\nb = 2\n"}


def test_a_function_of_a_module_is_that_modules_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.py"
    path.write_text("FACTOR = 2\ndef predict(x):\n    return FACTOR * x\n")
    spec = importlib.util.spec_from_file_location("scores", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["scores"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        source = source_of(module.predict)
    finally:
        del sys.modules["scores"]
    assert source.fields["entrypoint"] == "scores:predict"
    assert source.files == {"scores.py": path.read_bytes()}


def test_a_function_of_the_main_program_brings_the_values_it_uses(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(
        "import base64, json, sys\nimport numpy as np\nfrom sessionpools.client.sources import source_of\n"
        "weights = np.array([1.0, 2.0])\nunused = object()\n"
        "def score(x: float) -> float:\n    return float(np.dot(weights, [x, x]))\n"
        "files = source_of(score).files\n"
        "json.dump({name: base64.b64encode(content).decode() for name, content in files.items()}, sys.stdout)\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "operator")}
    done = subprocess.run([sys.executable, str(main)], env=environment, capture_output=True, text=True, check=True)
    sent = {name: base64.b64decode(content) for name, content in json.loads(done.stdout).items()}
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in sent.items():
        (folder / name).write_bytes(content)
    code = "import inspect, service\nprint(service.predict(2.0), inspect.signature(service.predict))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "6.0 (x: float) -> float"


def test_a_function_for_another_python_says_so_when_it_is_loaded(tmp_path: Path) -> None:
    sent = source_of(lambda x: x).files
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    other = sent["service.py"].decode().replace(f"({sys.version_info[0]}, {sys.version_info[1]})", "(3, 1)")
    (tmp_path / "service.py").write_text(other)
    done = subprocess.run([sys.executable, "-c", "import service"], cwd=tmp_path, capture_output=True, text=True)
    assert f"was published from the main program of Python {here}" in done.stderr


def test_what_is_no_plain_function_is_refused() -> None:
    def items() -> Any:
        yield 1

    with pytest.raises(InputInvalid, match="generator"):
        source_of(items)
    with pytest.raises(InputInvalid, match="no plain function"):
        source_of(len)
    with pytest.raises(InputInvalid, match=r"is in a package.*entrypoint='support.builders:pool'"):
        source_of(pool)


def test_a_value_that_can_not_be_sent_is_named() -> None:
    rows = (each for each in range(3))

    def following(x: float) -> float:
        return x + next(rows)

    with pytest.raises(InputInvalid, match="following: it, or a value that it uses, can not be sent"):
        source_of(following)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (float, "numeric"),
        (int, "integer"),
        (str, "character"),
        (bool, "logical"),
        (np.ndarray, "vector"),
        (np.array, "vector"),
        (np.matrix, "matrix"),
        (pd.DataFrame, "data.frame"),
        ("float", "numeric"),
        ("numpy.array", "vector"),
        ("pandas.DataFrame", "data.frame"),
        ("data.frame", "data.frame"),
    ],
)
def test_types_are_named_as_machine_learning_server_does(kind: Any, name: str) -> None:
    assert type_name(kind, "input 'x'") == name
    assert definitions({"x": kind}, "input") == [{"name": "x", "type": name}]


def test_a_type_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputInvalid, match=r"input 'x': builtins.dict is no type: use float"):
        definitions({"x": dict}, "input")
