"""Session pods whose code is a bundle: real supervisors, templates and sessions, and a real server."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionpools.session.bundles import URL_VARIABLE
from support.archives import Archive, bundle, tar_gz
from support.fileserver import FileServer, answers, file_server, gives
from support.runtime_pod import Pod, alive, children, eventually, failed
from unit.session.conftest import StartPod

WHERE = """
    import os, sys
    HERE = os.getpid()
    def predict(what: str = "pid"):
        if what == "write":
            open(os.path.join(os.path.dirname(__file__), "new"), "w")
        if what == "modules":
            return sorted(sys.modules)
        return [HERE, os.getpid()]
"""
GOOD = bundle(WHERE)
SCRIPT: dict[str, Any] = {
    "entrypoint": "",
    "script": "service_script.py",
    "init": "service_init:load",
    "inputs": [{"name": "x", "type": "numeric"}],
    "outputs": [{"name": "answer", "type": "numeric"}],
}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as made:
        yield made


@pytest.fixture
def start_bundle(start_pod: StartPod, tmp_path: Path) -> Any:
    """Start a pod whose code is an archive, at a URL."""

    def start(url: str, archive: Archive = GOOD, volume: str = "volume", **options: Any) -> Pod:
        code = tmp_path / volume / "code"
        env = {URL_VARIABLE: url, **options.pop("env", {})}
        return start_pod("", code_dir=str(code), bundle={"sha256": archive.sha256}, env=env, **options)

    return start


def phases(pod: Pod) -> list[str]:
    return [event["phase"] for event in pod.events("phase")]


# --- served -----------------------------------------------------------------------------------------------------------


def test_the_code_of_a_bundle_is_served_and_its_phases_are_shown(start_bundle: Any, server: FileServer) -> None:
    pod = start_bundle(server.has("/b.tar.gz", GOOD.data), settings={"initialPoolSize": 2, "maxPoolSize": 3})
    template, session = pod.call({}).answer
    assert template == pod.template_pid != session
    assert phases(pod)[:3] == ["fetch bundle", "unpack bundle", "import service"]
    assert server.asked("/b.tar.gz") == 1


def test_what_fetches_and_unpacks_stays_out_of_sessions(start_bundle: Any, server: FileServer) -> None:
    """Nor does a module of the code's that has the name of one of these meet it."""
    archive = bundle(WHERE + "    import tarfile\n    assert tarfile.MINE\n", tarfile="MINE = True\n")
    pod = start_bundle(server.has("/b.tar.gz", archive.data), archive)
    loaded = set(pod.call({"what": "modules"}).answer)
    assert not loaded & {"urllib.request", "zipfile", "gzip", "ssl", "http.client"}


def test_a_template_that_starts_again_fetches_nothing(start_bundle: Any, server: FileServer) -> None:
    pod = start_bundle(server.has("/b.tar.gz", gives(GOOD.data), answers(404)))
    first = pod.template_pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(pod.events("template-loaded")) == 2)
    old = pod.slot()["pid"]
    os.kill(old, signal.SIGKILL)
    pod.wait_new_session(0, old)
    assert pod.call({}).answer[0] == pod.template_pid != first
    assert server.asked("/b.tar.gz") == 1


def test_a_container_that_starts_again_fetches_nothing(start_bundle: Any, server: FileServer) -> None:
    url = server.has("/b.tar.gz", gives(GOOD.data), answers(404))
    start_bundle(url).stop()
    pod = start_bundle(url)
    assert pod.call({}).status == 200
    assert server.asked("/b.tar.gz") == 1


def test_what_is_of_another_boot_of_the_node_is_fetched_again(
    start_bundle: Any, server: FileServer, tmp_path: Path
) -> None:
    url = server.has("/b.tar.gz", GOOD.data)
    start_bundle(url).stop()
    (tmp_path / "volume/complete").write_text(f"{GOOD.sha256} 00000000-0000-0000-0000-000000000000\n")
    start_bundle(url)
    assert server.asked("/b.tar.gz") == 2


def test_sessions_that_load_for_themselves_fetch_it_once(start_bundle: Any, server: FileServer) -> None:
    pod = start_bundle(
        server.has("/b.tar.gz", GOOD.data), forkSafe=False, settings={"initialPoolSize": 3, "maxPoolSize": 3}
    )
    for slot in range(3):
        loaded_in, pid = pod.call({}, slot).answer
        assert loaded_in == pid
    assert server.asked("/b.tar.gz") == 1


def test_a_script_and_the_dict_of_its_init_may_come_in_a_bundle(start_bundle: Any, server: FileServer) -> None:
    archive = tar_gz(
        {
            "service_script.py": "answer = weight * x\n",
            "service_init.py": "def load():\n    return {'weight': 3}\n",
        }
    )
    pod = start_bundle(server.has("/b.tar.gz", archive.data), archive, **SCRIPT)
    assert pod.call({"x": 2}).answer == 6


NOTEBOOK = """
import base64, dill, json
class Template:
    factor = 3
def scale(x):
    return main(x) * Template.factor * np.weight
print(json.dumps({each.__name__: base64.b64encode(dill.dumps(each)).decode() for each in (Template, scale)}))
"""
UNPACKS = """
import pathlib, dill, __main__

def load():
    variables = vars(__main__)
    assert "Channel" not in variables
    for path in sorted((pathlib.Path(__file__).parent / "objects").glob("*.dill")):
        variables[path.stem] = dill.loads(path.read_bytes())
    exec("import types\\nnp = types.SimpleNamespace(weight=5)\\ndef main(x): return x", variables)
    return {name: value for name, value in variables.items() if not name.startswith("__")}
"""


