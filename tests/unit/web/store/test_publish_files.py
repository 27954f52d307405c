"""What old clients publish: the generated files, run by a Python of their own and by the real session runtime.

The objects are pickled as clients do it: by dill, in another process, whose __main__ defines the functions and classes.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from sessionpools.web.store.bundles import Bundles, publish_files
from sessionpools.web.store.errors import Refused
from sessionpools.web.store.objects import ObjectStore
from support.runtime_pod import Pod, failed

PUBLISHER = """
    import math
    import dill, numpy as np, pandas as pd
    from sklearn.linear_model import LinearRegression

    factor = 10
    table = pd.DataFrame({"x": [1, 2], "name": ["a", "b"]})
    weights = np.arange(3.0)
    model = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])

    def scaled(x):
        return factor * x  # a global of __main__

    def predict(x):
        return scaled(float(model.predict([[x]])[0]))  # a function and an object of __main__

    class Tally:
        def __init__(self):
            self.count = 0
        def add(self, n):
            self.count += math.floor(n)  # a module of __main__: it does not travel, the init block imports it
            return self.count

    tally = Tally()
    area = lambda r: math.pi * r ** 2
    closure = (lambda n: lambda x: x + n)(5)
    for name in "factor table weights model scaled predict tally area closure".split():
        with open(f"{name}.dill", "wb") as file:
            dill.dump(globals()[name], file)
"""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a client's process has pickled."""
    folder = tmp_path_factory.mktemp("publisher")
    return pickled(folder, PUBLISHER)


def pickled(folder: Path, program: str) -> dict[str, bytes]:
    (folder / "notebook.py").write_text(textwrap.dedent(program))
    subprocess.run([sys.executable, "notebook.py"], cwd=folder, check=True)
    return {path.stem: path.read_bytes() for path in folder.glob("*.dill")}


