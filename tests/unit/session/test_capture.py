"""Captured output, in processes of their own: descriptors 1 and 2 are replaced for good."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

OPERATOR = Path(__file__).resolve().parents[3] / "operator"


class Result:
    def __init__(self, value: Any, output: str) -> None:
        self.value = value
        self.output = output  # what came out of the real standard output


@pytest.fixture
def captured(tmp_path: Path) -> Any:
    def run(code: str) -> Result:
        """Run code that has a `console` and sets `result`."""
        program = (
            f"import sys; sys.path.insert(0, {str(OPERATOR)!r})\n"
            "import logging, os, subprocess\n"
            "from sessionpools.session.capture import Console\n"
            f"{textwrap.dedent(code)}\n"
            f"import json; open({str(tmp_path / 'result')!r}, 'w').write(json.dumps(result))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return Result(json.loads((tmp_path / "result").read_text()), done.stdout)

    return run


def test_what_is_printed_is_taken_once(captured: Any) -> None:
    result = captured(
        """
        console = Console()
        print("one")
        first = console.take().decode()
        second = console.take().decode()
        print("two")
        result = [first, second, console.take().decode()]
        """
    )
    assert result.value == ["one\n", "", "two\n"]
    assert result.output == ""


def test_python_c_code_and_subprocesses_are_captured_in_order(captured: Any) -> None:
    result = captured(
        """
        import ctypes
        logging.basicConfig(format="%(message)s")  # holds the stream that was there before
        console = Console()
        print("out")
        print("err", file=sys.stderr)
        logging.warning("logged")
        os.write(1, b"descriptor\\n")
        ctypes.CDLL(None).puts(b"libc")
        ctypes.CDLL(None).fflush(None)
        subprocess.run(["sh", "-c", "echo child; echo child-err >&2"], check=True)
        print("last", end="")
        result = console.take().decode()
        """
    )
    assert result.value == "out\nerr\nlogged\ndescriptor\nlibc\nchild\nchild-err\nlast"


def test_what_was_printed_before_belongs_to_the_log(captured: Any) -> None:
    result = captured(
        """
        print("loading", end="")
        console = Console()
        result = console.take().decode()
        """
    )
    assert result.value == ""
    assert result.output == "loading"


def test_what_is_released_goes_to_the_log(captured: Any) -> None:
    result = captured('console = Console()\nprint("hook")\nconsole.release()\nresult = console.take().decode()\n')
    assert result.value == ""
    assert result.output == "hook\n"


@pytest.mark.parametrize(
    "how", ["print('x' * 3000)", "os.write(1, b'x' * 3000)", "[print('x' * 99) for _ in range(30)]"]
)
def test_output_above_the_limit_is_cut_and_counted(captured: Any, how: str) -> None:
    result = captured(
        f"""
        console = Console(limit_bytes=1000)
        {how}
        first = console.take().decode()
        print("next")
        result = [first, console.take().decode()]
        """
    )
    first, second = result.value
    text, _, note = first.rpartition("\n[")
    assert len(text) == 1000
    assert int(note.split()[0]) in (2000, 2001)
    assert note.endswith(" bytes cut]\n")
    assert second == "next\n"


def test_endless_printing_by_python_takes_no_memory(captured: Any) -> None:
    result = captured(
        """
        console = Console(limit_bytes=1000)
        for _ in range(200):
            print("x" * 1_000_000)
        result = [os.fstat(console._fd).st_size, len(console.take())]
        """
    )
    assert result.value[0] <= 1000
    assert result.value[1] < 1100


@pytest.mark.parametrize(
    "how",
    [
        "sys.stdout.close()",
        "os.close(1); os.close(2)",
        "os.close(1); open(os.devnull)",
        "sys.stdout = sys.stderr = None",
    ],
)
def test_streams_that_the_code_closed_are_there_again(captured: Any, how: str) -> None:
    result = captured(
        f"""
        console = Console()
        print("before")
        {how}
        first = console.take().decode()
        print("after")
        result = [first, console.take().decode()]
        """
    )
    assert result.value == ["before\n", "after\n"]


def test_bytes_that_are_no_text_are_taken_as_they_are(captured: Any) -> None:
    result = captured('console = Console()\nos.write(1, b"\\xff")\nresult = list(console.take())\n')
    assert result.value == [255]
