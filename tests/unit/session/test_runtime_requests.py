"""The wire of a slot: one request at a time, deadlines, refusals, drain. Real processes, real sockets."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.runtime_pod import POOL_UID, REVISION, Pod, alive, eventually, post, read_answer, read_until_closed
from unit.session.conftest import StartPod

SERVICE = """
    import hashlib, os, subprocess, sys, time
    def predict(what: str = "", seconds: float = 0.0, size: int = 0, data: str = ""):
        began = time.monotonic()
        if what == "sleep":
            time.sleep(seconds)
        elif what == "loop":
            while True:
                pass
        elif what == "c":
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1_000_000_000)
        elif what == "child":
            child = subprocess.Popen(["sleep", "300"])
            open(data, "w").write(str(child.pid))
            time.sleep(300)
        elif what == "big":
            return "x" * size
        elif what == "length":
            return len(data)
        elif what == "interval":
            time.sleep(seconds)
            return [began, time.monotonic()]
        return os.getpid()
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """One pod for the tests that leave it as it was."""
    pod = Pod(tmp_path_factory.mktemp("requests") / "pod", SERVICE).start().wait_ready()
    yield pod
    pod.stop()


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- one request at a time --------------------------------------------------------------------------------------------


def test_requests_on_concurrent_connections_of_a_slot_run_one_after_the_other(pod: Pod) -> None:

    def call(_: int) -> list[float]:
        answer: list[float] = pod.call({"what": "interval", "seconds": 0.03}).answer
        return answer

    with ThreadPoolExecutor(8) as pool:
        intervals = sorted(pool.map(call, range(16)))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(intervals))


def test_several_connections_are_kept_alive_on_one_slot(pod: Pod) -> None:
    with pod.connection() as one, pod.connection() as two, pod.connection() as three:
        pids = {post(c, {}).answer for _ in range(3) for c in (one, two, three)}
    assert len(pids) == 1


