"""Bundles: the same files are the same bytes, stored once; what can't be one is refused in words."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sessionpools.web.store import bundles
from sessionpools.web.store.bundles import Bundles, Content, check_path, check_variable, key_of, sha256_of_key
from sessionpools.web.store.errors import NotFound, Refused, TooLarge
from sessionpools.web.store.objects import ObjectStore


async def archive(store: ObjectStore, files: Mapping[str, Content]) -> bytes:
    bundle = await Bundles(store).put(files)
    data = b"".join([piece async for piece in Bundles(store).stream(bundle.sha256)])
    assert hashlib.sha256(data).hexdigest() == bundle.sha256
    assert len(data) == bundle.size == await Bundles(store).size(bundle.sha256)
    return data


async def test_a_bundle_holds_its_files_and_nothing_of_who_made_it(store: ObjectStore) -> None:
    files = {"service.py": b"x = 1\n", "lib/model.bin": bytes(range(256)) * 100, "lib/empty": b""}
    with tarfile.open(fileobj=io.BytesIO(await archive(store, files))) as packed:
        members = packed.getmembers()
        found = {member.name: packed.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert found == files
    assert list(found) == ["service.py", "lib/empty", "lib/model.bin"]
    for member in members:
        assert member.isreg()
        assert (member.mtime, member.mode, member.uid, member.gid, member.uname, member.gname) == (
            0,
            0o644,
            0,
            0,
            "",
            "",
        )


async def test_the_same_files_are_the_same_bytes_whenever_and_however_given(
    volume: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "b").write_bytes(b"2")
    os.utime(tmp_path / "b", (1, 1))
    first = await archive(volume, {"a": b"1", "dir/b": b"2"})
    second = await archive(volume, {"dir/b": tmp_path / "b", "a": b"1"})
    assert first == second
    assert len([entry async for entry in volume.list("bundles")]) == 1
    assert await archive(volume, {"a": b"1", "dir/c": b"2"}) != first


async def test_names_of_255_characters_and_of_any_alphabet_are_kept(volume: ObjectStore) -> None:
    files = {"é" * 100 + "/" + "n" * 154: b"1", "modèle.py": b"2", "空 白.txt": b"3"}
    with tarfile.open(fileobj=io.BytesIO(await archive(volume, files))) as packed:
        assert set(packed.getnames()) == set(files)


async def test_a_bundle_that_is_there_is_not_written_again_unless_it_could_be_collected(volume: ObjectStore) -> None:
    bundle = await Bundles(volume).put({"a": b"1"})
    path = Path(volume.url.removeprefix("file://")) / key_of(bundle.sha256)
    before = path.stat().st_ino
    await Bundles(volume).put({"a": b"1"})
    assert path.stat().st_ino == before
    os.utime(path, (time.time() - 3000,) * 2)
    await Bundles(volume).put({"a": b"1"})
    assert time.time() - path.stat().st_mtime < 60


async def test_a_bundle_that_is_not_there_is_named(volume: ObjectStore) -> None:
    with pytest.raises(NotFound, match=f"no object bundles/{'0' * 64}"):
        await anext(Bundles(volume).stream("0" * 64))
    for wrong in ("", "../etc/passwd", "A" * 64, "0" * 63):
        with pytest.raises(NotFound, match="64 lower-case hexadecimal digits"):
            await Bundles(volume).size(wrong)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a\\b", "a\nb", "a/", "..", ".", "x" * 256, "\ud800"]
)
async def test_a_path_that_could_leave_the_code_directory_is_refused(path: str, volume: ObjectStore) -> None:
    with pytest.raises(Refused, match="must be a relative path"):
        await Bundles(volume).put({path: b""})


@pytest.mark.parametrize("path", ["a", ".env", "a.b/c.d", "a b", "ä/ö", "..."])
def test_ordinary_paths_are_taken(path: str) -> None:
    if path == "...":
        with pytest.raises(Refused):
            check_path(path)
    else:
        check_path(path)


async def test_a_file_that_would_be_a_folder_too_is_refused(volume: ObjectStore) -> None:
    with pytest.raises(Refused, match=r"file 'a/b/c': there is a file 'a' too"):
        await Bundles(volume).put({"a": b"", "a/b/c": b""})


async def test_too_many_files_are_refused(volume: ObjectStore) -> None:
    with pytest.raises(TooLarge, match="10001 files in 10001 folders are more than 20000"):
        await Bundles(volume).put({f"{number}/x": b"" for number in range(10_001)})


async def test_too_much_is_refused_before_it_is_packed(
    volume: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MAX_BYTES", 3 << 20)
    (tmp_path / "large").write_bytes(b"1" * (3 << 20))
    with pytest.raises(TooLarge, match="larger than 3 MiB in all"):
        await Bundles(volume).put({"a": b"1", "large": tmp_path / "large"})
    assert [entry async for entry in volume.list("bundles")] == []


async def test_an_archive_that_sessions_would_not_fetch_is_refused(
    volume: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "MAX_PACKED_BYTES", 1 << 20)
    await Bundles(volume).put({"zeros": bytes(4 << 20)})
    with pytest.raises(TooLarge, match="larger than 1 MiB when it is compressed"):
        await Bundles(volume).put({"noise": os.urandom(1 << 20)})


@pytest.mark.parametrize("name", ["", "1a", "a b", "class", "__file__", "a.b", "x" * 129, "ﬁt"])
def test_a_name_that_can_be_no_variable_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="must be a Python identifier"):
        check_variable(name)


def test_names_that_no_file_system_takes_are_refused() -> None:
    check_path("é" * 127 + "/" + "é" * 127)
    with pytest.raises(Refused, match="has a name of more than 255 bytes in UTF-8"):
        check_path("é" * 128)
    check_variable("漢" * 83)
    with pytest.raises(Refused, match=f"objects/{'漢' * 84}.dill': has a name of more than 255 bytes"):
        check_variable("漢" * 84)


def test_what_is_no_bundle_has_no_digest() -> None:
    digest = "0123456789abcdef" * 4
    assert sha256_of_key(key_of(digest)) == digest
    for key in (f"blobs/{digest}", f"bundles/{digest}", "bundles/x.tar.gz", f"bundles/{digest}.tar.gz.tmp"):
        assert sha256_of_key(key) == ""
