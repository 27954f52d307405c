"""/sessions, workspaces, files and /snapshots: what clients make on their way to a published service."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import httpx
import pytest

from sessionpools.web.auth.identity import Role
from sessionpools.web.store.room import ROOM_BYTES, Room
from support.web import SCRIPT, WebWorld, error_of


async def collect(world: WebWorld) -> None:
    """Also if the replica is just about to collect by itself."""
    async with asyncio.timeout(30):
        while not await world.parts.collector.turn():
            await asyncio.sleep(0.05)


async def session_of(client: httpx.AsyncClient, **body: str) -> str:
    answer = await client.post("/sessions", json=body)
    assert answer.status_code == 201
    return str(answer.json()["sessionId"])


async def test_objects_and_files_are_kept_as_they_were_put(admin: httpx.AsyncClient) -> None:
    session = await session_of(admin, runtimeType="Python", name="mine")
    content = bytes(range(256)) * 5000
    for method in ("POST", "PUT"):
        answer = await admin.request(
            method,
            f"/sessions/{session}/workspace/model",
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status_code == 200
    assert (await admin.get(f"/sessions/{session}/workspace")).json() == ["model"]
    answer = await admin.get(f"/sessions/{session}/workspace/model")
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"
    put = await admin.put(f"/sessions/{session}/files/lib/data.csv", content=b"a,b\n")
    assert put.status_code == 200
    uploaded = await admin.post(f"/sessions/{session}/files", files={"file": ("notes.txt", b"\r\n--x\r\n" * 3000)})
    assert (uploaded.status_code, uploaded.json()) == (201, "notes.txt")
    assert (await admin.get(f"/sessions/{session}/files")).json() == ["lib/data.csv", "notes.txt"]
    assert (await admin.get(f"/sessions/{session}/files/lib/data.csv")).content == b"a,b\n"
    assert (await admin.get(f"/sessions/{session}/files/notes.txt")).content == b"\r\n--x\r\n" * 3000
    for path in (f"/sessions/{session}/workspace/model", f"/sessions/{session}/files/lib/data.csv"):
        assert (await admin.delete(path)).status_code == 200
        answer = await admin.get(path)
        assert answer.status_code == 404
        error_of(answer)


async def test_a_session_is_listed_shown_and_closed(admin: httpx.AsyncClient) -> None:
    session = await session_of(admin, name="mine")
    shown = {"id": session, "name": "mine", "owner": "admin", "runtimeType": "Python"}
    assert (await admin.get("/sessions")).json() == [shown]
    assert (await admin.get(f"/sessions/{session}")).json() == shown
    assert (await admin.delete(f"/sessions/{session}")).status_code == 200
    assert (await admin.get(f"/sessions/{session}")).status_code == 404
    assert (await admin.delete(f"/sessions/{await session_of(admin)}/force")).status_code == 200


@pytest.mark.parametrize("body", [None, {}, {"name": None, "snapshotId": None, "runtimeType": None}])
async def test_a_session_needs_no_body(admin: httpx.AsyncClient, body: object) -> None:
    answer = await admin.post("/sessions") if body is None else await admin.post("/sessions", json=body)
    assert answer.status_code == 201


async def test_r_is_refused(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/sessions", json={"runtimeType": "R"})
    assert answer.status_code == 400
    assert "Python" in error_of(answer)


async def test_a_snapshot_stays_as_it_was_and_a_session_may_begin_with_it(admin: httpx.AsyncClient) -> None:
    session = await session_of(admin)
    await admin.post(f"/sessions/{session}/workspace/model", content=b"first")
    await admin.put(f"/sessions/{session}/files/a.txt", content=b"text")
    taken = await admin.post(f"/sessions/{session}/snapshot", json={"name": "before"})
    assert taken.status_code == 201
    snapshot = taken.json()["snapshotId"]
    await admin.post(f"/sessions/{session}/workspace/model", content=b"second")
    (listed,) = (await admin.get("/snapshots")).json()
    assert (listed["id"], listed["name"], listed["owner"], listed["contentSize"]) == (snapshot, "before", "admin", 9)
    other = await session_of(admin, snapshotId=snapshot)
    assert (await admin.get(f"/sessions/{other}/workspace/model")).content == b"first"
    assert (await admin.post(f"/sessions/{session}/loadsnapshot/{snapshot}")).status_code == 200
    assert (await admin.get(f"/sessions/{session}/workspace/model")).content == b"first"
    answer = await admin.get(f"/snapshots/{snapshot}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "objects/model.dill": b"first",
            "files/a.txt": b"text",
        }
    assert (await admin.delete(f"/snapshots/{snapshot}")).status_code == 200
    assert (await admin.get("/snapshots")).json() == []


async def test_an_old_snapshot_stays_while_a_service_names_it(world: WebWorld, admin: httpx.AsyncClient) -> None:
    session = (await admin.post("/sessions", json={})).json()["sessionId"]
    named, unnamed = [
        (await admin.post(f"/sessions/{session}/snapshot", json={})).json()["snapshotId"] for _ in range(2)
    ]
    assert (await admin.post("/services/Score/v1", json=SCRIPT | {"snapshotId": named})).status_code == 201
    for snapshot in (named, unnamed):
        key = f"authoring/snapshots/{snapshot}"
        document = json.loads((await world.parts.store.get(key)).data)
        await world.parts.store.put(key, json.dumps(document | {"created": 0.0}).encode())
    await collect(world)
    assert [each["id"] for each in (await admin.get("/snapshots")).json()] == [named]
    assert (await admin.delete("/services/Score/v1")).status_code == 200
    await collect(world)
    assert (await admin.get("/snapshots")).json() == []


async def test_another_users_session_and_snapshot_are_not_there_but_for_an_owner(world: WebWorld) -> None:
    ada, bob, admin = world.client("ada", Role.CONTRIBUTOR), world.client("bob", Role.CONTRIBUTOR), world.client()
    session = await session_of(ada)
    snapshot = (await ada.post(f"/sessions/{session}/snapshot", json={})).json()["snapshotId"]
    for path in (f"/sessions/{session}", f"/sessions/{session}/workspace", f"/snapshots/{snapshot}"):
        assert (await bob.get(path)).status_code == 404
        assert (await admin.get(path)).status_code == 200
    assert (await bob.get("/sessions")).json() == (await bob.get("/snapshots")).json() == []
    assert len((await admin.get("/sessions")).json()) == 1
    assert (await bob.post("/services/Mine/v1", json={"code": "x = 1", "snapshotId": snapshot})).status_code == 404
    assert (await bob.post("/sessions", json={"snapshotId": snapshot})).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "execute"), ("POST", "cancel"), ("GET", "console-output"), ("GET", "history")]
)
async def test_code_is_not_executed_in_a_session_and_what_to_do_instead_is_said(
    admin: httpx.AsyncClient, method: str, path: str
) -> None:
    session = await session_of(admin)
    answer = await admin.request(
        method, f"/sessions/{session}/{path}", json={"code": "1"} if method == "POST" else None
    )
    assert answer.status_code == 501
    assert "publish the code" in error_of(answer)


@pytest.mark.parametrize("name", ["1x", "a b", "class", "__x"])
async def test_an_object_whose_name_is_no_variable_is_refused(admin: httpx.AsyncClient, name: str) -> None:
    answer = await admin.post(f"/sessions/{await session_of(admin)}/workspace/{name}", content=b"x")
    assert answer.status_code == 400
    assert name in error_of(answer)


FORM = "multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "content", "said"),
    [
        ("application/json", b"{}", "multipart/form-data"),
        ("multipart/form-data", b"", "boundary"),
        (FORM, b"--b\r\n\r\nno name\r\n--b--", "no part with a file name"),
        (FORM, HEAD % b"a" + b"x", "ends before its last boundary"),
        (FORM, HEAD % b"../a" + b"x\r\n--b--", "../a"),
    ],
)
async def test_an_upload_that_is_none_is_refused(
    admin: httpx.AsyncClient, content_type: str, content: bytes, said: str
) -> None:
    answer = await admin.post(
        f"/sessions/{await session_of(admin)}/files", content=content, headers={"Content-Type": content_type}
    )
    assert answer.status_code == 400
    assert said in error_of(answer)


async def test_a_snapshot_is_packed_as_it_is_sent_and_takes_no_disk(
    world: WebWorld, admin: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await session_of(admin)
    noise = {name: os.urandom(3 << 20) for name in ("a", "b")}
    for name, content in noise.items():
        assert (await admin.put(f"/sessions/{session}/files/{name}", content=content)).status_code == 200
    snapshot = (await admin.post(f"/sessions/{session}/snapshot", json={})).json()["snapshotId"]
    (tmp_path / "no-directory").write_bytes(b"")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-directory"))
    async with admin.stream("GET", f"/snapshots/{snapshot}") as answer:
        packed = b"".join([piece async for piece in answer.aiter_raw()])
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(f"files/{name}") for name in noise} == noise


async def test_uploads_and_publications_for_which_there_is_no_room_are_503_for_now(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    session = await session_of(admin)
    room = Room(ROOM_BYTES, wait_seconds=0.02)
    world.parts.authoring.room = room
    async with room.take(ROOM_BYTES - (1 << 20), "others"):
        for answer in (
            await admin.put(f"/sessions/{session}/files/a", content=bytes(5 << 20)),
            await admin.post("/services/Score/v1", json=SCRIPT),
        ):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "of temporary files, which other uploads and publications have now" in error_of(answer)
    assert (await admin.put(f"/sessions/{session}/files/a", content=bytes(5 << 20))).status_code == 200
    assert (await admin.post("/services/Score/v1", json=SCRIPT)).status_code == 201