def test_a_slow_upload_holds_up_nobody_else(pod: Pod) -> None:
    with pod.dial() as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 100\r\n\r\n{")
        assert pod.call({}).status == 200
        slow.sendall(b"}" + b" " * 98)
        assert read_answer(slow).status == 200


def test_an_answer_carries_the_request_id_and_the_time_it_took(pod: Pod) -> None:
    reply = pod.call({"what": "sleep", "seconds": 0.05}, headers={"X-Request-Id": "abc-1"})
    assert reply.headers["x-request-id"] == "abc-1"
    name, _, milliseconds = reply.headers["server-timing"].partition(";dur=")
    assert name == "session"
    assert 50 <= float(milliseconds) < 1000


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_an_upload_of_a_byte_a_second_is_closed_at_its_deadline_and_the_session_lives(pod: Pod) -> None:
    pid = pod.call({}).answer
    began = time.monotonic()
    with pod.dial() as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(1.0):
                try:
                    slow.send(b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        answer = read_until_closed(slow)
        stop.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 4.5 < time.monotonic() - began < 12
    assert pod.call({}).answer == pid


def test_a_body_that_is_cut_off_ends_its_connection_only(pod: Pod) -> None:
    pid = pod.call({}).answer
    with pod.dial() as sock:
        sock.sendall(b'POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n{"what"')
    assert pod.call({}).answer == pid


def test_a_caller_that_does_not_read_its_answer_is_cut_off_and_the_session_lives(pod: Pod) -> None:
    pid = pod.call({}).answer
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", pod.base_port))
        pod.begin(sock, {"what": "big", "size": 5 * MIB})
        assert pod.call({}, timeout=40).answer == pid  # after 5 s + 5 s
    assert pod.slot()["pid"] == pid


def test_a_request_that_takes_too_long_ends_its_session_and_what_that_started(start_pod: StartPod) -> None:
    pod = start_pod(SERVICE, settings={"requestTimeoutSeconds": 0.3})
    pid = pod.call({}).answer
    note = pod.directory / "child"
    with pod.dial() as sock:
        body = {"what": "child", "data": str(note)}
        pod.begin(sock, body)
        child = int(eventually(lambda: note.exists() and note.read_text()))
        assert alive(child)
        assert read_until_closed(sock) == b"HTTP/1.1 "  # begun, and not ended
    row = pod.wait_new_session(0, pid)
    assert row["lastEnd"] == "request timeout"
    eventually(lambda: not alive(child))
    assert not alive(pid)


# --- a caller that goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sleep", "loop", "c"])
def test_a_session_ends_when_its_caller_is_gone(pod: Pod, what: str) -> None:
    pid = pod.call({}).answer
    pod.wait_slot(0, state="idle")  # or the call that was just answered would be taken for the one that is lost
    with pod.dial() as sock:
        pod.begin(sock, {"what": what, "seconds": 300})
        pod.wait_slot(0, state="busy")
    began = time.monotonic()
    eventually(lambda: not alive(pid))
    assert time.monotonic() - began < 5.0  # measured: about a millisecond; other tests run beside it
    assert pod.wait_new_session(0, pid)["lastEnd"] == "caller gone"


def test_a_caller_that_goes_after_its_answer_ends_nothing(pod: Pod) -> None:
    assert len({pod.call({}).answer for _ in range(50)}) == 1


def test_what_a_gone_callers_request_started_ends_too(pod: Pod) -> None:
    note = pod.directory / "child"
    with pod.dial() as sock:
        pod.begin(sock, {"what": "child", "data": str(note)})
        child = int(eventually(lambda: note.exists() and note.read_text()))
    eventually(lambda: not alive(child))


# --- large bodies -----------------------------------------------------------------------------------------------------


def test_63_mib_in_and_out_and_the_memory_comes_back(pod: Pod) -> None:
    pid = pod.call({}).answer
    before = rss(pid)
    size = 63 * MIB
    assert pod.call({"what": "length", "data": "x" * (size - 100)}).answer == size - 100
    assert len(pod.call({"what": "big", "size": size}).answer) == size
    eventually(lambda: rss(pid) < before + 8 * MIB, 10)
    assert pod.call({}).answer == pid


def test_large_answers_one_after_the_other_on_one_connection_end_nothing(pod: Pod) -> None:
    pid = pod.call({}).answer
    with pod.connection() as connection:
        for _ in range(10):
            assert len(post(connection, {"what": "big", "size": 8 * MIB}).answer) == 8 * MIB
            assert post(connection, {}).answer == pid


def test_63_mib_by_curl_with_expect_100_continue(pod: Pod) -> None:
    file = pod.directory / "body"
    file.write_text('{"what": "length", "data": "' + "x" * (63 * MIB) + '"}')
    done = subprocess.run(
        [
            "curl",
            "-sv",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            f"@{file}",
            f"http://127.0.0.1:{pod.base_port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "HTTP/1.1 100 Continue" in done.stderr
    assert str(63 * MIB) in done.stdout


def test_a_chunked_body_is_read(pod: Pod) -> None:
    with pod.dial() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"what": ', b'"length", "data": ', b'"abc"}'):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        assert read_answer(sock).answer == 3


def test_two_large_uploads_at_once_are_read_one_after_the_other(pod: Pod) -> None:
    body = {"what": "length", "data": "x" * (4 * MIB)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: pod.call(body).answer, range(8)))
    assert answers == [4 * MIB] * 8


def test_more_than_64_mib_announced_is_refused_unread(pod: Pod) -> None:
    with pod.dial() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % (64 * MIB + 1))
        reply = read_answer(sock)
        assert reply.status == 413
        assert reply.headers["connection"] == "close"
        assert "64 MiB" in reply.json["errorMessage"]
    assert pod.call({}).status == 200


def test_more_than_64_mib_in_chunks_is_refused(pod: Pod) -> None:
    pid = pod.call({}).answer
    with pod.dial() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(65):
                sock.sendall(b"%x\r\n" % MIB + b" " * MIB + b"\r\n")
        except ConnectionError:
            pass
        else:
            assert read_answer(sock).status == 413
    assert pod.call({}).answer == pid


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_other_methods_are_answered_405_and_the_connection_stays(pod: Pod) -> None:
    with pod.connection() as connection:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            connection.request(method, "/")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            assert (body == b"") == (method == "HEAD")
        assert post(connection, {}).status == 200


@pytest.mark.parametrize("name", ["other", f"other/{REVISION}", "", f"{POOL_UID}-2", POOL_UID[:-1]])
def test_a_request_for_another_pool_is_refused_unread(pod: Pod, name: str) -> None:
    before = pod.slot()["requests"]
    top = f"POST / HTTP/1.1\r\nHost: s\r\nX-Session-Pool: {name}\r\nContent-Length: 1000\r\n\r\n"
    with pod.dial() as sock:
        sock.sendall(top.encode())
        reply = read_answer(sock)
    assert reply.status == 425
    assert reply.headers["connection"] == "close"
    assert pod.slot()["requests"] == before


@pytest.mark.parametrize("name", [POOL_UID, f"{POOL_UID}/{REVISION}", f"{POOL_UID}/another-revision"])
def test_a_request_for_any_revision_of_this_pool_is_served(pod: Pod, name: str) -> None:
    assert pod.call({}, headers={"X-Session-Pool": name}).status == 200


def test_a_request_that_names_no_pool_is_served(pod: Pod) -> None:
    assert pod.call({}).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"CONNECT s:80 HTTP/1.1\r\nHost: s:80\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nX-Long: " + b"x" * 70_000, b"431"),
    ],
)
def test_what_is_no_request_gets_a_status_and_ends_its_connection_only(
    pod: Pod, request_bytes: bytes, status: bytes
) -> None:
    with pod.dial() as sock:
        sock.sendall(request_bytes)
        assert read_until_closed(sock).split(b" ")[1] == status
    assert pod.call({}).status == 200