def loaded(folder: Path, files: Mapping[str, Any], expression: str) -> Any:
    """What an expression is in a Python process that has loaded these files as a session does."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import service_init\nvariables = service_init.load()\n"
        f"print(json.dumps(eval({expression!r}, dict(variables, variables=variables))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def test_objects_are_variables_and_their_functions_see_each_other(objects: dict[str, bytes], tmp_path: Path) -> None:
    files = publish_files("", "import math", objects, {})
    values = loaded(tmp_path, files, "[factor, table['x'].sum().item(), weights.tolist(), predict(3.0), scaled(2)]")
    assert values == [10, 3, [0.0, 1.0, 2.0], pytest.approx(70.0), 20]
    assert loaded(tmp_path, files, "[tally.add(2.5), tally.add(1), round(area(1), 3), closure(1)]") == [2, 3, 3.142, 6]


def test_the_init_block_runs_after_the_objects_in_one_namespace_with_them(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    init = """
        import math
        factor = 100          # replaces an object: functions of objects see it
        def twice(x):
            return 2 * scaled(x)
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: "int"
        origin = Point(0)
        seen = __name__
        __private = 1
    """
    files = publish_files("", textwrap.dedent(init), objects, {})
    assert loaded(tmp_path, files, "[scaled(1), twice(1), origin.x, seen, math.pi > 3, '__private' in variables]") == [
        100,
        200,
        0,
        "__main__",
        True,
        False,
    ]


def test_without_objects_dill_is_not_needed(tmp_path: Path) -> None:
    files = publish_files("", "import sys\nx = 'dill' in sys.modules", {}, {})
    assert loaded(tmp_path, files, "x") is False


def test_files_are_beside_the_init_block(tmp_path: Path) -> None:
    init = "import os\ntext = open('data/table.csv').read()\n"
    files = publish_files("", init, {}, {"data/table.csv": b"a,b\n"})
    assert sorted(files) == ["files/data/table.csv", "init_block.py", "service_init.py", "service_script.py"]
    assert loaded(tmp_path, files, "[text, os.getcwd()]") == ["a,b\n", "/"]


def test_an_object_that_can_be_no_variable_is_refused() -> None:
    with pytest.raises(Refused, match="object 'a-b'"):
        publish_files("", "", {"a-b": b""}, {})


def test_code_that_is_no_text_is_refused() -> None:
    with pytest.raises(Refused, match="initCode"):
        publish_files("", "'\ud800'", {}, {})


# --- in the session runtime -------------------------------------------------------------------------------------------


class Published:
    """The bundle of a service, unpacked as the code directory of a real session pod."""

    def __init__(self, tmp_path: Path, store: ObjectStore) -> None:
        self._tmp_path = tmp_path
        self._store = store
        self._pods: list[Pod] = []

    async def pod(self, files: Mapping[str, Any], outputs: Mapping[str, str], **revision: Any) -> Pod:
        bundle = await Bundles(self._store).put(files)
        data = b"".join([piece async for piece in Bundles(self._store).stream(bundle.sha256)])
        declared = [{"name": name, "type": type_} for name, type_ in outputs.items()]
        pod = Pod(
            self._tmp_path / "pod",
            "",
            entrypoint="",
            script="service_script.py",
            init="service_init:load",
            outputs=declared,
            **revision,
        )
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(pod.directory / "code", filter="data")
        self._pods.append(pod)
        return pod.start()

    def stop(self) -> None:
        for pod in self._pods:
            pod.stop()


@pytest.fixture
def published(tmp_path: Path, volume: ObjectStore) -> Iterator[Published]:
    published = Published(tmp_path, volume)
    yield published
    published.stop()


async def test_a_session_answers_with_objects_init_and_code(objects: dict[str, bytes], published: Published) -> None:
    code = "answer = predict(x) + offset\nrows = table\n"
    files = publish_files(code, "offset = 0.5", objects, {})
    pod = (await published.pod(files, {"answer": "numeric", "rows": "data.frame"})).wait_ready()
    for x in (3.0, 4.0):
        assert pod.call({"x": x}).answer == {
            "answer": pytest.approx(10 * (2 * x + 1) + 0.5),
            "rows": {"x": [1, 2], "name": ["a", "b"]},
        }


async def test_a_call_leaves_nothing_to_the_next_but_in_objects(
    objects: dict[str, bytes], published: Published
) -> None:
    code = "first = 'left' not in globals()\nleft = 1\ncount = tally.add(1)\n"
    files = publish_files(code, "import math", objects, {})
    pod = (await published.pod(files, {"first": "logical", "count": "integer"})).wait_ready()
    assert [pod.call({}).answer for _ in range(2)] == [{"first": True, "count": 1}, {"first": True, "count": 2}]


async def test_an_object_that_does_not_load_is_named_by_the_pod(tmp_path: Path, published: Published) -> None:
    folder = tmp_path / "publisher"
    folder.mkdir()
    (folder / "mymodels.py").write_text("class Model: pass\n")
    broken = pickled(folder, "import dill, mymodels\ndill.dump(mymodels.Model(), open('model.dill', 'wb'))\n")
    pod = await published.pod(publish_files("", "", broken, {}), {})
    assert failed(pod) == "ModuleNotFoundError: No module named 'mymodels' (object 'model') (init)"


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x04\x95\x05"])
async def test_an_object_that_is_no_pickle_is_named_by_the_pod(data: bytes, published: Published) -> None:
    pod = await published.pod(publish_files("", "", {"model": data}, {}), {})
    assert "(object 'model') (init)" in failed(pod)


async def test_the_init_block_fails_with_its_own_file_and_line(published: Published) -> None:
    pod = await published.pod(publish_files("", "x = 1\ny = x / 0\n", {}, {}), {})
    assert failed(pod) == "ZeroDivisionError: division by zero (init)"
    assert 'File "init_block.py", line 2' in pod.termination


def test_the_generated_module_runs_on_the_oldest_python_that_clients_have() -> None:
    """By its grammar at least: there is no such Python here to run it."""
    source = publish_files("", "", {}, {})["service_init.py"]
    assert isinstance(source, bytes)
    ast.parse(source, feature_version=(3, 8))
