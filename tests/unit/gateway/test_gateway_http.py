"""What a caller gets from the gateway: real HAProxy, real sessions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from socket import socket
from urllib.parse import quote

import pytest

from sessionpools.gateway.model import OpenSlot
from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import POOL_UID, Pod, Reply, eventually, free_ports

ODD_NAMES = (
    "Diabetes Score",
    "Größe 😀 漢",
    'say "hi"',
    "100%",
    "a+b",
    "a?b#c",
    "'; drop",
    "%41",
    "..a",
    "-",
    "A" * 128,
)
FAILURE = {"success", "errorMessage", "outputParameters", "consoleOutput", "changedFiles", "outputFiles"}
PROBLEM = {"message", "link", "exceptionType"}
HEAD = b"POST /api/S/v1 HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Services with one session of their own each: S, Foreign (another pool's session), and one for all odd names."""
    directory = tmp_path_factory.mktemp("pods")
    pods = [Pod(directory / f"pod-{name}", SERVICE).start() for name in ("s", "odd")]
    s, odd = (slots_of(pod.wait_ready()) for pod in pods)
    one = Gateway(
        route("S", s),
        route("Foreign", s, pool_uid="uid-of-another-pool"),
        route(
            "Unreachable", slots_of(Pod(directory / "pod-never-started", SERVICE)), pool_uid="uid-3", queue_seconds=1
        ),
        route("Orphan", pool="", pool_uid=""),
        *(route(name, odd, pool_uid=f"{POOL_UID}", pool="odd", queue_seconds=9) for name in ODD_NAMES),
        route("Elsewhere", odd, namespace="other", pool_uid=POOL_UID, pool="odd", queue_seconds=9),
    )
    yield one.start()
    one.stop()
    for pod in pods:
        pod.stop()


