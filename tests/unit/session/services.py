"""Services of a few lines for the tests of the request layer, loaded in this process. Used by test_invoke*.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from sessionpools.session import invoke
from sessionpools.session.config import RevisionSpec
from sessionpools.session.process import WorkDirectory

_numbers = itertools.count()


class Running:
    """A loaded service and its work directory."""

    def __init__(self, service: invoke.Service, work: WorkDirectory, phases: list[str]) -> None:
        self.service = service
        self.work = work
        self.phases = phases

    def answer(self, body: bytes | Mapping[str, Any]) -> tuple[int, Any]:
        """Status and content of an answer."""
        self.work.refresh()
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = self.service.call(data, self.work.path)
        content = orjson.loads(answer.body)
        assert content["success"] is answer.success
        assert set(content) == {
            "success",
            "errorMessage",
            "outputParameters",
            "consoleOutput",
            "changedFiles",
            "outputFiles",
        }
        return answer.status, content

    def outputs(self, **inputs: Any) -> Any:
        status, content = self.answer(inputs)
        assert status == 200 and content["success"], content["errorMessage"]
        return content["outputParameters"]

    def value(self, **inputs: Any) -> Any:
        """The output `answer`."""
        return self.outputs(**inputs)["answer"]

    def error(self, **inputs: Any) -> str:
        """The message of a call that the user's code failed."""
        status, content = self.answer(inputs)
        assert status == 200 and not content["success"]
        assert content["outputParameters"] == {} and content["outputFiles"] == {}
        return str(content["errorMessage"])

    def refusal(self, body: bytes | Mapping[str, Any]) -> str:
        """The message of a call that the caller failed."""
        status, content = self.answer(body)
        assert status == 400 and not content["success"]
        return str(content["errorMessage"])


Serve = Callable[..., Running]


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Serve]:
    """A function that loads services, in a directory that is the current one meanwhile. Closes what they opened."""
    before = Path.cwd()
    os.chdir(directory)
    services: list[Running] = []

    def run(code: str = "", **revision: Any) -> Running:
        services.append(serve(directory, code, **revision))
        return services[-1]

    try:
        yield run
    finally:
        os.chdir(before)
        for running in services:
            running.service._runner.close()


def serve(directory: Path, code: str = "", **revision: Any) -> Running:
    """Load a service whose module has a name of its own; `MODULE` in the revision stands for that name."""
    name = f"service_{next(_numbers)}"
    folder = directory / f"{name}.d"
    folder.mkdir()
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    for file, text in revision.pop("files", {}).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("MODULE", name))
    if "script" not in revision:
        revision.setdefault("entrypoint", "MODULE:predict")
    for key in ("entrypoint", "init"):
        if key in revision:
            revision[key] = revision[key].replace("MODULE", name)
    for key in ("inputs", "outputs"):
        if isinstance(revision.get(key), dict):
            revision[key] = tuple({"name": n, "type": t} for n, t in revision[key].items())
    spec = RevisionSpec(code=str(folder), **revision)
    phases: list[str] = []
    path = list(sys.path)
    try:
        service = invoke.load(spec, phases.append)
    finally:
        sys.path[:] = path
    work = WorkDirectory(str(directory / "work"), name)
    work.refresh()
    return Running(service, work, [phase.replace(name, "MODULE") for phase in phases])
