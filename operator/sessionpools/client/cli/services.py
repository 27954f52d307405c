"""services list|show|delete, publish, call."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sessionpools.client.cli.common import (
    Force,
    Name,
    Output,
    OutputOption,
    Url,
    Version,
    VersionOrLast,
    connect,
    group,
    say,
)
from sessionpools.client.cli.show import Rows, write_json, write_rows
from sessionpools.client.errors import CallFailed, InputInvalid
from sessionpools.client.flows.services import Publication
from sessionpools.client.models import CallResult, Parameter
from sessionpools.client.sources import source_of
from sessionpools.client.wire import CALL_SECONDS

__all__ = ["app", "call", "publish"]

app = group("The published web services.")

_DESCRIPTION: Final = 60  # characters of it in the list


@app.command("list")
def list_services(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only its versions.", show_default=False)] = "",
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """The web services, or the versions of one."""
    with connect(url) as client:
        found = client.services.list(name)
    if output is Output.JSON:
        write_json(found)
        return
    rows = [
        (each.name, each.version, each.published_by, each.creation_time, _short(each.description)) for each in found
    ]
    write_rows(Rows(("NAME", "VERSION", "PUBLISHED BY", "CREATED", "DESCRIPTION"), rows))


@app.command()
def show(name: Name, version: VersionOrLast = "", url: Url = "", output: OutputOption = Output.TABLE) -> None:
    """One web service: its inputs, outputs and files."""
    with connect(url) as client:
        found = client.services.get(name, version)
    if output is Output.JSON:
        write_json(found)
        return
    rows = [
        ("name", found.name),
        ("version", found.version),
        ("description", found.description),
        ("published by", found.published_by),
        ("created", found.creation_time),
        ("inputs", _parameters(found.inputs)),
        ("outputs", _parameters(found.outputs)),
        ("files", ", ".join(found.output_files)),
    ]
    write_rows(Rows(("FIELD", "VALUE"), [row for row in rows if row[1]]))


@app.command()
def delete(name: Name, version: Version, force: Force = False, url: Url = "") -> None:
    """Unpublish a web service, and end the pool that was made for it here."""
    with connect(url) as client:
        client.services.delete(name, version, force=force)
    typer.echo(f"{name} {version}: deleted")


def publish(
    path: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="A .py file, or a folder of files.")],
    name: Annotated[
        str, typer.Option("--name", "-n", help="Its name; else that of the file or folder.", show_default=False)
    ] = "",
    version: Annotated[str, typer.Option("--version", "-v", help="Its version.")] = "v1",
    entrypoint: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="What answers calls; else `predict`, or the only public function, of the file or of service.py.",
            show_default=False,
        ),
    ] = "",
    init: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION", help="What runs once before; else `init` or `load`.", show_default=False
        ),
    ] = "",
    script: Annotated[
        bool,
        typer.Option(
            "--script", help="The file runs for each call; inputs are variables, and so are the outputs (--returns)."
        ),
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=TYPE", help="An input; else the function's annotations say them."),
    ] = None,
    returns: Annotated[
        list[str] | None,
        typer.Option("--returns", metavar="NAME=TYPE", help="An output: float, int, str, bool, numpy.ndarray, ..."),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="NAME", help="A file that a call writes, and that is returned."),
    ] = None,
    modules: Annotated[
        list[str] | None, typer.Option("--module", metavar="NAME", help="Imported before the code.")
    ] = None,
    warmup: Annotated[
        str,
        typer.Option(
            metavar="JSON", help="Inputs of a call that each session answers before it is ready.", show_default=False
        ),
    ] = "",
    description: Annotated[str, typer.Option(help="For people.", show_default=False)] = "",
    update: Annotated[
        bool, typer.Option("--update", help="Change it where this version is published already.")
    ] = False,
    force: Force = False,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Publish a Python file or a folder as a web service, or change one (--update).

    \b
    sessionpools publish score.py --version v2
    sessionpools publish model/ --name Score --entrypoint service:predict
    sessionpools publish block.py --script --input x=float --returns y=float
    """
    more: Publication = {}
    for field, value in (
        ("script", script),
        ("entrypoint", entrypoint),
        ("init", init),
        ("inputs", _types(inputs, "--input")),
        ("outputs", _types(returns, "--returns")),
        ("output_files", files),
        ("modules", modules),
        ("warmup", _warmup(warmup)),
        ("description", description),
    ):
        if value:
            more[field] = value  # type: ignore[literal-required]
    name = name or source_of(path, entrypoint=entrypoint, script=script).name
    with connect(url) as client:
        exists = update and any(each.version == version for each in client.services.list(name))
        if exists:
            found = client.services.update(name, version, path, force=force, **more)
        else:
            found = client.services.publish(name, version, path, **more)
    if output is Output.JSON:
        write_json(found)
        return
    typer.echo(f"{found.label}: {'updated' if exists else 'published'}: {_signature(found.inputs, found.outputs)}")
    if not exists:
        say(f"it has no sessions yet: sessionpools pools set {name} {version} --initial 1 --max 4 --watch")


