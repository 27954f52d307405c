"""The artifact store is away: what needs it says 503 and leaves nothing half-made; what does not goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.s3 import s3_server
from support.web import ADMIN_PASSWORD, SCRIPT, WebWorld, error_of


@pytest.fixture
def away(world: WebWorld) -> Iterator[None]:
    """The volume is gone, and cannot be made anew."""
    folder = world.folder / "store"
    folder.rename(world.folder / "kept")
    folder.write_text("no directory")
    yield
    folder.unlink(missing_ok=True)


async def published(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/services/Old/v1", json=SCRIPT)).status_code == 201


async def test_a_service_is_not_published_by_halves(world: WebWorld, admin: httpx.AsyncClient, away: None) -> None:
    answer = await admin.post("/services/Score/v1", json=SCRIPT)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    error_of(answer)
    assert world.services() == []
    assert (await admin.get("/services")).json() == []


async def test_a_service_is_published_when_the_object_store_is_back_and_not_by_halves_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real S3-compatible server, which is stopped and started again."""
    with s3_server(tmp_path) as s3:
        for name, value in s3.environ.items():
            monkeypatch.setenv(name, value)
        world = WebWorld(tmp_path)
        world.store_url = s3.url("release")
        async with world:
            admin = world.client()
            await published(admin)
            code = world.service("Old")["spec"]["code"]
            await asyncio.to_thread(s3.stop)
            for method, path in (("POST", "/services/Score/v1"), ("PATCH", "/services/Old/v1")):
                answer = await admin.request(method, path, json=SCRIPT | {"code": "answer = 2"})
                assert (answer.status_code, answer.json()["exceptionType"]) == (503, "StoreUnavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert "store s3://session-pools-test/release: can't" in error_of(answer)
                assert s3.secret_key not in answer.text
            assert [service["spec"]["name"] for service in world.services()] == ["Old"]
            assert world.service("Old")["spec"]["code"] == code
            await asyncio.to_thread(s3.start)
            answer = await admin.post("/services/Score/v1", json=SCRIPT | {"code": "answer = 2"})
            assert answer.status_code == 201
            sha256 = world.service("Score")["spec"]["code"]["bundle"]["sha256"]
            assert await world.parts.bundles.size(sha256) > 0


async def test_an_update_of_the_code_changes_nothing_and_one_of_the_description_goes_on(
    world: WebWorld, admin: httpx.AsyncClient, request: pytest.FixtureRequest
) -> None:
    await published(admin)
    before = world.service("Old")["spec"]
    request.getfixturevalue("away")
    assert (await admin.patch("/services/Old/v1", json={"code": "x = 2"})).status_code == 503
    assert world.service("Old")["spec"] == before
    assert (await admin.patch("/services/Old/v1", json={"description": "still"})).status_code == 200
    assert world.service("Old")["spec"]["description"] == "still"


async def test_lists_pools_swagger_and_deletion_need_no_store(
    world: WebWorld, admin: httpx.AsyncClient, request: pytest.FixtureRequest
) -> None:
    await published(admin)
    request.getfixturevalue("away")
    (listed,) = (await admin.get("/services")).json()
    assert (listed["name"], listed["code"]) == ("Old", None)  # nobody has read it yet
    assert (await admin.post("/services/Old/v1/pool", json={"MaxPoolSize": 1})).status_code == 200
    assert (await admin.get("/services/Old/v1/pool")).status_code == 200
    assert (await admin.get("/api/Old/v1/swagger.json")).status_code == 200
    assert (await admin.delete("/services/Old/v1")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/sessions", {}),
        ("GET", "/sessions", None),
        ("GET", "/snapshots", None),
        ("GET", "/api/Old/v1/batch", None),
        ("POST", "/api/Old/v1/batch", [{"x": 1}]),
    ],
)
async def test_what_is_kept_in_the_store_is_503(
    admin: httpx.AsyncClient, request: pytest.FixtureRequest, method: str, path: str, body: object
) -> None:
    await published(admin)
    request.getfixturevalue("away")
    answer = await admin.request(method, path, json=body)
    assert answer.status_code == 503
    error_of(answer)


async def test_one_can_log_in_without_a_refresh_token(world: WebWorld, away: None) -> None:
    answer = await world.client(role=None).post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status_code == 200
    assert answer.json()["access_token"]
    assert answer.json()["refresh_token"] == ""
