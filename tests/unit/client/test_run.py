"""`sessionpools run` with real supervisors and a real HAProxy."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.archives import bundle
from support.fileserver import file_server
from support.tools import ROOT

CODE = """
import os
import time

def predict(seconds: float = 0) -> int:
    time.sleep(seconds)
    return os.getpid()
"""


PUBLISHED = """
apiVersion: sessionpools.dev/v1alpha1
kind: WebService
metadata: {{name: pids}}
spec:
  name: Pids
  version: v1
  code: {{bundle: {{url: "{url}", sha256: "{sha256}"}}}}
  entrypoint: service:predict
"""


class Running:
    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process
        self.said = ""

    def until_ready(self) -> "Running":
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if line.startswith("    curl "):
                return self
        raise AssertionError(self.said)

    def call(self, path: str, inputs: Any) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(inputs))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def run(*arguments: str, port: int = 0) -> Iterator[Running]:
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionpools.client", "run", *arguments, "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(port, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture
def service(tmp_path: Path) -> str:
    path = tmp_path / "pids.py"
    path.write_text(CODE)
    return str(path)


def test_a_python_file_is_served_and_grows_to_its_maximum(service: str) -> None:
    with run(service, "--sessions", "1", "--max-sessions", "3") as running:
        running.until_ready()
        assert f"curl --json '{{\"NAME\": VALUE}}' http://127.0.0.1:{running.port}/api/pids/v1" in running.said
        answers: list[tuple[int, dict[str, Any]]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(running.call("/api/pids/v1", {"seconds": 0.5})))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [status for status, _ in answers] == [200] * 4
        assert len({answer["outputParameters"]["answer"] for _, answer in answers}) == 3
        assert running.call("/api/other/v1", {})[0] == 404


def test_one_json_line_per_call_goes_to_standard_output(service: str) -> None:
    with run(service) as running:
        running.until_ready()
        running.call("/api/pids/v1", {})
        assert running.process.stdout is not None
        line = json.loads(running.process.stdout.readline())
        assert (line["service"], line["version"], line["status"], line["outcome"]) == ("pids", "v1", 200, "ok")


def test_interrupt_ends_every_process_after_the_calls_that_run(service: str) -> None:
    with run(service) as running:
        running.until_ready()
        _, first = running.call("/api/pids/v1", {})
        answers: list[tuple[int, dict[str, Any]]] = []
        caller = threading.Thread(target=lambda: answers.append(running.call("/api/pids/v1", {"seconds": 1})))
        caller.start()
        time.sleep(0.3)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0
        caller.join()
    assert [status for status, _ in answers] == [200]
    assert not Path(f"/proc/{first['outputParameters']['answer']}").exists()


def test_code_that_does_not_load_ends_it_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\ndef predict(): ...\n")
    with run(str(tmp_path / "broken.py")) as running:
        _, said = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert "error: broken v1: " in said
    assert "No module named 'no_such_module'" in said


def test_the_code_of_a_bundle_is_served_from_a_file_or_from_a_server(tmp_path: Path) -> None:
    archive = bundle(CODE)
    (tmp_path / "bundle.tar.gz").write_bytes(archive.data)
    with file_server() as server:
        for number, url in enumerate(("file://bundle.tar.gz", server.has("/bundle.tar.gz", archive.data))):
            yaml = tmp_path / f"{number}.yaml"
            yaml.write_text(PUBLISHED.format(url=url, sha256=archive.sha256))
            with run(str(yaml)) as running:
                running.until_ready()
                assert running.call("/api/Pids/v1", {})[0] == 200


def test_a_bundle_of_another_digest_ends_it_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(bundle(CODE).data)
    (tmp_path / "pids.yaml").write_text(PUBLISHED.format(url="file://bundle.tar.gz", sha256="0" * 64))
    with run(str(tmp_path)) as running:
        _, said = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert "error: Pids v1: BundleDigestMismatch: file:///" in said


def test_a_port_that_is_taken_is_named_with_the_remedy(service: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run(service, port=port) as running:
            _, said = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert f"port {port} of 127.0.0.1 can not be had" in said
    assert "give --port" in said