def call(
    name: Name,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VERSION] [INPUT=VALUE]...",
            help="Values are JSON where they can be, else text: x=3 rows='[1, 2]' name=Ada zip='\"04109\"'.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option("--json", metavar="FILE", help="Inputs as JSON object; - is standard input.", show_default=False),
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds until the answer.", min=0.001)] = CALL_SECONDS,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Call a web service: its last version, unless one is given.

    \b
    sessionpools call Score v1 bmi=32.1 age=59
    sessionpools call Score --json inputs.json --output json

    Outputs go to standard output, what the code printed to standard error. Ends with 1 when the code raised.
    """
    given = list(inputs or [])
    version = given.pop(0) if given and "=" not in given[0] else ""
    values = {**_read_object(source), **_assigned(given)}
    try:
        with connect(url) as client:
            result = client.call(name, version, values, timeout=timeout)
    except CallFailed as error:
        if output is Output.JSON:
            write_json(error.result)
        elif isinstance(error.result, CallResult):
            _say_printed(error.result)
            say(error.result.error)
        raise CallFailed(str(error).splitlines()[0], error.result) from None
    if output is Output.JSON:
        write_json(result)
        return
    _say_printed(result)
    for key, value in result.outputs.items():
        text = json.dumps(value, ensure_ascii=False)
        typer.echo(text if len(result.outputs) == 1 else f"{key} = {text}")


def _say_printed(result: CallResult) -> None:
    if result.console:
        typer.echo(result.console, err=True, nl=not result.console.endswith("\n"))


def _assigned(words: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InputInvalid(f"{word!r}: give inputs as NAME=VALUE, and the version before them")
        if name in found:
            raise InputInvalid(f"input {name!r} is given twice")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def read_json(source: str) -> Any:
    """From a file, or standard input. Raises InputInvalid, naming file, line and column."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputInvalid(f"{source}: can not be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputInvalid(f"{source}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None


def _read_object(source: str) -> dict[str, Any]:
    body = read_json(source) if source else {}
    if not isinstance(body, dict):
        raise InputInvalid(f"{source}: is no JSON object of inputs by name")
    return body


def _types(words: Sequence[str] | None, option: str) -> dict[str, str]:
    found = {}
    for word in words or ():
        name, equals, kind = word.partition("=")
        if not equals or not name or not kind:
            raise InputInvalid(f"{option} {word!r}: give NAME=TYPE, such as bmi=float")
        found[name] = kind
    return found


def _warmup(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        found = text
    if found is not None and not isinstance(found, dict):
        raise InputInvalid(f"--warmup {text!r}: give a JSON object of inputs by name")
    return found


def _short(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _DESCRIPTION else f"{line[: _DESCRIPTION - 3]}..."


def _parameters(parameters: Sequence[Parameter]) -> str:
    return ", ".join(f"{each.name}: {each.type}" for each in parameters)


def _signature(inputs: Sequence[Parameter], outputs: Sequence[Parameter]) -> str:
    if not inputs and not outputs:
        return "its inputs and outputs are known when a session has loaded it"
    return f"({_parameters(inputs)}) -> {_parameters(outputs) or 'nothing'}"
