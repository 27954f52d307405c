"""Calls that wait: for a busy session in HAProxy's queue, for a pool's first slot in hold.lua."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import Pod, Reply, eventually
from unit.gateway.conftest import Start

ORDER = """
import time
served = []

def predict(name: str = "", seconds: float = 0.0) -> list:
    time.sleep(seconds)
    served.append(name)
    return served
"""


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """One session that tells in which order it was called."""
    one = Pod(tmp_path / "pod", ORDER)
    yield one.start().wait_ready()
    one.stop()


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Reply]]]:
    with ThreadPoolExecutor(32) as executor:
        yield lambda gateway, **inputs: executor.submit(gateway.call, "/api/S/v1", inputs)


Background = Callable[..., "Future[Reply]"]


def waits(gateway: Gateway, count: int) -> None:
    eventually(lambda: gateway.queued() == count, message=f"{count} calls wait")


def queue_up(gateway: Gateway, background: Background, names: str) -> list[Future[Reply]]:
    """One call after the other, each when the one before waits."""
    before = gateway.queued()
    calls = []
    for number, name in enumerate(names, 1):
        calls.append(background(gateway, name=name))
        waits(gateway, before + number)
    return calls


def test_queued_calls_are_served_in_order(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S", slots_of(pod)))
    first = background(gateway, name="-", seconds=1.0)
    eventually(lambda: pod.slot()["state"] == "busy")
    calls = queue_up(gateway, background, "abcdef")
    assert first.result().status == 200
    assert calls[-1].result().answer == list("-abcdef")


def test_a_call_beyond_the_queue_is_refused_at_once(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S", slots_of(pod), queue_length=2))
    first = background(gateway, seconds=1.0)
    eventually(lambda: pod.slot()["state"] == "busy")
    calls = queue_up(gateway, background, "ab")
    began = time.monotonic()
    reply = gateway.call("/api/S/v1", headers={"X-Request-Id": "too-many"})
    assert time.monotonic() - began < 0.5
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert "demo/s: all sessions are busy and 2 calls wait" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "QueueFull"
    assert gateway.line("too-many")["outcome"] == "queue-full"
    assert [call.result().status for call in (first, *calls)] == [200] * 3


def test_without_a_queue_a_free_session_answers_and_a_busy_one_does_not(
    pod: Pod, start: Start, background: Background
) -> None:
    gateway = start(route("S", slots_of(pod), queue_length=0))
    assert [gateway.call("/api/S/v1").status for _ in range(20)] == [200] * 20
    first = background(gateway, seconds=1.0)
    eventually(lambda: pod.slot()["state"] == "busy")
    assert gateway.call("/api/S/v1").status == 429
    assert first.result().status == 200


def test_a_call_waits_no_longer_than_the_queue_timeout(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S", slots_of(pod), queue_seconds=1))
    first = background(gateway, seconds=2.0)
    eventually(lambda: pod.slot()["state"] == "busy")
    began = time.monotonic()
    reply = gateway.call("/api/S/v1", headers={"X-Request-Id": "late"})
    assert 0.9 < time.monotonic() - began < 1.5
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "pool demo/s: no session became free within 1 s" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "NoSession"
    line = gateway.line("late")
    assert line["outcome"] == "queue-timeout"
    assert 990 < line["queueMs"] < 1500
    assert first.result().status == 200


def test_calls_for_a_pool_without_a_slot_are_held_and_served_in_order(
    pod: Pod, start: Start, background: Background
) -> None:
    gateway = start(route("S"))
    calls = queue_up(gateway, background, "abcdefghijkl")
    gateway.open(slots_of(pod)[0])
    assert [call.result().status for call in calls] == [200] * 12
    assert calls[-1].result().answer == list("abcdefghijkl")
    line = gateway.line(calls[0].result().headers["x-request-id"])
    assert line["outcome"] == "ok"
    assert line["heldMs"] > 0


def test_a_held_call_is_served_soon_after_the_slot_opens(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S"))
    (call,) = queue_up(gateway, background, "a")
    gateway.open(slots_of(pod)[0])
    began = time.monotonic()
    assert call.result().status == 200
    assert time.monotonic() - began < 0.2


def test_a_pool_without_a_slot_for_the_queue_timeout_is_unavailable(start: Start) -> None:
    gateway = start(route("S", queue_seconds=1))
    began = time.monotonic()
    reply = gateway.call("/api/S/v1", headers={"X-Request-Id": "in-vain"})
    assert 0.9 < time.monotonic() - began < 1.5
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert "demo/s has no session ready, and got none within 1 s" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "NoSession"
    line = gateway.line("in-vain")
    assert line["outcome"] == "no-session"
    assert 990 < line["heldMs"] < 1500


def test_held_calls_count_against_the_length_of_the_queue(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S", queue_length=2))
    calls = queue_up(gateway, background, "ab")
    reply = gateway.call("/api/S/v1")
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert "no session ready and 2 calls wait" in reply.json["errorMessage"]
    assert reply.json["exceptionType"] == "QueueFull"
    gateway.open(slots_of(pod)[0])
    assert [call.result().status for call in calls] == [200] * 2


def test_a_held_call_whose_client_has_gone_reaches_no_session(pod: Pod, start: Start) -> None:
    gateway = start(route("S"))
    with gateway.dial() as sock:
        sock.sendall(b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nX-Request-Id: gone\r\nContent-Length: 2\r\n\r\n{}")
        waits(gateway, 1)
    gateway.open(slots_of(pod)[0])
    assert gateway.call("/api/S/v1", {"name": "a"}).answer == ["a"]
    assert gateway.line("gone")["outcome"] == "client-gone"


def test_a_held_call_of_a_gateway_that_ends_is_told_at_once_to_come_again(start: Start, background: Background) -> None:
    gateway = start(route("S"))
    (call,) = queue_up(gateway, background, "a")
    assert gateway.process is not None
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGUSR1)  # end with the last call
    reply = call.result()
    assert time.monotonic() - began < 3
    assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "1", "close")
    eventually(lambda: [line["outcome"] for line in gateway.lines] == ["no-session"], message="its line")


def test_calls_held_for_one_pool_do_not_hold_up_another(pod: Pod, start: Start, background: Background) -> None:
    gateway = start(route("S"), route("Ready", slots_of(pod), queue_seconds=9))
    calls = queue_up(gateway, background, "ab")
    assert [gateway.call("/api/Ready/v1").status for _ in range(20)] == [200] * 20
    gateway.open(slots_of(pod)[0])
    assert [call.result().status for call in calls] == [200] * 2


def test_a_thousand_calls_of_many_callers_are_all_answered(tmp_path: Path, start: Start) -> None:
    pod = Pod(tmp_path / "pod-4", SERVICE, settings={"initialPoolSize": 4, "maxPoolSize": 4})
    try:
        gateway = start(route("S", slots_of(pod.start().wait_ready(), 4)))

        def caller(_: int) -> list[int]:
            with gateway.connection() as connection:
                return [gateway.call("/api/S/v1", connection=connection).status for _ in range(50)]

        with ThreadPoolExecutor(20) as executor:
            statuses = [status for each in executor.map(caller, range(20)) for status in each]
        assert statuses == [200] * 1000
        eventually(lambda: sum(line["outcome"] == "ok" for line in gateway.lines) == 1000, message="a line for each")
    finally:
        pod.stop()
