"""One request of a web service: JSON in, the user's code, JSON out.

`load` imports the code and gives a Service; `Service.call` never raises, whatever the user's code does. What a caller
reads in each case is docs/reference/calls.md. A call with four scalar inputs costs 8.5 us on top of the function's own
time (two shared cores, best of 1500 x 100 calls); 2 of them are the look at the work directory, 2 the one for output.

Runs user code, so never in the supervisor. Called by template.py (load, warm up, after the fork) and session.py (call).
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from sessionpools.session import capture, files, loading, results, signature, userframes, values
from sessionpools.session.coroutines import CoroutineRunner
from sessionpools.session.loading import Loaded, LoadError, Report, Spec, failing
from sessionpools.session.results import OutputError
from sessionpools.session.signature import Signature, SignatureError

__all__ = ["Answer", "LoadError", "Service", "load"]

_SCRIPT_MODULE: Final = "__main__"
_NO_CAPTURE: Final = b""


class Answer(NamedTuple):
    """What goes back to the caller, and what the session must know."""

    status: int  # 200, or 400 for inputs that do not fit
    body: bytes
    success: bool
    console: bytes  # what was printed, for the log
    memory_error: bool  # the session ran out of memory: it should not serve another request


class BadRequest(Exception):  # noqa: N818
    """The caller's fault. The message names the input."""


def load(spec: Spec, report: Report) -> Service:
    """Import, initialise and check the code of a revision. Raises LoadError."""
    runner = CoroutineRunner()
    loaded = loading.load(spec, report, runner)
    runner.close()  # of an async init: this process may be about to fork
    subject = spec.script or spec.entrypoint
    try:
        if loaded.function is not None:
            found = signature.of_function(loaded.function, spec.inputs, spec.outputs)
        else:
            found = signature.of_script(spec.inputs, spec.outputs)
    except SignatureError as error:
        raise LoadError(f"EntrypointInvalid: {subject} {error}") from None
    with failing("types of the inputs", loaded.code):
        return Service(spec, loaded, found, runner)