def test_what_dill_has_packed_in_a_main_module_is_unpacked_in_one_of_the_codes_own(
    start_bundle: Any, server: FileServer
) -> None:
    """A function made in a notebook has the variables there as its globals: other published objects, and what init
    defines. Names that this runtime uses itself are free for the code."""
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], check=True, capture_output=True)
    objects = {f"objects/{name}.dill": base64.b64decode(data) for name, data in json.loads(done.stdout).items()}
    archive = tar_gz({"service_script.py": "answer = scale(x)\n", "service_init.py": UNPACKS, **objects})
    pod = start_bundle(
        server.has("/b.tar.gz", archive.data),
        archive,
        **SCRIPT,
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    assert [pod.call({"x": 2}, slot).answer for slot in (0, 1)] == [30, 30]


# --- not served -------------------------------------------------------------------------------------------------------


def test_an_address_that_does_not_give_it_is_the_first_line_of_the_termination_log(
    start_bundle: Any, server: FileServer
) -> None:
    url = server.url.replace("http://", "http://user:secret@") + "/gone.tar.gz?signature=secret"
    pod = start_bundle(url, ready=False)
    assert failed(pod) == (
        f"BundleUnreachable: {server.url}/gone.tar.gz: answered 404 Not Found: "
        "put the archive there or correct code.bundle.url"
    )
    assert "secret" not in pod.termination + pod.log_text


def test_another_digest_is_reported_and_nothing_of_it_runs(start_bundle: Any, server: FileServer) -> None:
    other = bundle("raise RuntimeError('this ran')\n")
    pod = start_bundle(server.has("/b.tar.gz", other.data), ready=False)
    line = failed(pod)
    assert line.startswith(f"BundleDigestMismatch: {server.url}/b.tar.gz: ")
    assert other.sha256 in line
    assert GOOD.sha256 in line
    assert len(line) < 500  # what the controller shows


def test_what_is_no_archive_is_reported(start_bundle: Any, server: FileServer) -> None:
    page = Archive(b"<html></html>")
    assert failed(start_bundle(server.has("/b", page.data), page, ready=False)).startswith("BundleInvalid: ")


def test_no_address_is_reported(start_bundle: Any) -> None:
    assert failed(start_bundle("", ready=False)).startswith("BundleUnreachable: the variable SESSIONPOOLS_BUNDLE_URL")


def test_a_server_that_is_away_is_shown_while_it_is_and_found_when_it_is_back(start_bundle: Any) -> None:
    with file_server() as away:
        port, url = away.port, away.url + "/b.tar.gz"
    pod = start_bundle(url, ready=False)
    eventually(lambda: "fetch bundle (Connection refused)" in phases(pod))
    assert pod.control("/livez").status == 200
    with file_server(port=port) as back:
        back.has("/b.tar.gz", GOOD.data)
        pod.wait_ready()


def test_a_server_that_stays_away_is_reported_within_the_start_timeout(start_bundle: Any) -> None:
    with file_server() as away:
        url = away.url + "/b.tar.gz"
    pod = start_bundle(url, settings={"startTimeoutSeconds": 3}, ready=False)
    line = failed(pod)
    assert line.startswith(f"BundleUnreachable: {url}: Connection refused when startTimeoutSeconds was over: ")
    assert "or raise startTimeoutSeconds" in line


@pytest.mark.parametrize("how", ["hangs", "trickles"])
def test_a_server_that_never_ends_is_reported_within_the_start_timeout(
    start_bundle: Any, server: FileServer, how: str
) -> None:
    behaviour = server.hangs if how == "hangs" else server.trickles(GOOD.data * 1000)
    pod = start_bundle(server.has("/b", behaviour), settings={"startTimeoutSeconds": 3}, ready=False)
    line = failed(pod)
    assert line.startswith("BundleUnreachable: ")
    assert "bytes had come when startTimeoutSeconds was over" in line


def test_a_pod_that_ends_while_it_fetches_leaves_no_process(start_bundle: Any, server: FileServer) -> None:
    pod = start_bundle(server.has("/b", server.hangs), ready=False)
    eventually(lambda: server.asked("/b"))
    assert pod.process is not None
    (template,) = children(pod.process.pid)
    (fetcher,) = children(template)
    pod.stop()
    eventually(lambda: not alive(fetcher) and not alive(template))


def test_what_ends_the_process_that_fetches_is_told_as_if_it_were_the_templates_end(
    start_bundle: Any, server: FileServer
) -> None:
    pod = start_bundle(server.has("/b", server.hangs), ready=False)
    eventually(lambda: server.asked("/b"))
    assert pod.process is not None
    (template,) = children(pod.process.pid)
    (fetcher,) = children(template)
    os.kill(fetcher, signal.SIGKILL)
    assert failed(pod) == "ProcessEnded: killed by SIGKILL in fetch bundle"


def test_a_bundle_that_takes_all_memory_to_read_is_refused(start_bundle: Any, server: FileServer) -> None:
    archive = Archive(hungry_zip())
    line = failed(start_bundle(server.has("/b", archive.data), archive, ready=False), seconds=60)
    assert line.startswith("BundleInvalid: ")
    assert "memory" in line


def hungry_zip() -> bytes:
    """Hundreds of thousands of entries, all of them the same few bytes."""
    name = b"x"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    entry = struct.pack("<4s4B4H3L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0)
    central = (entry + name) * 400_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(central), len(local), 0)
    return local + central + end
