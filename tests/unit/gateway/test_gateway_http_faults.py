"""Slow and vanished callers, calls that take too long, sessions that die: one caller's trouble is nobody else's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import Pod, eventually, post
from unit.gateway.conftest import Start


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """Two slots."""
    one = Pod(tmp_path / "pod", SERVICE, settings={"initialPoolSize": 2, "maxPoolSize": 2})
    yield one.start().wait_ready()
    one.stop()


def head(length: int, more: bytes = b"") -> bytes:
    return b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\n%sContent-Length: %d\r\n\r\n" % (more, length)


def test_a_call_that_takes_too_long_is_given_up_and_its_session_replaced(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod), request_seconds=1))
    old = pod.slot()["pid"]
    began = time.monotonic()
    reply = gateway.call("/api/S/v1", {"seconds": 60}, headers={"X-Request-Id": "long"})
    assert 0.9 < time.monotonic() - began < 2.0
    assert reply.status == 504
    assert "pool demo/s: the call was not answered within 1 s" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "CallTimedOut"
    assert gateway.line("long")["outcome"] == "timeout"
    pod.wait_new_session(0, old)
    assert gateway.call("/api/S/v1").status == 200


def test_a_call_may_take_longer_than_a_caller_may_be_silent(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod)), client_seconds=1)
    assert gateway.call("/api/S/v1", {"seconds": 3}).status == 200


def test_a_session_that_dies_is_a_502_and_the_call_is_not_repeated(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)))
    old = pod.slot()["pid"]
    reply = gateway.call("/api/S/v1", {"die": True}, headers={"X-Request-Id": "died"})
    assert reply.status == 502
    assert "a session of pool demo/s died" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "SessionDied"
    assert reply.headers["x-request-id"] == "died"
    assert gateway.line("died")["outcome"] == "died"
    pod.wait_new_session(0, old)
    assert [event["slot"] for event in pod.events("session-ended")] == [0]
    assert gateway.call("/api/S/v1").status == 200


def test_a_session_that_dies_on_a_connection_in_use_is_a_502_too(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)))
    old = pod.slot()["pid"]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)) as connection:
        assert post(connection, {}).status == 200
        reply = post(connection, {"die": True}, {"X-Request-Id": "kept"})
    assert reply.status == 502
    assert gateway.line("kept")["outcome"] == "died"
    pod.wait_new_session(0, old)
    assert [event["slot"] for event in pod.events("session-ended")] == [0]  # the other one did not run it


def test_a_call_that_a_dying_session_has_not_begun_is_answered_by_another(pod: Pod, start: Start) -> None:
    """The connection is accepted, and its bytes are in the kernel, when the session stops; it never runs the call."""
    gateway = start(route("S", slots_of(pod, 2)))
    assert gateway.call("/api/S/v1").status == 200
    pid = pod.slot()["pid"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        called = pool.submit(gateway.call, "/api/S/v1", {})
        time.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        assert called.result().status == 200


def test_when_a_caller_goes_its_session_is_replaced(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod)))
    old = pod.slot()["pid"]
    with gateway.dial() as sock:
        body = json.dumps({"seconds": 60}).encode()
        sock.sendall(head(len(body), b"X-Request-Id: gone\r\n") + body)
        pod.wait_slot(0, state="busy")
    pod.wait_new_session(0, old, 5)
    assert gateway.line("gone")["outcome"] == "client-gone"
    assert gateway.call("/api/S/v1").status == 200


def test_a_call_that_finds_another_pools_session_is_sent_elsewhere(pod: Pod, tmp_path: Path, start: Start) -> None:
    other = Pod(tmp_path / "pod-other", SERVICE, pool_uid="uid-of-another-pool")
    other.start().wait_ready()
    served = other.slot()["requests"]
    try:
        gateway = start(route("S", (*slots_of(other), *slots_of(pod, rank=2))))
        for body in (b"{}", b"{}" + b" " * 60_000):  # the lowest rank is asked first
            assert gateway.call("/api/S/v1", body).status == 200
        eventually(lambda: {line["session"] for line in gateway.lines} == {"pod:0"}, message="a line")
        assert other.slot()["requests"] == served
    finally:
        other.stop()


def test_a_chunked_body_that_grows_too_large_is_refused_and_frees_its_session(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod)))
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with gateway.dial() as sock:
        sock.sendall(b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # refused while it is sent
            for _ in range(65):
                sock.sendall(chunk)
        assert gateway.call("/api/S/v1").status == 200  # and this caller has not closed
    wanted = [(413, "refused"), (200, "ok")]
    eventually(lambda: [(line["status"], line["outcome"]) for line in gateway.lines] == wanted, message="both lines")


def test_slow_uploads_that_fit_into_the_buffer_hold_no_session(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)), client_seconds=2)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(gateway.dial()) for _ in range(8)]
        for sock in slow:
            sock.sendall(head(60000) + b"{")
        assert [gateway.call("/api/S/v1").status for _ in range(10)] == [200] * 10
        assert all(sock.recv(65536).startswith(b"HTTP/1.1 408 ") for sock in slow)
    eventually(lambda: {line["outcome"] for line in gateway.lines} == {"ok", "invalid"}, message="both outcomes")


def test_slow_heads_hold_no_session_and_are_timed_out(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)), client_seconds=1)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(gateway.dial()) for _ in range(8)]
        for sock in slow:
            sock.sendall(head(2)[:-2])
        assert gateway.call("/api/S/v1").status == 200
        assert all(sock.recv(65536).startswith(b"HTTP/1.1 408 ") for sock in slow)


def test_slow_uploads_of_large_bodies_hold_a_session_until_its_deadline_only(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(gateway.dial()) for _ in range(2)]
        for sock in slow:
            sock.sendall(head(200_000) + b" " * 100_000)
        eventually(lambda: gateway.busy() == 2, message="both slots are taken")
        began = time.monotonic()
        assert gateway.call("/api/S/v1").status == 200
        assert time.monotonic() - began < 5 + 200_000 / (1 << 20) + 1
        assert all(sock.recv(65536).startswith(b"HTTP/1.1 408 ") for sock in slow)


@pytest.mark.parametrize("size", [40_000, 2_000_000])
def test_slow_readers_hold_a_session_until_its_deadline_only(pod: Pod, start: Start, size: int) -> None:
    gateway = start(route("S", slots_of(pod, 2)))
    body = json.dumps({"size": size}).encode()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(gateway.dial()) for _ in range(2)]
        for sock in slow:
            sock.sendall(head(len(body)) + body)
        eventually(lambda: sum(row["requests"] for row in pod.view()["sessions"]) == 2, message="both are answered")
        began = time.monotonic()
        with ThreadPoolExecutor(1) as executor:
            call = executor.submit(gateway.call, "/api/S/v1")
            while not call.done():  # they read on, so that they are not taken for dead
                for sock in slow:
                    with contextlib.suppress(OSError):
                        sock.recv(2000)
                time.sleep(0.05)
        assert call.result().status == 200
        assert time.monotonic() - began < 5 + size / (1 << 20) + 1


def test_an_unused_slot_loses_its_connection_soon(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)))
    with ThreadPoolExecutor(2) as executor:
        both = list(executor.map(lambda _: gateway.call("/api/S/v1", {"seconds": 0.3}).status, range(2)))
    assert both == [200, 200]
    began = time.monotonic()

    def connections() -> list[int]:
        """Used and idle ones of each slot."""
        rows = [line.split() for line in gateway.admin("show servers conn").splitlines()]
        return [int(row[6]) + int(row[-1]) for row in rows if row and row[0].startswith(gateway.backend() + "/")]

    assert connections() == [1, 1]

    def lets_go() -> bool:
        gateway.call("/api/S/v1")  # the low slot stays in use
        return connections() == [1, 0]

    eventually(lets_go, 5, "the second slot has no connection")
    assert time.monotonic() - began < 2.6


def reloads(gateway: Gateway) -> bool:
    """Whether HAProxy could be told to; its master is not there for a moment after each reload."""
    with contextlib.suppress(ConnectionError):
        return "Success=1" in gateway.admin("reload", "master.sock")
    return False


def test_a_reload_fails_no_call(pod: Pod, start: Start) -> None:
    gateway = start(route("S", slots_of(pod, 2)))

    def caller(_: int) -> list[int]:
        return [gateway.call("/api/S/v1", {"seconds": 0.02}).status for _ in range(60)]

    with ThreadPoolExecutor(2) as executor:
        callers = [executor.submit(caller, number) for number in range(2)]
        for _ in range(3):
            eventually(lambda: reloads(gateway), message="a reload")
        assert not any(one.done() for one in callers)
        assert [one.result() for one in callers] == [[200] * 60] * 2


def test_connections_that_idle_callers_keep_leave_some_for_others(start: Start) -> None:
    """Of 500: 400 are kept for the next call, whatever one caller opens."""
    gateway = start(route("Orphan", pool="", pool_uid=""))
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(gateway.connection(timeout=5)) for _ in range(520)]
        answers = [gateway.call("/api/Orphan/v1", connection=each) for each in idle]
        kept = [
            connection for connection, answer in zip(idle, answers, strict=True) if "connection" not in answer.headers
        ]
        assert kept == idle[:400]

        assert gateway.call("/api/Orphan/v1").headers["connection"] == "close"
        gateway_has = r"(?m)^CurrConns: 40[01]$"  # the question comes on one as well
        eventually(lambda: re.search(gateway_has, gateway.admin("show info")), message="the others are closed")
        again = gateway.call("/api/Orphan/v1", connection=kept[0])
        assert (again.status, again.headers.get("connection")) == (503, None)
