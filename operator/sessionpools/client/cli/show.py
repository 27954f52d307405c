"""What the commands write: tables for people, JSON for programs, and views that follow what changes.

On a terminal tables are rich's, with colours unless NO_COLOR is set; anywhere else they are plain aligned text, and a
view that follows is a line for each change.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["Rows", "following", "plain", "seconds", "write_json", "write_rows"]

_STYLES: Final = {
    "Success": "green",
    "pass": "green",
    "complete": "green",
    "Pending": "yellow",
    "warn": "yellow",
    "inProgress": "yellow",
    "NotFound": "red",
    "fail": "red",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A table. Cells are text; `note` is a line below it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_rows(rows: Rows) -> None:
    if _terminal():
        _console().print(_rich(rows))
    else:
        sys.stdout.write(plain(rows))


def write_json(value: Any) -> None:
    """Models by their names in the REST API; indented, as people read it too."""
    json.dump(_jsonable(value), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


@contextmanager
def following(line: Callable[[Any], str], table: Callable[[Any], Rows]) -> Iterator[Callable[[Any], None]]:
    """What to call with each new state: on a terminal `table` is redrawn in place, elsewhere `line` is written.

    Both go to standard error: what comes of it in the end is the command's output."""
    if not sys.stderr.isatty():
        said = ""

        def tell(state: Any) -> None:
            nonlocal said
            text = line(state)
            if text != said:
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
                said = text

        yield tell
        return
    with Live(console=_console(stderr=True), transient=True, auto_refresh=False) as live:
        yield lambda state: live.update(_rich(table(state)), refresh=True)


def plain(rows: Rows) -> str:
    table = [rows.columns, *rows.rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(rows.columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, *([rows.note] if rows.note else [])]) + "\n"


def seconds(value: float | None) -> str:
    """A duration for people: 0.8 ms, 12 ms, 3.1 s; - where it is not known."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.2g} ms" if value < 0.1 else f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _rich(rows: Rows) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows.columns:
        table.add_column(column, overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return Group(table, Text(rows.note)) if rows.note else table


def _terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False)  # NO_COLOR and TERM=dumb are rich's to keep to


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
