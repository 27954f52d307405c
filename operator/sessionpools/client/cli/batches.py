"""batch start|show|list|cancel."""

import json
from typing import Annotated

import typer

from sessionpools.client.cli.common import Name, Output, OutputOption, Url, Version, connect, group, say
from sessionpools.client.cli.services import read_json
from sessionpools.client.cli.show import Rows, following, write_json, write_rows
from sessionpools.client.client import Client
from sessionpools.client.errors import InputInvalid
from sessionpools.client.models import Batch, BatchItem, BatchStatus

__all__ = ["app"]

app = group("Batches: many calls of a web service in the background.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The batch, as `batch start` has said.", show_default=False)]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it is complete.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that --watch lasts at most.", min=0)]


@app.command()
def start(
    name: Name,
    version: Version,
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A JSON array of objects of inputs by name; - is standard input.")
    ],
    parallel: Annotated[int, typer.Option(help="Calls at a time, over all sessions of the pool.", min=1)] = 10,
    watch: Watch = False,
    timeout: Timeout = 3600,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a call for each item of a JSON array. Writes the batch's id; with --watch its results."""
    records = read_json(source)
    if not isinstance(records, list):
        raise InputInvalid(f"{source}: is no JSON array of inputs")
    with connect(url) as client:
        batch = client.batches.start(name, version, records, parallel=parallel)
        if watch:
            say(f"batch {batch.id}")
            _write(_complete(client, batch, timeout), output)
        elif output is Output.JSON:
            write_json(batch)
        else:
            typer.echo(batch.id)


@app.command()
def show(
    name: Name,
    version: Version,
    batch_id: Id,
    watch: Watch = False,
    timeout: Timeout = 3600,
    url: Url = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """How far a batch is, and the results that are there."""
    batch = Batch(name=name, version=version, id=batch_id)
    with connect(url) as client:
        status = _complete(client, batch, timeout) if watch else client.batches.poll(batch)
    _write(status, output)


@app.command("list")
def list_batches(name: Name, version: Version, url: Url = "", output: OutputOption = Output.TABLE) -> None:
    """The batches of a web service that are yours; for an Owner, anybody's."""
    with connect(url) as client:
        found = client.batches.list(name, version)
    if output is Output.JSON:
        write_json(found)
    else:
        for batch in found:
            typer.echo(batch.id)


@app.command()
def cancel(name: Name, version: Version, batch_id: Id, url: Url = "") -> None:
    """End a batch, and forget its results. Calls that run are not interrupted."""
    with connect(url) as client:
        client.batches.cancel(Batch(name=name, version=version, id=batch_id))
    typer.echo(f"batch {batch_id}: cancelled")


def _complete(client: Client, batch: Batch, timeout: float) -> BatchStatus:
    with following(_line, lambda status: Rows(("BATCH", "STATE", "DONE", "ITEMS"), [_progress(status)])) as tell:
        return client.batches.wait(batch, timeout=timeout, progress=tell)


def _write(status: BatchStatus, output: Output) -> None:
    if output is Output.JSON:
        write_json(status)
        return
    rows = [(str(item.index), "ok" if item.success else "failed", _content(item)) for item in status.results]
    write_rows(Rows(("ITEM", "RESULT", "OUTPUTS OR ERROR"), rows, _line(status)))


def _content(item: BatchItem) -> str:
    if not item.success:
        return item.error.partition("\n")[0]
    return ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in item.outputs.items())


def _line(status: BatchStatus) -> str:
    failed = f", {len(status.failed)} failed" if status.failed else ""
    return f"batch {status.batch.id}: {status.state}, {status.completed} of {status.total} items done{failed}"


def _progress(status: BatchStatus) -> tuple[str, ...]:
    return (status.batch.id, status.state, str(status.completed), str(status.total))