def test_http_1_0_closes_unless_asked_to_keep_alive(pod: Pod) -> None:
    with pod.dial() as sock:
        sock.sendall(b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        assert read_answer(sock).headers["connection"] == "keep-alive"
        sock.sendall(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        assert b"Connection: close" in read_until_closed(sock)


def test_requests_that_came_in_one_piece_are_all_answered(pod: Pod) -> None:
    with pod.dial() as sock:
        one = b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\n"
        sock.sendall(one + b"\r\n{}" + one + b"Connection: close\r\n\r\n{}")
        assert read_until_closed(sock).count(b"HTTP/1.1 200 OK") == 2


# --- drain ------------------------------------------------------------------------------------------------------------


def test_sigterm_lets_the_running_request_finish_and_says_close(start_pod: StartPod) -> None:
    pod = start_pod(SERVICE, settings={"initialPoolSize": 2, "maxPoolSize": 3})
    assert pod.process is not None
    with pod.dial() as sock:
        pod.begin(sock, {"what": "sleep", "seconds": 1.0})
        pod.wait_slot(0, state="busy")
        pod.process.send_signal(signal.SIGTERM)
        eventually(lambda: pod.view()["phase"] == "draining")
        assert pod.control("/readyz").status == 503
        reply = read_answer(sock)
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
    assert pod.wait_end() == 0
    assert pod.events("drained")


def test_during_drain_the_last_request_of_an_idle_connection_is_answered(start_pod: StartPod) -> None:
    pod: Pod = start_pod(SERVICE)
    assert pod.process is not None
    with pod.connection() as connection:
        post(connection, {})
        pod.process.send_signal(signal.SIGTERM)
        eventually(lambda: pod.view()["phase"] == "draining")
        assert post(connection, {}).headers["connection"] == "close"
    assert pod.wait_end() == 0


def test_idle_connections_do_not_hold_up_the_drain(start_pod: StartPod) -> None:
    pod: Pod = start_pod(SERVICE)
    assert pod.process is not None
    with pod.connection() as connection:
        post(connection, {})
        began = time.monotonic()
        pod.process.send_signal(signal.SIGTERM)
        assert pod.wait_end() == 0
    assert time.monotonic() - began < 10


def test_a_request_that_outlasts_the_drain_is_ended(start_pod: StartPod) -> None:
    pod: Pod = start_pod(SERVICE, settings={"drainTimeoutSeconds": 0.5})
    assert pod.process is not None
    pid = pod.call({}).answer
    pod.wait_slot(0, state="idle")
    with pod.dial() as sock:
        pod.begin(sock, {"what": "loop"})
        pod.wait_slot(0, state="busy")
        pod.process.send_signal(signal.SIGTERM)
        assert pod.wait_end() == 0
    assert not alive(pid)
    assert pod.events("drain-timeout")
