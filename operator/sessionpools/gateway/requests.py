"""Counts the requests that HAProxy has answered: from its log lines to Prometheus metrics, with no Python in a request.

HAProxy's ring connects to a unix socket and sends each log line as a frame: its length in decimal, a space, the line
(RFC 6587, octet counting). A line is one JSON object whose members come in the order of the log-format in logline.py.
One regular expression runs over all whole frames of a read and a Counter merges what is alike; JSON is decoded only
for names that are new. Measured on a busy machine, lines of 340 bytes in reads of 64 KiB: 4 µs a line when most are
alike, 7 µs when hardly any are, where json.loads alone takes 8 µs or more. A line that is no request (a notice of
HAProxy's own), that was cut short or is garbage is counted as such and skipped.

Queue time, held or queued, is in whole milliseconds, rounded down. Service time is the session's own (Server-Timing),
of requests that it answered; without it, HAProxy's time until the answer began.
"""

import asyncio
import json
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sessionpools.gateway.auth import REASONS
from sessionpools.gateway.model import Route

__all__ = ["BUCKETS_SECONDS", "OTHER_OUTCOMES", "OUTCOMES", "Listener", "RequestMetrics", "listen"]

OUTCOMES: Final = (
    "ok",  # 2xx of a session
    "refused",  # any other status that a session answered
    "queue-full",  # 429
    "queue-timeout",  # 503: no session became free in time
    "no-session",  # 503: none was ready in time, or none could be reached
    "died",  # 502: the session died while it answered
    "timeout",  # 504
    "client-gone",  # the caller did not wait for the answer
    "unknown",  # 404: no such web service, or no such path
    "no-pool",  # 503: published without a pool
    "invalid",  # 400, 405, 408, 413 by the gateway
)
# Of what names no web service, or none that the caller may ask for. They have no place among a web service's figures.
OTHER_OUTCOMES: Final = (
    "unauthorized",  # 401 and 403, and 503 without a key: the token
    "web",  # the web API answered
    "web-away",  # 502, 503, 504: it did not
)
BUCKETS_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)

# A pool's figures stay so long after it is gone, for the last scrape to come by.
FORGET_SECONDS: Final = 600.0

_KNOWN: Final = frozenset(OUTCOMES + OTHER_OUTCOMES)
# What waited for a session, and what one has answered. A caller that has gone cuts its own time short, and says nothing
# of the pool; a call that was given up has no service time.
_QUEUED: Final = frozenset({"ok", "refused", "queue-timeout", "no-session", "died", "timeout"})
_SERVED: Final = frozenset({"ok", "refused"})
_INVALID: Final = frozenset({b"400", b"408", b"500", b"501"})
_BOUNDS_MS: Final = tuple(bound * 1000 for bound in BUCKETS_SECONDS)
_LINE_AT_MOST_BYTES: Final = 65536
_LENGTH_DIGITS: Final = 5
# Read in bunches: to be woken for each line costs about as much as HAProxy does for the call. HAProxy keeps what is not
# read yet (its ring holds 4 MB).
_PAUSE_SECONDS: Final = 0.05
_MANY_BYTES: Final = 65536  # that came at once: more is waiting

# Callers choose what stands in the strings, but a quote in there is escaped: only a real member matches `"name":"`.
_STRING: Final = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_NUMBER: Final = rb"(-?[\d.]*)"  # -1 where there is none
_LINE: Final = re.compile(
    rb'"tokenRefused":"([a-z-]*)","heldMs":%s,"namespace":%s,"service":%s,"version":%s,"pool":%s,'
    rb'"node":"[^"]*","session":"[^"]*",'
    rb'"queueMs":%s,"serviceMs":%s,"responseMs":%s,"status":(\d+),"outcome":"([a-z-]+)","end":"(..)[^"]*"}'
    % (_NUMBER, *(_STRING,) * 4, *(_NUMBER,) * 3)
)
_FRAME_OF_A_REQUEST: Final = re.compile(rb'\d{1,%d} \{"time":"' % _LENGTH_DIGITS)

_RawLabels = tuple[bytes, bytes, bytes, bytes]
_Labels = tuple[str, str, str, str]  # namespace, pool, service, version
_NOBODY: Final = ("", "", "", "")


