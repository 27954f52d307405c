"""status."""

from collections.abc import Iterator

import typer

from sessionpools.client.cli.common import Output, OutputOption, Url, connect
from sessionpools.client.cli.show import Rows, write_json, write_rows
from sessionpools.client.models import Component

__all__ = ["status"]


def status(url: Url = "", output: OutputOption = Output.TABLE) -> None:
    """The server and its parts: pass, warn or fail each. Ends with 1 when the server fails."""
    with connect(url) as client:
        found = client.status()
    if output is Output.JSON:
        write_json(found)
    else:
        write_rows(Rows(("PART", "STATUS", "DETAILS"), list(_rows(found, 0))))
    if found.status == "fail":
        raise typer.Exit(1)


def _rows(part: Component, depth: int) -> Iterator[tuple[str, ...]]:
    details = ", ".join(f"{name} {value}" for name, value in part.details.items() if value not in ("", None))
    yield ("  " * depth + part.name, part.status, details)
    for each in part.components:
        yield from _rows(each, depth + 1)
