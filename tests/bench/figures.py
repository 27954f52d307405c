"""Figures: what a measure found, the table of them, and build/bench.json. Used by __main__.py and by every measure."""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.bars import BARS

_STARTED: Final = time.monotonic()


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    bar: str  # "" for a figure that is for information
    holds: bool | None  # None: no bar, or a run that is not valid
    runs: list[float]  # what the value is made of

    @property
    def verdict(self) -> str:
        if not self.bar:
            return ""
        return {True: "yes", False: "NO", None: "not valid"}[self.holds]


def figure(name: str, value: float, unit: str, runs: Iterable[float] = (), valid: bool = True) -> Figure:
    """A figure beside its bar, if it has one."""
    bar = BARS.get(name)
    holds = bar.holds(value) if bar is not None and valid else None
    shown = [_rounded(run) for run in runs] or [_rounded(value)]
    return Figure(name, _rounded(value), unit, str(bar or ""), holds, shown)


def median_of(name: str, runs: Sequence[float], unit: str, valid: bool = True) -> Figure:
    return figure(name, statistics.median(runs), unit, runs, valid)


def progress(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, aligned so that it can be read as it is."""
    rows = [("figure", "value", "unit", "bar", "holds", "spread")]
    for item in figures:
        spread = f"{min(item.runs):g} to {max(item.runs):g}" if len(item.runs) > 1 else ""
        rows.append((item.name, f"{item.value:g}", item.unit, item.bar, item.verdict, spread))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(figures: Sequence[Figure], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(item) for item in figures], indent=1, ensure_ascii=False) + "\n")


def _rounded(value: float) -> float:
    """Four digits: more is noise, and hides what matters."""
    return float(f"{value:.4g}")