@dataclass(slots=True)
class _Times:
    """A histogram: how many in each bucket (the last has no bound), and the sum of all."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_MS) + 1))
    sum_ms: float = 0.0

    def add(self, milliseconds: float, times: int) -> None:
        self.buckets[bisect_left(_BOUNDS_MS, milliseconds)] += times
        self.sum_ms += milliseconds * times

    def render(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*BUCKETS_SECONDS, "+Inf"), self.buckets, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum_ms / 1000}"
        yield f"{name}_count{{{labels}}} {total}"


@dataclass(slots=True)
class _Series:
    """The figures of one web service."""

    touched_at: float  # when a request was counted last (the metrics' clock)
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    queue: _Times = field(default_factory=_Times)
    service: _Times = field(default_factory=_Times)


class RequestMetrics:
    """What was counted. `routes` says which web services there are: each has its figures from the beginning, and those
    of one that is gone go away when nothing was counted for it for FORGET_SECONDS.

    Requests that named no web service that there is are counted under empty names: callers must not be able to make
    series.
    """

    def __init__(
        self, routes: Callable[[], Iterable[Route]] = tuple, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._routes = routes
        self._clock = clock
        self._series: dict[_Labels, _Series] = {}
        self._labels: dict[_RawLabels, _Labels] = {}
        self.lines: Counter[str] = Counter({"request": 0, "other": 0, "broken": 0})
        self.refused_tokens: Counter[str] = Counter(dict.fromkeys(REASONS, 0))

    def count(self, frames: bytes, lines: int) -> None:
        """Counts the requests in `frames`, which are `lines` whole frames."""
        found = _LINE.findall(frames)
        now = self._clock()
        counted = 0
        for line, times in Counter(found).items():
            refused, held, namespace, service, version, pool, queue, service_ms, response_ms, status, word, end = line
            outcome = _outcome(word.decode(), pool, status, end)
            if outcome not in _KNOWN:
                continue
            counted += times
            if refused:
                self.refused_tokens[refused.decode()] += times
            labels = self._labels_of(namespace, service, version, pool, outcome)
            series = self._series.get(labels)
            if series is None:
                series = self._series[labels] = _Series(now)
            series.touched_at = now
            series.requests[outcome] = series.requests.get(outcome, 0) + times
            if outcome in _QUEUED:
                series.queue.add(_milliseconds(held) + _milliseconds(queue), times)
            if outcome in _SERVED:  # 0: the session has no Server-Timing
                series.service.add(_milliseconds(service_ms) or _milliseconds(response_ms), times)
        self.lines["request"] += counted
        self.lines["other"] += max(lines - counted, 0)

    def broken(self, times: int = 1) -> None:
        """Counts what was no frame, or only the beginning of one."""
        self.lines["broken"] += times

    def render(self) -> bytes:
        """All of it in Prometheus' text format, about 70 µs and 5 kB for each web service."""
        self._tidy()
        series = [(_render_labels(labels), of) for labels, of in sorted(self._series.items())]
        lines = _head("requests_total", "counter", "Requests answered, by outcome.")
        for labels, of in series:
            lines += [
                f'sessionpools_gateway_requests_total{{{labels},outcome="{outcome}"}} {count}'
                for outcome, count in of.requests.items()
            ]
        lines += _head("queue_seconds", "histogram", "How long requests waited for a session, held ones included.")
        for labels, of in series:
            lines += of.queue.render("sessionpools_gateway_queue_seconds", labels)
        lines += _head("service_seconds", "histogram", "How long sessions took for the requests that they answered.")
        for labels, of in series:
            lines += of.service.render("sessionpools_gateway_service_seconds", labels)
        lines += _head("refused_tokens_total", "counter", "Calls refused for their token, by reason.")
        lines += [
            f'sessionpools_gateway_refused_tokens_total{{reason="{reason}"}} {count}'
            for reason, count in self.refused_tokens.items()
        ]
        lines += _head("log_lines_total", "counter", "Lines read from HAProxy: requests, others, and broken ones.")
        lines += [f'sessionpools_gateway_log_lines_total{{kind="{kind}"}} {n}' for kind, n in self.lines.items()]
        return ("\n".join(lines) + "\n").encode()

    def _labels_of(self, namespace: bytes, service: bytes, version: bytes, pool: bytes, outcome: str) -> _Labels:
        if pool in (b"", b"-"):
            if outcome != "no-pool":
                return _NOBODY
            pool = b""
        raw = (namespace, pool, service, version)
        labels = self._labels.get(raw)
        if labels is None:
            texts = [_decode(part) for part in raw]
            texts[1] = texts[1].rpartition("/")[2]  # "<namespace>/<pool>" in messages
            labels = self._labels[raw] = (texts[0], texts[1], texts[2], texts[3])
        return labels

    def _tidy(self) -> None:
        now = self._clock()
        there = {(route.namespace, route.pool, route.service, route.version) for route in self._routes()}
        for labels in there - self._series.keys():
            self._series[labels] = _Series(now)
        gone = [
            labels
            for labels, series in self._series.items()
            if labels not in there and labels != _NOBODY and now - series.touched_at >= FORGET_SECONDS
        ]
        for labels in gone:
            del self._series[labels]
        if gone:
            self._labels = {raw: labels for raw, labels in self._labels.items() if labels in self._series}


