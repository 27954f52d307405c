"""Finds the command-line tools that tests use: those in PATH, else those that tests/cluster/tools has built or builds.

Building takes minutes, once per machine; `make test` does it before pytest starts.
"""

import functools
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def tool(name: str) -> str:
    """The path of a tool, for example helm or kubectl."""
    if found := shutil.which(name):
        return found
    line = subprocess.run([ROOT / "tests/cluster/tools", name], check=True, text=True, stdout=subprocess.PIPE).stdout
    found = subprocess.run(
        ["bash", "-c", f"{line}\ncommand -v {name}"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    return found.strip()