def failed(reply: Reply, status: int, kind: str, *words: str) -> None:
    """The answer is a failure as sessions give it and as the REST API does, with a request id, and says these words."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert set(reply.json) == FAILURE | PROBLEM
    assert reply.json["success"] is False
    assert (reply.json["exceptionType"], reply.json["link"]) == (kind, "/docs")
    assert reply.json["message"] == reply.json["errorMessage"]
    for word in words:
        assert word in reply.json["message"]


def usable(gateway: Gateway) -> bool:
    return gateway.call("/api/S/v1").status == 200


# --- where calls go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/S/v1", "/namespaces/demo/api/S/v1", "/api/S/v1?x=/1", "/api/%53/v1"])
def test_a_session_answers(gateway: Gateway, path: str) -> None:
    reply = gateway.call(path, {"size": 3})
    assert (reply.status, reply.answer) == (200, "xxx")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_called_by_its_percent_encoding(gateway: Gateway, name: str) -> None:
    reply = gateway.call(f"/api/{quote(name, safe='+')}/v1", headers={"X-Request-Id": "odd"})
    assert reply.status == 200, reply


def test_names_stand_whole_in_the_log(gateway: Gateway) -> None:
    reply = gateway.call(f"/api/{quote('Größe 😀 漢')}/v1")
    assert gateway.line(reply.headers["x-request-id"])["service"] == "Größe 😀 漢"
    reply = gateway.call(f"/api/{quote(ODD_NAMES[2])}/v1")
    assert gateway.line(reply.headers["x-request-id"])["service"] == 'say "hi"'


def test_an_unknown_name_is_repeated_as_it_was_asked_for(gateway: Gateway) -> None:
    name = 'No 😀 "x" 50%'
    failed(gateway.call(f"/api/{quote(name)}/v2"), 404, "ServiceNotFound", name, "v2", "namespace demo")


def test_names_are_case_sensitive(gateway: Gateway) -> None:
    failed(gateway.call("/api/s/v1"), 404, "ServiceNotFound", "no web service s version v1")


def test_a_name_is_not_looked_up_in_another_namespace(gateway: Gateway) -> None:
    failed(gateway.call("/api/Elsewhere/v1"), 404, "ServiceNotFound")
    failed(gateway.call("/namespaces/other/api/S/v1"), 404, "ServiceNotFound")
    assert gateway.call("/namespaces/other/api/Elsewhere/v1").status == 200


def test_names_are_decoded_once(gateway: Gateway) -> None:
    assert gateway.call("/api/%2541/v1").status == 200  # the service is named %41
    failed(gateway.call("/api/A/v1"), 404, "ServiceNotFound")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/S",
        "/api/S/",
        "/api/S/v1/",
        "/api/S/v1/x",
        "//api/S/v1",
        "/api//S/v1",
        "/api/../api/S/v1",
        "/x/api/S/v1",
        "/API/S/v1",
        "/namespaces/demo/S/v1",
        "/namespaces//api/S/v1",
    ],
)
def test_other_paths_are_unknown(gateway: Gateway, path: str) -> None:
    failed(gateway.call(path), 404, "PathNotFound")


@pytest.mark.parametrize("path", ["/api/S/v1;x", "/api/./v1", "/api/%2e%2e/v1"])
def test_names_that_no_service_has_are_unknown(gateway: Gateway, path: str) -> None:
    failed(gateway.call(path), 404, "ServiceNotFound")


def test_an_endless_path_is_unknown(gateway: Gateway) -> None:
    failed(gateway.call("/api/" + "a" * 5000 + "/v1"), 404, "PathNotFound")


@pytest.mark.parametrize("part", ["a%2Fb", "a%2fb", "a%5Cb", "a%00", "a%0a", "a%7F", "a%", "a%4", "a%zz", "%u0041"])
def test_an_encoded_slash_and_the_like_are_refused(gateway: Gateway, part: str) -> None:
    failed(gateway.call(f"/api/{part}/v1"), 400, "BadRequest")
    failed(gateway.call(f"/namespaces/demo/api/S/{part}"), 400, "BadRequest")


@pytest.mark.parametrize(
    "part", ["%C3", "%C3x", "%A9", "%C3%A9%A9", "%C0%AF", "%ED%A0%80", "%F4%90%80%80", "%FF", "%E2%82"]
)
def test_what_is_not_utf8_is_refused(gateway: Gateway, part: str) -> None:
    failed(gateway.call(f"/api/{part}/v1"), 400, "BadRequest", "UTF-8")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_refused(gateway: Gateway, method: str) -> None:
    reply = gateway.call("/api/S/v1", method=method)
    failed(reply, 405, "NotAllowed")
    assert reply.headers["allow"] == "POST"


def test_head_gets_no_body(gateway: Gateway) -> None:
    reply = gateway.call("/api/S/v1", method="HEAD")
    assert (reply.status, reply.body) == (405, b"")


def test_it_is_no_proxy_to_elsewhere(gateway: Gateway) -> None:
    answer = gateway.raw(b"CONNECT gateway:1 HTTP/1.1\r\nHost: gateway:1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_a_service_without_a_pool_says_what_to_do(gateway: Gateway) -> None:
    reply = gateway.call("/api/Orphan/v1")
    failed(reply, 503, "PoolNotFound", "Orphan", "create a SessionPool")
    assert gateway.line(reply.headers["x-request-id"])["outcome"] == "no-pool"


def test_a_pool_whose_sessions_cannot_be_reached_is_unavailable(gateway: Gateway) -> None:
    reply = gateway.call("/api/Unreachable/v1")
    failed(reply, 503, "NoSession", "demo/unreachable")
    assert int(reply.headers["retry-after"]) > 0
    assert gateway.line(reply.headers["x-request-id"])["outcome"] == "no-session"


def test_a_session_of_another_pool_never_answers(gateway: Gateway) -> None:
    reply = gateway.call("/api/Foreign/v1")
    failed(reply, 503, "SessionReplaced", "demo/foreign", "send it again")
    assert reply.headers["retry-after"] == "1"


# --- headers --------------------------------------------------------------------------------------------------------


def test_the_callers_request_id_is_used(gateway: Gateway) -> None:
    reply = gateway.call("/api/S/v1", headers={"X-Request-Id": "Caller-1.a_b"})
    assert reply.headers["x-request-id"] == "Caller-1.a_b"
    line = gateway.line("Caller-1.a_b")
    assert (line["status"], line["outcome"], line["pool"]) == (200, "ok", "demo/s")
    assert (line["namespace"], line["service"], line["version"], line["principal"]) == ("demo", "S", "v1", "")
    assert (line["node"], line["session"]) == ("worker-1", "pod-s:0")
    assert line["serviceMs"] == float(re.findall(r"dur=([\d.]+)", reply.headers["server-timing"])[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


@pytest.mark.parametrize("given", ["", "a b", "é", 'a"b', "a,b", "x" * 129, "<script>"])
def test_another_request_id_is_replaced(gateway: Gateway, given: str) -> None:
    for path in ("/api/S/v1", "/nowhere"):
        reply = gateway.call(path, headers={"X-Request-Id": given})
        assert UUID.fullmatch(reply.headers["x-request-id"])


def test_of_two_request_ids_a_bad_one_is_not_used(gateway: Gateway) -> None:
    for ids in (b"X-Request-Id: good\r\nX-Request-Id: b d\r\n", b"X-Request-Id: b d, good\r\n"):
        answer = gateway.raw(HEAD + ids + b"Content-Length: 2\r\n\r\n{}")
        (shown,) = re.findall(rb"(?i)x-request-id: (.*)\r\n", answer)
        assert UUID.fullmatch(shown.decode()) or shown == b"good", answer


def test_a_callers_own_pool_header_is_removed(gateway: Gateway) -> None:
    assert gateway.call("/api/S/v1", headers={"X-Session-Pool": "uid-of-another-pool"}).status == 200
    assert gateway.call("/api/Foreign/v1", headers={"X-Session-Pool": POOL_UID}).status == 503


def test_what_a_session_is_told_of_a_caller() -> None:
    """A socket in a session's place, which shows the request's head as it comes."""
    with socket() as slot, socket() as control:
        port = free_ports()
        for number, sock in ((port, control), (port + 1, slot)):  # HAProxy looks at the control port
            sock.bind(("127.0.0.1", number))
            sock.listen()
        one = Gateway(route("S", (OpenSlot("worker-1:pod:0", "127.0.0.1", port + 1, 1),))).start()
        try:
            with one.dial() as caller:
                caller.sendall(
                    HEAD + b"Authorization: Bearer secret\r\nCookie: a=secret\r\nX-Session-Pool: secret\r\n"
                    b"x-session-pool: secret\r\nX-Request-Id: id-1\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\n{}"
                )
                slot.settimeout(30)
                connection, _ = slot.accept()
                with connection:
                    seen = b""
                    while not seen.endswith(b"\r\n\r\n{}"):
                        seen += connection.recv(65536)
        finally:
            one.stop()
    headers = dict(line.split(": ") for line in seen.decode().split("\r\n")[1:-2])
    assert "secret" not in seen.decode()
    assert (headers["x-session-pool"], headers["x-request-id"], headers["x-own"]) == (POOL_UID, "id-1", "kept")


# --- what is no proper request --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;extension=1\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        HEAD + b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"X-Long: " + b"a" * 60000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        HEAD.replace(b"/api", b"http://gateway/api") + b"Content-Length: 2\r\n\r\n{}",
        b"POST /api/S/v1 HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=[
        "length-twice",
        "length-and-chunked",
        "folded",
        "bare-lf",
        "chunks",
        "upgrade",
        "60kB",
        "absolute",
        "1.0",
        "expect",
    ],
)
def test_odd_but_clear_requests_reach_one_session_once(gateway: Gateway, request_bytes: bytes) -> None:
    answer = gateway.raw(request_bytes).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 "))
    assert answer.count(b'{"success":') == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00not http\r\n\r\n",
        b"GET /\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"X-Blank : a\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"X-Nul: \x00\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"X-Long: " + b"a" * 70000 + b"\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(300)) + b"Content-Length: 2\r\n\r\n{}",
        HEAD.replace(b"/api", b"http://elsewhere/api") + b"Content-Length: 2\r\n\r\n{}",
        b"POST /api/\xc3\xa9/v1 HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "tls",
        "0.9",
        "two-lengths",
        "negative",
        "huge",
        "coding",
        "codings",
        "bad-chunk",
        "blank",
        "nul",
        "70kB",
        "300-headers",
        "other-host",
        "raw-utf8",
        "http2",
    ],
)
def test_malformed_requests_are_refused_and_harm_nobody(gateway: Gateway, request_bytes: bytes) -> None:
    before = len(gateway.lines)
    answer = gateway.raw(request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert usable(gateway)
    eventually(lambda: [line for line in gateway.lines[before:] if (line["status"], line["pool"]) == (400, "")])


def test_of_two_requests_in_one_go_each_is_answered_in_order(gateway: Gateway) -> None:
    first = HEAD.replace(b"Connection: close\r\n", b"") + b'Content-Length: 11\r\n\r\n{"size": 3}'
    answer = gateway.raw(first + HEAD + b'Content-Length: 11\r\n\r\n{"size": 4}')
    assert re.findall(rb'"answer":"(x+)"', answer) == [b"xxx", b"xxxx"]


def test_a_body_that_is_declared_too_large_is_refused_unread(gateway: Gateway) -> None:
    answer = gateway.raw(HEAD + b"Content-Length: %d\r\n\r\n" % ((64 << 20) + 1) + b" " * 100_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"demo/s: the request is larger than 64 MiB" in answer


def test_what_is_not_json_is_refused_by_the_session(gateway: Gateway) -> None:
    reply = gateway.call("/api/S/v1", b"{", headers={"X-Request-Id": "not-json"})
    assert (reply.status, set(reply.json), reply.json["success"]) == (400, FAILURE, False)
    assert gateway.line("not-json")["outcome"] == "refused"


def test_a_body_of_ten_mib_arrives_and_one_goes_back(gateway: Gateway) -> None:
    reply = gateway.call("/api/S/v1", b'{"size": 10000000}' + b" " * (10 << 20))
    assert len(reply.answer) == 10_000_000