class Frames:
    """One connection's bytes as frames. What is no frame is skipped up to the next one that begins as a request's."""

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False

    @property
    def rest(self) -> int:
        """Bytes of a frame whose end has not come."""
        return 0 if self._lost else len(self._rest)

    def feed(self, data: bytes) -> tuple[bytes, int, int]:
        """The bytes up to the end of the last whole frame, how many frames they are, and how often the beginning of a
        frame was not where it had to be."""
        data = self._rest + data if self._rest else data
        end = whole = broken = 0
        while True:
            if self._lost:
                found = _FRAME_OF_A_REQUEST.search(data, end)
                if found is None:
                    end = max(end, len(data) - 15)  # it may be split
                    break
                end, self._lost = found.start(), False
            space = data.find(b" ", end, end + _LENGTH_DIGITS + 1)
            length = data[end:space] if space >= 0 else data[end : end + _LENGTH_DIGITS + 1]
            if space < 0 and len(length) <= _LENGTH_DIGITS and (length.isdigit() or not length):
                break
            if space < 0 or not length.isdigit() or int(length) > _LINE_AT_MOST_BYTES:
                broken += 1
                self._lost = True
                end += 1
                continue
            after = space + 1 + int(length)
            if after > len(data):
                break
            end = after
            whole += 1
        self._rest = data[end:]
        return data[:end], whole, broken


class Listener:
    """The socket that HAProxy's ring connects to."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self.metrics = metrics
        self.connections: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None

    async def open(self, path: Path, mode: int) -> None:
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(self), path)
        path.chmod(mode)  # noqa: ASYNC240  no file system to wait for

    def close(self) -> None:
        if self._server:
            self._server.close()
        for connection in list(self.connections):
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._metrics = listener.metrics
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._listener.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        frames, whole, broken = self._frames.feed(data)
        self._metrics.count(frames, whole)
        if broken:
            self._metrics.broken(broken)
        if len(data) < _MANY_BYTES and self._transport:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport:
            self._listener.connections.discard(self._transport)
        if self._frames.rest:
            self._metrics.broken()


async def listen(path: Path, metrics: RequestMetrics, mode: int = 0o660) -> Listener:
    """Listens for HAProxy's ring; a socket that an earlier process left there is replaced. Close what is returned.

    HAProxy keeps trying while nobody has listened yet, and keeps some megabytes of lines. That a connection has ended
    it notices when it writes into it: the lines of that one write are lost, then it connects again. After a reload the
    old process and the new one each have a connection.
    """
    listener = Listener(metrics)
    await listener.open(path, mode)
    return listener


def _outcome(said: str, pool: bytes, status: bytes, end: bytes) -> str:
    """The outcome, with what HAProxy's rules can not know (see logline.py): how an answer ended that had begun, and
    what became of a request that ended before any rule ran."""
    if end[1:] == b"D" and end[:1] in b"CcSs":
        return "client-gone" if end[:1] in b"Cc" else "died"
    if not pool and status in _INVALID and not said.startswith("web"):
        return "invalid"
    return said


def _milliseconds(raw: bytes) -> float:
    """0 for what there was none of (-1)."""
    try:
        return max(float(raw), 0.0)
    except ValueError:
        return 0.0


def _decode(raw: bytes) -> str:
    """The text of a JSON string's inside. HAProxy escapes; what can not be decoded all the same is shown as it is."""
    try:
        return str(json.loads(b'"%s"' % raw))
    except ValueError:
        return raw.decode(errors="replace")


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP sessionpools_gateway_{name} {text}", f"# TYPE sessionpools_gateway_{name} {kind}"]


def _render_labels(labels: _Labels) -> str:
    names = ("namespace", "pool", "service", "version")
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, labels, strict=True))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
