"""What the gateway passes on to the web API, and what it says when there is none: the real HAProxy, a real server."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sessionpools.gateway import webapi
from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.config import Settings, WebApi, read_allocation, render
from support.gateway import SERVICE, Gateway, route, slots_of
from support.runtime_pod import Pod, Reply, eventually, free_ports
from support.tokens import bearer, key
from support.web_api import WebApiServer, web_api
from unit.gateway.conftest import Start

KEY = key("current")
PATHS = (
    "/login",
    "/login/refreshToken",
    "/services",
    "/services/",
    "/services/Score",
    "/services/Score/v1",
    "/services/Score/v1/logs",
    "/services/Score/v1/pool",
    "/services/Score/v1/pool/usage",
    "/realtime-services/Score/v1",
    "/services/Gr%C3%B6%C3%9Fe%20%22x%22/v1.0",
    "/services/..a/v1..",
    "/services/.hidden/v1",
    "/sessions",
    "/sessions/1/workspace/a.dill",
    "/snapshots/1",
    "/status",
    "/computenodes",
    "/health",
    "/openapi.json",
    "/docs",
    "/docs/static/swagger-ui.css",
    "/sessions/1/files/a/b.csv",
    "/.well-known/jwks.json",
    "/api/Score/v1/swagger.json",
    "/api/Score/v1/batch",
    "/api/Score/v1/batch/1",
    "/api/Score/v1/batch/1/2/files/out.png",
    "/api/S/v1/batch",
)
OTHERS = (
    "/",
    "/metrics",
    "/loginx",
    "/Login",
    "/servicesx/a",
    "/status/x",
    "/health/x",
    "/openapi.json/x",
    "/openapi_json",
    "/.well-known/other",
    "/api/Score/v1/other",
    "/api/Score/v1/swagger.json/x",
    "/api/Score/v1/batches",
    "/api/swagger.json",
    "/namespaces/demo/services",
    "/namespaces/demo/api/Score/v1/batch",
    "//services",
    "/services//Score",
    "/services/../login",
    "/services/./Score",
    "/services/..",
    "/services/.",
    "/services/%2e%2e/login",
    "/services/.%2E/login",
    "/docs/%2e%2e",
    "/docs/../../etc/passwd",
    "/x/../services",
)


@pytest.fixture(scope="module")
def api() -> Iterator[WebApiServer]:
    with web_api() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(api: WebApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One web service with a session; calls need a token."""
    pod = Pod(tmp_path_factory.mktemp("pods") / "pod", SERVICE).start().wait_ready()
    one = Gateway(route("S", slots_of(pod)), keys=(KEY,), web=WebApi("127.0.0.1", api.port, 1), client_seconds=2)
    yield one.start()
    one.stop()
    pod.stop()


