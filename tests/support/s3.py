"""A real S3-compatible server on loopback: versitygw, over a directory. Used by the tests of the object store.

It is built from its Go module, once per machine (tests/cluster/tools versitygw), and skipped with a reason only where
there is neither it nor Go, and not in CI.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import pytest

from support.tools import tool

BUCKET = "session-pools-test"


class S3Server:
    """`url(prefix)` is a store's URL, `environ` what a client of it needs. Stopped, it refuses connections."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.access_key = f"access-{secrets.token_hex(8)}"
        self.secret_key = f"secret-{secrets.token_hex(16)}"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("buckets", "metadata"):
            (directory / name).mkdir()
        (directory / "buckets" / BUCKET).mkdir()

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        # metadata in files of its own: not every file system has extended attributes
        arguments = ["posix", "--sidecar", str(self.directory / "metadata"), str(self.directory / "buckets")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [tool("versitygw"), "--port", f"127.0.0.1:{self.port}", *arguments],
                env={**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            text = (self.directory / "log").read_text()
            assert self._process.poll() is None, f"versitygw ended: {text}"
            assert time.monotonic() < deadline, f"versitygw does not listen: {text}"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """A running server, or a skipped test."""
    if not shutil.which("versitygw") and not shutil.which("go") and not os.environ.get("CI"):
        pytest.skip("needs versitygw, or Go to build it")
    with S3Server(directory) as server:
        yield server


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
