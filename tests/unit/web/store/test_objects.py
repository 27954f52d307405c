"""What is kept is read again, at once or not at all, and conditional writes hold: on a volume and on S3."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sessionpools.web.store.errors import Changed, NotFound, Refused, StoreFull, StoreUnavailable, StoreUnfit
from sessionpools.web.store.objects import ObjectStore, Version
from support.careless_s3 import URL, careless_s3
from support.s3 import S3Server
from support.tools import ROOT


async def content(store: ObjectStore, key: str) -> bytes:
    return (await store.get(key)).data


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted([entry.key async for entry in store.list(prefix)])


# --- reading and writing ----------------------------------------------------------------------------------------------


async def test_what_was_put_is_read(store: ObjectStore) -> None:
    await store.put("a/b", b"one")
    assert await content(store, "a/b") == b"one"
    await store.put("a/b", b"two")
    assert await content(store, "a/b") == b"two"
    assert await store.size("a/b") == 3


async def test_an_object_that_is_not_there_is_named(store: ObjectStore) -> None:
    for missing in (store.get("a/b"), store.size("a/b"), store.modified("a/b"), anext(store.stream("a/b"))):
        with pytest.raises(NotFound, match="there is no object a/b"):
            await missing


async def test_an_empty_object_is_one(store: ObjectStore) -> None:
    await store.put("empty", b"")
    assert await content(store, "empty") == b""
    assert [piece async for piece in store.stream("empty")] == []


async def test_a_large_file_goes_in_and_comes_out_in_pieces(store: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(12 << 20)
    (tmp_path / "large").write_bytes(data)
    await store.put("large", tmp_path / "large")
    pieces = [piece async for piece in store.stream("large")]
    assert b"".join(pieces) == data
    assert len(pieces) > 5
    assert await content(store, "large") == data


async def test_the_time_of_writing_is_the_present(store: ObjectStore) -> None:
    await store.put("a", b"")
    assert abs((await store.modified("a")).timestamp() - time.time()) < 60


async def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    await store.put("a/b/c", b"1")
    await store.delete("a/b/c")
    await store.delete("a/b/c")
    with pytest.raises(NotFound):
        await store.get("a/b/c")
    assert await keys(store, "a") == []


async def test_a_list_has_what_is_below_whole_segments(store: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c/4"):
        await store.put(key, b"xy")
    assert await keys(store, "a") == ["a/1", "a/b/2"]
    assert await keys(store, "a/b") == ["a/b/2"]
    assert await keys(store, "none") == []
    [entry] = [entry async for entry in store.list("c")]
    assert entry.size == 2


async def test_a_list_of_thousands_is_whole(volume: ObjectStore) -> None:
    folder = Path(volume.url.removeprefix("file://")) / "many"
    folder.mkdir()
    for number in range(2100):
        (folder / str(number)).touch()
    assert len(await keys(volume, "many")) == 2100


async def test_keys_that_are_none_of_ours_are_refused(volume: ObjectStore) -> None:
    for key in ("", "/a", "a/", "a//b", "../a", "a/../b", ".locks/0", "a b", "a\n", "ä"):
        with pytest.raises(ValueError, match="no key"):
            await volume.put(key, b"")


# --- conditions -------------------------------------------------------------------------------------------------------


async def test_keys_that_are_too_long_for_any_store_are_refused_and_say_so(store: ObjectStore) -> None:
    await store.put("a/" + "b" * 255, b"1")
    assert await content(store, "a/" + "b" * 255) == b"1"
    for key in ("a/" + "b" * 256, "/".join(["c" * 250] * 5)):
        for refused in (store.put(key, b"1"), store.put_if_absent(key, b"1"), store.get(key), store.delete(key)):
            with pytest.raises(Refused, match="255 characters between two slashes, and 1024 in all"):
                await refused


async def test_a_limit_that_a_write_meets_is_said_and_leaves_nothing(volume: ObjectStore, tmp_path: Path) -> None:
    """Whatever the disk has, this process may write no larger file."""
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        for data in (tmp_path / "large", bytes(1 << 20)):
            with pytest.raises(StoreFull, match=r"store file:.*: can't write a/b: File too large: delete services"):
                await volume.put("a/b", data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in (tmp_path / "volume").rglob("*") if path.is_file() and ".locks" not in path.parts] == []
    await volume.put("a/b", tmp_path / "large")
    assert await volume.size("a/b") == 1 << 20


async def test_only_the_first_creates(store: ObjectStore) -> None:
    assert await store.put_if_absent("lease", b"mine") is True
    assert await store.put_if_absent("lease", b"yours") is False
    assert await content(store, "lease") == b"mine"


async def test_who_repeats_a_creation_finds_its_own(store: ObjectStore) -> None:
    assert await store.put_if_absent("lease", b"mine 1") is True
    assert await store.put_if_absent("lease", b"mine 1") is True


async def test_the_version_that_was_read_is_replaced(store: ObjectStore) -> None:
    await store.put("a", b"1")
    version = await store.update("a", b"2", (await store.get("a")).version)
    assert version == (await store.get("a")).version
    await store.update("a", b"3", version)
    assert await content(store, "a") == b"3"


async def test_a_version_that_has_been_replaced_is_not(store: ObjectStore) -> None:
    await store.put("a", b"1")
    old = (await store.get("a")).version
    await store.update("a", b"2", old)
    with pytest.raises(Changed, match="a was written by somebody else"):
        await store.update("a", b"3", old)
    assert await content(store, "a") == b"2"


async def test_an_object_that_is_gone_is_not_brought_back(store: ObjectStore) -> None:
    await store.put("a", b"1")
    version = (await store.get("a")).version
    await store.delete("a")
    with pytest.raises(Changed):
        await store.update("a", b"2", version)
    assert await keys(store, "a") == []


async def test_a_write_that_is_repeated_as_its_answer_was_lost_finds_its_own_work(store: ObjectStore) -> None:
    await store.put("a", b"1")
    old = (await store.get("a")).version
    new = await store.update("a", b"2 by me", old)
    assert await store.update("a", b"2 by me", old) == new


async def test_of_many_that_count_up_at_once_none_is_lost(volume: ObjectStore) -> None:
    await volume.put("count", b"0")

    async def add(count: int) -> None:
        while count:
            stored = await volume.get("count")
            number, _, _ = stored.data.partition(b" ")
            try:
                await volume.update(
                    "count", b"%d by %d" % (int(number) + 1, id(asyncio.current_task())), stored.version
                )
                count -= 1
            except Changed:
                pass

    await asyncio.gather(*(add(20) for _ in range(8)))
    assert (await content(volume, "count")).startswith(b"160 ")


def test_processes_on_one_volume_count_without_losing_any(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from sessionpools.web.store.errors import Changed
        from sessionpools.web.store.objects import ObjectStore
        async def main():
            store = ObjectStore.open(sys.argv[1])
            await store.put_if_absent("count", b"0 by nobody")
            left = 50
            while left:
                stored = await store.get("count")
                try:
                    text = b"%d by %d" % (int(stored.data.split()[0]) + 1, os.getpid())
                    await store.update("count", text, stored.version)
                    left -= 1
                except Changed:
                    pass
        asyncio.run(main())
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        )
        for _ in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text().split()[0] == "150"


async def test_a_directory_that_empties_while_others_write_to_it_loses_nothing(volume: ObjectStore) -> None:
    async def come_and_go(name: str) -> None:
        for _ in range(50):
            await volume.put(f"a/b/{name}", b"")
            assert await volume.size(f"a/b/{name}") == 0
            await volume.delete(f"a/b/{name}")

    await asyncio.gather(*(come_and_go(str(number)) for number in range(6)))
    assert not (Path(volume.url.removeprefix("file://")) / "a").exists()


# --- health -----------------------------------------------------------------------------------------------------------


async def test_a_store_that_keeps_its_promises_is_verified_and_left_empty(store: ObjectStore) -> None:
    await store.verify()
    await store.check()
    assert await keys(store, "health") == []


async def test_a_store_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with careless_s3() as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreUnfit, match="ignores the conditions of writes"):
            await ObjectStore.open(URL).verify()


async def test_a_server_that_is_away_is_said_with_the_store_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = ObjectStore.open(s3.url("away"))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="store s3://session-pools-test/away: can't list health: ") as error:
        await store.check()
    assert time.monotonic() - began < 30
    assert s3.access_key not in str(error.value)


async def test_credentials_that_are_wrong_are_said_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(StoreUnavailable, match="can't create health/") as error:
        await ObjectStore.open(s3.url("x")).verify()
    assert "a-wrong-secret" not in str(error.value)
    assert s3.secret_key not in str(error.value)


async def test_a_bucket_that_is_not_there_is_the_stores_fault(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore.open("s3://no-such-bucket/x")
    for attempt in (store.verify(), store.check(), store.put("a", b"1")):
        with pytest.raises(StoreUnavailable, match="store s3://no-such-bucket/x: can't"):
            await attempt


async def test_a_volume_that_is_no_longer_there_is_said(tmp_path: Path) -> None:
    store = ObjectStore.open(str(tmp_path / "volume"))
    shutil.rmtree(tmp_path / "volume")
    (tmp_path / "volume").mkdir()  # the place where it was mounted
    for attempt in (store.check(), store.put("a", b"1"), store.verify()):
        with pytest.raises(StoreUnavailable, match=r"volume: can't (write|create) .*: there is no such bucket"):
            await attempt


async def test_a_volume_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"store file://.*/file/store: Not a directory"):
        ObjectStore.open(str(tmp_path / "file" / "store"))


def test_what_a_dead_writer_left_is_removed_after_a_day(tmp_path: Path) -> None:
    ObjectStore.open(f"file://{tmp_path}")
    old, young = tmp_path / ".staging" / "old", tmp_path / ".staging" / "young"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    ObjectStore.open(f"file://{tmp_path}")
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("relative/path", "must be an absolute path"),
        ("ftp://host/path", "must be a directory .* s3://BUCKET/PATH"),
        ("s3:///path", "must be a directory"),
        ("s3://key:secret@bucket/path", "credentials and options belong into the environment"),
        ("az://container/path?sig=secret", "credentials and options belong into the environment"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_credentials(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ObjectStore.open(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["gs://bucket/path", "az://container/path"])
def test_other_providers_are_opened_by_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert ObjectStore.open(f"{url}/").url == url


async def test_a_version_is_of_no_other_content(volume: ObjectStore) -> None:
    await volume.put("a", b"1")
    with pytest.raises(Changed):
        await volume.update("a", b"2", Version("none"))
