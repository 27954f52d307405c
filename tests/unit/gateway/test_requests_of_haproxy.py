"""Calls through the real HAProxy, as the product configures it, and the metrics that come of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sessionpools.gateway.model import Route
from sessionpools.gateway.requests import RequestMetrics, listen
from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import Pod, eventually
from support.waiting import until


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    one = Pod(tmp_path / "pod", SERVICE)
    yield one.start().wait_ready()
    one.stop()


@pytest.fixture
def gateway(pod: Pod) -> Iterator[Gateway]:
    """One web service with one session and room for one call to wait, one without sessions, one without a pool."""
    one = Gateway(
        route("S", slots_of(pod), queue_length=1, queue_seconds=1, request_seconds=3),
        route("Empty", queue_seconds=1, pool_uid="another"),
        Route("demo", "Lost", "v1", "", "", 0, 1, 1),
    )
    yield one.start()
    one.stop()


def calls(gateway: Gateway) -> None:
    """So many of each outcome."""
    # The death comes first, on a fresh connection: on one that had a call before HAProxy 2.8 closes without a line.
    for inputs in ({"die": True}, {}, {}, {}, {"wrong": 1}, {"wrong": 1}, {"seconds": 60}):
        gateway.call("/api/S/v1", inputs)  # 1 died, 3 ok, 2 refused, 1 timeout
    for path in ("/api/Nobody/v1", "/api/Nobody/v2", "/", "/api/Lost/v1", "/api/Lost/v1", "/api/Empty/v1"):
        gateway.call(path)  # 3 unknown, 2 no-pool, 1 no-session
    for _ in range(2):
        gateway.call("/api/S/v1", method="GET")  # 2 invalid
    with ThreadPoolExecutor(2) as executor:
        running = executor.submit(gateway.call, "/api/S/v1", {"seconds": 2})  # 1 more ok
        eventually(lambda: gateway.busy() == 1)
        waiting = executor.submit(gateway.call, "/api/S/v1")  # 1 queue-timeout
        eventually(lambda: gateway.queued() == 1)
        assert gateway.call("/api/S/v1").status == 429  # 1 queue-full
        assert (running.result().status, waiting.result().status) == (200, 503)
    body = b'{"seconds": 2}'
    with gateway.dial() as caller:
        caller.sendall(b"POST /api/S/v1 HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        eventually(lambda: gateway.busy() == 1)
    # 1 client-gone


EXPECTED = {
    "ok": 4, "refused": 2, "died": 1, "timeout": 1, "unknown": 3, "no-pool": 2, "no-session": 1, "invalid": 2,
    "queue-timeout": 1, "queue-full": 1, "client-gone": 1,
}  # fmt: skip


async def test_after_exactly_n_calls_of_each_outcome_the_counters_say_n(gateway: Gateway) -> None:
    metrics = RequestMetrics(lambda: gateway.routes)
    listener = await listen(gateway.directory / "requests.sock", metrics)
    await asyncio.to_thread(calls, gateway)
    await until(lambda: metrics.lines["request"] >= sum(EXPECTED.values()), "a line for each call")
    listener.close()
    counted: Counter[str] = Counter()
    for series in metrics._series.values():
        counted.update(series.requests)
    assert {outcome: n for outcome, n in counted.items() if n} == EXPECTED
    assert (metrics.lines["other"], metrics.lines["broken"]) == (0, 0)
    text = metrics.render().decode()
    of_s = 'namespace="demo",pool="s",service="S",version="v1"'
    for outcome in ("ok", "refused", "died", "timeout", "queue-timeout", "queue-full", "client-gone"):
        assert f'requests_total{{{of_s},outcome="{outcome}"}} {EXPECTED[outcome]}\n' in text
    assert f"service_seconds_count{{{of_s}}} 6\n" in text
    assert f'queue_seconds_bucket{{{of_s},le="0.5"}} 8\n' in text  # all but the one that waited in vain
    assert f"queue_seconds_count{{{of_s}}} 9\n" in text
    assert 'requests_total{namespace="demo",pool="",service="Lost",version="v1",outcome="no-pool"} 2\n' in text


async def test_a_call_of_a_session_takes_the_time_that_the_session_says(gateway: Gateway) -> None:
    metrics = RequestMetrics(lambda: gateway.routes)
    listener = await listen(gateway.directory / "requests.sock", metrics)
    began = time.monotonic()
    await asyncio.to_thread(gateway.call, "/api/S/v1", {"seconds": 0.3})
    most = time.monotonic() - began
    await until(lambda: metrics.lines["request"] == 1, "the line")
    listener.close()
    (taken,) = (series.service.sum_ms / 1000 for series in metrics._series.values() if series.requests["ok"])
    assert 0.3 <= taken <= most