def failed(gateway: Gateway, reply: Reply, status: int, *words: str) -> None:
    """In the web API's form."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"message", "link", "exceptionType"}
    for word in words:
        assert word in reply.json["message"]
    assert gateway.line(reply.headers["x-request-id"])["status"] == status


def requests_under_way(gateway: Gateway) -> int:
    """To the web API."""
    rows = [line.split(",") for line in gateway.admin("show stat").splitlines()]
    return next(int(row[4]) for row in rows if row[:2] == ["web", "BACKEND"])


# --- where requests go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_the_paths_of_the_rest_api_go_to_the_web_api(gateway: Gateway, path: str) -> None:
    for method, query in (("GET", "?a=/../b"), ("POST", ""), ("DELETE", ""), ("PATCH", "?x")):
        reply = gateway.call(path + query, {"a": 1}, method=method)
        assert reply.status == 200, reply
        assert (reply.json["method"], reply.json["path"]) == (method, path + query)
        assert reply.json["size"] == len(b'{"a": 1}')
        line = gateway.line(reply.headers["x-request-id"])
        assert (line["outcome"], line["node"], line["principal"], line["tokenRefused"]) == ("web", "web", "", "")


def test_the_log_has_nothing_of_a_query_string(gateway: Gateway) -> None:
    """It may be a secret: a refresh token that is revoked stands in one."""
    secret = "a-refresh-token"
    ids = [
        gateway.call(f"{path}?refreshToken={secret}", method=method).headers["x-request-id"]
        for method, path in (
            ("DELETE", "/login/refreshToken"),
            ("POST", "/api/S/v1"),
            ("GET", "/api/S/v1"),
            ("GET", "/"),
        )
    ]
    assert all(gateway.line(each) for each in ids)
    assert secret not in (gateway.directory / "out").read_text()


@pytest.mark.parametrize("path", OTHERS)
def test_other_paths_are_unknown_and_reach_nobody(gateway: Gateway, api: WebApiServer, path: str) -> None:
    before = len(api.seen)
    reply = gateway.call(path)
    assert reply.status == 404
    assert "there is nothing at this path" in reply.json["message"] == reply.json["errorMessage"]
    assert len(api.seen) == before


@pytest.mark.parametrize("path", ["/services/a%2Fb", "/docs/%5c", "/login/%00", "/services/%", "/services/%zz"])
def test_encoded_slashes_and_the_like_are_refused(gateway: Gateway, api: WebApiServer, path: str) -> None:
    before = len(api.seen)
    failed(gateway, gateway.call(path), 400, "percent encoding")
    assert len(api.seen) == before


def test_a_path_that_is_not_utf8_is_refused(gateway: Gateway) -> None:
    failed(gateway, gateway.call("/services/%C3"), 400, "UTF-8")


def test_calls_go_to_sessions_and_never_to_the_web_api(gateway: Gateway, api: WebApiServer) -> None:
    before = len(api.seen)
    for path, status in (("/api/S/v1", 200), ("/namespaces/demo/api/S/v1", 200), ("/api/login/v1", 404)):
        assert gateway.call(path, headers=bearer(KEY.token())).status == status
        assert gateway.call(path).status == 401
        assert gateway.call(path, method="GET", headers=bearer(KEY.token())).status == 405
    assert len(api.seen) == before


def test_one_connection_serves_both(gateway: Gateway) -> None:
    token = bearer(KEY.token())
    with gateway.connection() as connection:
        for _ in range(3):
            assert gateway.call("/services", connection=connection, headers=token).json["path"] == "/services"
            assert gateway.call("/api/S/v1", connection=connection, headers=token).json["success"] is True
            assert gateway.call("/api/S/v1", connection=connection).status == 401


def test_without_a_web_api_its_paths_are_unknown(start: Start) -> None:
    gateway = start(route("Orphan", pool="", pool_uid=""))
    for path in PATHS:
        assert gateway.call(path, method="GET").status == 404


# --- what comes along -------------------------------------------------------------------------------------------------


def test_who_the_caller_is_comes_from_the_gateway_alone(gateway: Gateway) -> None:
    sent = {
        "X-Request-Id": "id-1",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
        "Upgrade": "h2c",
        "Authorization": "Bearer anything",
        "Cookie": "a=b",
        "If-Match": "x",
    }
    headers = gateway.call("/status", headers=sent, method="GET").json["headers"]
    assert ["x-request-id", "id-1"] in headers
    assert ["authorization", "Bearer anything"] in headers
    assert ["cookie", "a=b"] in headers
    assert ["if-match", "x"] in headers
    assert [pair for pair in headers if pair[0].startswith(("x-forwarded", "forwarded", "x-real", "upgrade"))] == [
        ["x-forwarded-for", "127.0.0.1"],
        ["x-forwarded-proto", "http"],
    ]
    assert "6.6.6.6" not in str(headers)


def test_the_request_id_comes_back_and_is_made_where_there_is_none(gateway: Gateway) -> None:
    reply = gateway.call("/status")
    assert ["x-request-id", reply.headers["x-request-id"]] in reply.json["headers"]


def test_an_error_of_the_web_api_is_its_own(gateway: Gateway) -> None:
    reply = gateway.call("/sessions/refused")
    assert (reply.status, reply.json["path"]) == (400, "/sessions/refused")
    assert gateway.line(reply.headers["x-request-id"])["outcome"] == "web"


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60_000, 70_000, 1 << 20])
def test_a_body_arrives_whole(gateway: Gateway, size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    assert gateway.call("/sessions/1/workspace/a", body).json["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_body_above_the_limit_is_refused_unread(gateway: Gateway, api: WebApiServer) -> None:
    before = len(api.seen)
    head = b"POST /sessions HTTP/1.1\r\nHost: s\r\nX-Request-Id: big\r\nConnection: close\r\n"
    answer = gateway.raw(head + b"Content-Length: %d\r\n\r\n" % ((1 << 20) + 1) + b" " * 100_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 1 MiB" in answer
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"message", "link", "exceptionType"}
    assert gateway.line("big")["outcome"] == "invalid"
    assert len(api.seen) == before


def test_a_slow_upload_takes_as_long_as_it_takes(gateway: Gateway) -> None:
    """Longer than the whole of a call may take to arrive, and without its length being known."""
    with gateway.dial() as caller:
        began = time.monotonic()
        caller.sendall(b"POST /sessions HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        pieces = 0
        while time.monotonic() - began < 3.5:
            caller.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            pieces += 1
            time.sleep(0.3)
        caller.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["size"] == pieces * 1000


@pytest.mark.parametrize(("length", "status"), [(1000, 408), (1_000_000, 400)])
def test_an_upload_that_stops_is_given_up(gateway: Gateway, length: int, status: int) -> None:
    """HAProxy's own word for it is 400 where the web API has the beginning already."""
    head = b"POST /sessions HTTP/1.1\r\nHost: s\r\nX-Request-Id: stops-%d\r\nContent-Length: %d\r\n\r\n"
    answer = gateway.raw(head % (length, length) + b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"came to a stop for 2 s" in answer
    assert b'"exceptionType"' in answer
    assert gateway.line(f"stops-{length}")["status"] == status


# --- a web API that does not answer -----------------------------------------------------------------------------------


def test_while_the_web_api_is_away_calls_are_answered(tmp_path: Path, start: Start) -> None:
    pod = Pod(tmp_path / "pod", SERVICE).start().wait_ready()
    port = free_ports()
    try:
        gateway = start(route("S", slots_of(pod)), web=WebApi("127.0.0.1", port))
        reply = gateway.call("/services", method="GET")
        failed(gateway, reply, 503, f"the web API (127.0.0.1:{port}) cannot be reached")
        assert reply.headers["retry-after"] == "5"
        assert gateway.line(reply.headers["x-request-id"])["outcome"] == "web-away"
        assert gateway.call("/api/S/v1").status == 200
        with web_api(port):
            eventually(lambda: gateway.call("/services", method="GET").status == 200)
    finally:
        pod.stop()


def test_a_web_api_that_is_replaced_within_a_second_is_waited_for(start: Start) -> None:
    port = free_ports()
    gateway = start(route("Orphan", pool="", pool_uid=""), web=WebApi("127.0.0.1", port))
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(gateway.call, "/services")
        eventually(lambda: requests_under_way(gateway) == 1)
        with web_api(port):
            assert asked.result(10).status == 200


def test_an_answer_that_breaks_off_is_a_502_and_the_request_is_not_repeated(
    gateway: Gateway, api: WebApiServer
) -> None:
    before = len(api.seen)
    for _ in range(3):
        reply = gateway.call("/sessions/die")
        failed(gateway, reply, 502, "broke off its answer")
        assert gateway.line(reply.headers["x-request-id"])["outcome"] == "web-away"
    assert len(api.seen) == before + 3


def test_a_web_api_that_takes_too_long_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webapi, "WEB_SECONDS", 1)
    with web_api() as slow:
        gateway = start(route("Orphan", pool="", pool_uid=""), web=WebApi("127.0.0.1", slow.port))
        failed(gateway, gateway.call("/sessions/wait"), 504, "did not answer within 1 s")


