"""Whatever goes wrong, the answer has Machine Learning Server's error body, and no traceback."""

from __future__ import annotations

import json

import httpx
import pytest

from sessionpools.kube.protocol import WEB_SERVICES
from sessionpools.web.edge import BODY_BYTES_AT_MOST, OPEN_BODY_BYTES_AT_MOST
from support.web import SCRIPT, WebWorld, error_of


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/services/", 404),
        ("POST", "/api/Score/v1", 404),  # the gateway's: it never comes here
        ("GET", "/docs/static/nothing.js", 404),
        ("PUT", "/services", 405),
        ("PUT", "/services/Score/v1/pool", 405),
        ("POST", "/health", 405),
    ],
)
async def test_paths_and_methods_that_there_are_not(
    admin: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await admin.request(method, path)
    assert answer.status_code == status
    error_of(answer)


async def test_405_names_all_methods_of_the_path(admin: httpx.AsyncClient) -> None:
    answer = await admin.put("/services/Score/v1/pool")
    assert answer.headers["allow"] == "DELETE, GET, POST"
    assert "DELETE, GET, POST" in error_of(answer)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b'{"code": "\\ud800"}', b"null", b'"x"', b""])
async def test_a_body_that_can_not_be_read_is_400(admin: httpx.AsyncClient, content: bytes) -> None:
    answer = await admin.post("/services/Score/v1", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json; charset=utf-8"}])
async def test_json_is_read_with_and_without_a_content_type(admin: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await admin.post("/services/Score/v1", content=json.dumps(SCRIPT).encode(), headers=headers)
    assert answer.status_code == 201


async def test_what_json_can_say_and_kubernetes_can_not_keep_is_400(admin: httpx.AsyncClient) -> None:
    for warmup in ({"x": 2**70}, {"x": "\ud800"}):
        answer = await admin.post(
            "/services/Score/v1",
            content=json.dumps(SCRIPT | {"warmup": warmup}).encode(),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400
        assert "warmup" in error_of(answer)


async def test_a_body_above_the_limit_is_413_announced_or_not(admin: httpx.AsyncClient) -> None:
    async def pieces() -> object:
        for _ in range(BODY_BYTES_AT_MOST // (1 << 20) + 1):
            yield b"x" * (1 << 20)

    headers = {"Content-Type": "application/json"}
    answer = await admin.post("/services/Score/v1", content=pieces(), headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 413
    assert "take a snapshot" in error_of(answer)
    answer = await admin.post(
        "/services/Score/v1", content=b"{}", headers=headers | {"Content-Length": str(BODY_BYTES_AT_MOST + 1)}
    )
    assert answer.status_code == 413
    error_of(answer)


async def test_who_has_not_logged_in_may_send_no_more_than_a_login_has(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    async def pieces() -> object:
        for _ in range(OPEN_BODY_BYTES_AT_MOST // 1024 + 1):
            yield b"x" * 1024

    for path in ("/login", "/login/refreshToken"):
        answer = await admin.post(path, content=pieces())  # type: ignore[arg-type]
        assert answer.status_code == 413
        assert "64 KiB" in error_of(answer)
        answer = await admin.post(path, content=b"{}", headers={"Content-Length": str(OPEN_BODY_BYTES_AT_MOST + 1)})
        assert answer.status_code == 413
        error_of(answer)


async def test_bodies_take_no_more_memory_than_there_is_for_them(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionpools.web.edge.BODIES_BYTES_AT_MOST", 1 << 20)

    async def pieces() -> object:
        for _ in range(2048):
            yield b"x" * 1024

    for _ in range(2):  # what a request has taken is given back
        answer = await admin.post("/services/Score/v1", content=pieces())  # type: ignore[arg-type]
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert "memory" in error_of(answer)
    answer = await admin.post("/services/Score/v1", content=b"x" * (2 << 20))
    assert answer.status_code == 503
    assert (await admin.post("/services/Score/v1", json=SCRIPT)).status_code == 201


async def test_every_answer_carries_the_requests_id(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/services", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    answer = await admin.get("/nothing", headers={"X-Request-Id": "not/one"})
    assert len(answer.headers["x-request-id"]) == 36


async def test_what_nobody_foresaw_is_500_with_the_id_under_which_it_is_logged(
    world: WebWorld, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret detail")

    monkeypatch.setattr(world.parts.cluster, "services", broken)
    answer = await admin.get("/services", headers={"X-Request-Id": "mine-1"})
    assert answer.status_code == 500
    assert "mine-1" in error_of(answer)
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("status", "reason", "answered"),
    [(500, "InternalError", 503), (0, "", 503), (403, "Forbidden", 403), (422, "Invalid", 400), (429, "TooMany", 503)],
)
async def test_what_the_api_server_refuses_becomes_an_answer(
    world: WebWorld, admin: httpx.AsyncClient, status: int, reason: str, answered: int
) -> None:
    world.server.fail("create", WEB_SERVICES, status, times=20, reason=reason, message="spec.name: no", retry_after=60)
    answer = await admin.post("/services/Score/v1", json=SCRIPT)
    assert answer.status_code == answered
    message = error_of(answer)
    assert status == 0 or "spec.name: no" in message
    assert (answered == 503) is ("retry-after" in answer.headers)
    assert world.services() == []


async def test_reading_goes_on_while_the_api_server_is_away(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    await world.server.stop()
    try:
        assert len((await admin.get("/services")).json()) == 1
        assert (await admin.get("/services/Score/v1/pool")).status_code == 200
        answer = await admin.patch("/services/Score/v1", json={"description": "x"})
        assert answer.status_code == 503
        error_of(answer)
    finally:
        await world.server.start()