class Service:
    """Loaded user code. `console` is set in a session; without one, output goes to the pod's log."""

    def __init__(self, spec: Spec, loaded: Loaded, found: Signature, runner: CoroutineRunner) -> None:
        self.console: capture.Console | None = None
        self._loaded = loaded
        self._signature = found
        self._runner = runner
        self._warmup = spec.warmup
        self._output_files = tuple(spec.output_files)
        # What a call needs, worked out once: (name, conversion, required) and (name, check).
        self._readers = [(i.name, values.reader(i.type, i.form, i.nullable), i.required) for i in found.inputs]
        self._writers = [(output.name, results.writer(output.type)) for output in found.outputs]
        self._names = tuple(output.name for output in found.outputs)
        self._answers = found.answers
        self._open = found.open
        self._run = self._run_script if loaded.function is None else _by_name(loaded.function)
        self._namespace: dict[str, Any] | None = None  # of the script that is running

    def signature(self) -> dict[str, list[dict[str, Any]]]:
        return self._signature.as_json()

    def warm_up(self, work_dir: str) -> None:
        """Answer the warm-up input, if there is one. Raises LoadError when that fails."""
        if self._warmup is not None:
            answer = self.call(orjson.dumps(self._warmup), work_dir)
            if not answer.success:
                first, _, rest = orjson.loads(answer.body)["errorMessage"].partition("\n")
                name = "" if answer.status == 200 else "InputInvalid: "
                raise LoadError(f"{name}{first} (warmup)", rest)
        if self.console is None:
            self._runner.close()  # in the template, which is about to fork

    def after_fork(self) -> None:
        """Call the code's own hook `after_fork`, if it has one. Raises LoadError when that fails."""
        loading.call_hook(self._loaded, "after_fork", self._runner)
        if self.console is not None:
            self.console.release()

    # --- a request --------------------------------------------------------------------------------------------------

    def call(self, body: bytes | bytearray, work_dir: str) -> Answer:
        """Answer a request. The work directory is the current one and empty. Never returns in a child of the code's."""
        pid = os.getpid()
        try:
            try:
                inputs = self._read(body)
            except BadRequest as error:
                return Answer(400, _failure(str(error)), False, b"", False)
            del body
            outputs = self._outputs(self._run(inputs))
            if os.getpid() != pid:
                os._exit(0)  # what it printed belongs to its parent's answer, and so does what that printed
            console = _NO_CAPTURE if self.console is None else self.console.take()
            text = results.dumps(
                {
                    "success": True,
                    "errorMessage": "",
                    "outputParameters": outputs,
                    "consoleOutput": console.decode("utf-8", "replace"),
                    "changedFiles": files.changed(work_dir),
                    "outputFiles": files.contents(work_dir, self._output_files) if self._output_files else {},
                }
            )
            return Answer(200, text, True, console, False)
        except BaseException as error:  # SystemExit too: a call ends, not the session
            if os.getpid() != pid:
                os._exit(1)
            return self._failed(error, work_dir)
        finally:
            if self._namespace is not None:  # its functions refer to it and it to them: let go of what it holds
                self._namespace.clear()
                self._namespace = None

    def _read(self, body: bytes | bytearray) -> dict[str, Any]:
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if "memory" in str(error):
                raise MemoryError("the request does not fit into the memory of this session") from None
            raise BadRequest(f"the body is not JSON: {error}") from None
        if type(given) is not dict:
            raise BadRequest(f"the body must be a JSON object of inputs, got {values.kind(given)}")
        inputs = {}
        problems: list[str] = []
        for name, read, required in self._readers:
            if name in given:
                try:
                    inputs[name] = read(given.pop(name))
                except (ValueError, TypeError, OverflowError) as error:
                    problems.append(f"input {name!r}: {error}")
            elif required:
                problems.append(f"input {name!r}: missing")
        if given:
            if self._open:
                inputs.update(given)
            else:
                problems += [f"input {name!r}: unknown{self._known()}" for name in given]
        if problems:
            raise BadRequest("; ".join(problems[:20]))
        return inputs

    def _known(self) -> str:
        names = ", ".join(repr(item.name) for item in self._signature.inputs)
        return f"; the inputs are {names}" if names else "; there are no inputs"

    def _outputs(self, result: Any) -> dict[str, Any]:
        if type(result) is types.CoroutineType:
            result = self._runner.run(result)
        found = (result,) if self._answers else self._declared(result)
        outputs = {}
        for (name, check), value in zip(self._writers, found, strict=True):
            try:
                outputs[name] = value if check is None else check(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise OutputError(f"output {name!r}: {error}") from None
        return outputs

    def _declared(self, result: Any) -> Sequence[Any]:
        """The declared outputs, in their order."""
        names = self._names
        by_name = isinstance(result, dict)
        if len(names) == 1 and not (by_name and result.keys() == {names[0]}):
            return (result,)
        if not names:
            return ()
        if by_name:
            for name in names:
                if name not in result:
                    raise OutputError(f"output {name!r}: missing")
            for name in result:
                if name not in names:
                    raise OutputError(f"output {name!r}: unknown; the outputs are {', '.join(names)}")
            return [result[name] for name in names]
        if isinstance(result, tuple):
            if len(result) != len(names):
                raise OutputError(f"{len(names)} outputs are declared, the function returned {len(result)}")
            return result
        raise OutputError(
            f"the outputs {', '.join(names)} must be returned as a dict or a tuple, got {type(result).__name__}"
        )

    def _run_script(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run the script as Python runs one, in a namespace of its own, and take its declared variables."""
        module = types.ModuleType(_SCRIPT_MODULE)
        script = self._loaded.script
        assert script is not None  # noqa: S101
        namespace = self._namespace = module.__dict__
        namespace["__file__"] = script.co_filename
        namespace.update(self._loaded.variables)
        namespace.update(inputs)
        before = sys.modules.get(_SCRIPT_MODULE)
        sys.modules[_SCRIPT_MODULE] = module  # pickle and dataclasses look for its classes there
        try:
            exec(script, namespace)  # noqa: S102
        finally:
            if before is not None:
                sys.modules[_SCRIPT_MODULE] = before
        for name in self._names:
            if name not in namespace:
                raise OutputError(f"output {name!r}: the script set no such variable")
        return {name: namespace[name] for name in self._names}

    # --- failing ----------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException, work_dir: str) -> Answer:
        memory = _is_memory_error(error)
        message = userframes.describe(error, self._loaded.code)
        error.__traceback__ = None  # and with it what the frames hold
        console = b""
        names: list[str] = []
        try:
            if self.console is not None:
                console = self.console.take()
            names = files.changed(work_dir)
            body = _failure(message, console, names)
        except MemoryError:
            memory = True
            body = _failure(message)
        return Answer(200, body, False, console, memory)


def _by_name(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda inputs: function(**inputs)


def _failure(message: str, console: bytes = b"", names: list[str] | None = None) -> bytes:
    return orjson.dumps(
        {
            "success": False,
            "errorMessage": message,
            "outputParameters": {},
            "consoleOutput": console.decode("utf-8", "replace"),
            "changedFiles": names or [],
            "outputFiles": {},
        }
    )


def _is_memory_error(error: BaseException | None) -> bool:
    """Whether memory ran out, under whatever it was wrapped in."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        part = todo.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, MemoryError):
            return True
        todo += [part.__cause__, part.__context__, *getattr(part, "exceptions", ())]
    return False