def test_a_web_api_may_take_longer_than_a_caller_may_be_silent(start: Start) -> None:
    with web_api() as slow, ThreadPoolExecutor(1) as executor:
        gateway = start(route("Orphan", pool="", pool_uid=""), web=WebApi("127.0.0.1", slow.port), client_seconds=1)
        asked = executor.submit(gateway.call, "/sessions/wait")
        eventually(lambda: slow.seen)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 2.0)
        assert not asked.done()
        slow.release.set()
        assert asked.result(10).status == 200


# --- the configuration ------------------------------------------------------------------------------------------------


def test_haproxy_takes_the_configuration_without_a_warning(gateway: Gateway) -> None:
    result = gateway.check()
    assert (result.returncode, result.stdout + result.stderr) == (0, "Configuration file is valid\n")


@pytest.mark.parametrize("address", ["", "10.0.0.5", "fd00::5"])
def test_allocation_and_address_can_be_read_back(address: str) -> None:
    web = WebApi("session-pools-web", 12802)
    routes = [route("S")]
    allocation = allocate(Allocation(), routes)
    files = render(Settings(Path("/run/x"), web=web), allocation, routes, web=webapi.server(web, address))
    assert read_allocation(files.haproxy_cfg) == allocation
    assert webapi.read_address(files.haproxy_cfg, web) == address
    assert webapi.read_address(files.haproxy_cfg, WebApi("session-pools-web", 12805)) == ""


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("web:12802", "web", 12802),
        ("a.b-c.svc:1", "a.b-c.svc", 1),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[fd00::1]:80", "fd00::1", 80),
    ],
)
def test_host_and_port_are_read(text: str, host: str, port: int) -> None:
    web = WebApi.parse(text, 512)
    assert (web.host, web.port, str(web)) == (host, port, text)


@pytest.mark.parametrize(
    "text", ["web", "web:", ":80", "web:0", "web:65536", "web:x", "a b:80", "a'b:80", "fd00::1:80", "[web:80", "http://web:80"]
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use HOST:PORT"):
        WebApi.parse(text, 512)
