"""What a bundle may hold: real archives, the ordinary ones of users and those that mean ill."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionpools.session.unpack import BundleError, BundleInvalidError, BundleTooLargeError, Limits, unpack
from support.archives import Archive, Entry, member, members, tar, tar_gz, zipped

LIMITS = Limits()
FILES = {"service.py": "x = 1\n", "lib/model.py": "y = 2\n", "lib/data/weights.bin": b"\x00\xff"}


def unpacked(archive: Archive, folder: Path, limits: Limits = LIMITS) -> Path:
    """The folder that it was unpacked to, beside which nothing is written."""
    file, target = folder / "packed", folder / "code"
    file.write_bytes(archive.data)
    unpack(str(file), str(target), limits)
    return target


def refusal(archive: Archive, folder: Path, limits: Limits = LIMITS) -> BundleError:
    outside = folder / "outside"
    outside.write_text("untouched")
    with pytest.raises(BundleError) as caught:
        unpacked(archive, folder, limits)
    assert outside.read_text() == "untouched"
    assert {path.name for path in folder.iterdir()} <= {"packed", "code", "outside"}
    return caught.value


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


EXPECTED = {name: text.encode() if isinstance(text, str) else text for name, text in FILES.items()}


# --- what users make --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tar_gz, tar, zipped])
def test_files_come_out_as_they_went_in_whatever_the_format(
    make: Callable[[dict[str, str | bytes]], Archive], tmp_path: Path
) -> None:
    assert content(unpacked(make(FILES), tmp_path)) == EXPECTED  # type: ignore[arg-type]


def test_what_tar_makes_of_a_folder_is_unpacked_with_its_links_and_executables(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "service.py").write_text("x = 1\n")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    os.link(source / "service.py", source / "lib/same.py")
    (source / "lib/up.py").symlink_to("../service.py")
    (source / "alias").symlink_to("lib")
    packed = subprocess.run(["tar", "-cz", "-C", str(source), "."], check=True, capture_output=True).stdout
    target = unpacked(Archive(packed), tmp_path)
    assert (target / "lib/same.py").read_text() == (target / "alias/up.py").read_text() == "x = 1\n"
    assert (target / "lib/same.py").samefile(target / "service.py")
    assert (target / "alias").readlink() == Path("lib")
    assert (target / "empty").is_dir()
    assert os.access(target / "run.sh", os.X_OK)
    assert not (target / "service.py").stat().st_mode & 0o111


@pytest.mark.parametrize("make", [tar_gz, zipped])
def test_nothing_of_it_may_be_written(make: Callable[[dict[str, str | bytes]], Archive], tmp_path: Path) -> None:
    target = unpacked(make(FILES), tmp_path)  # type: ignore[arg-type]
    for path in (target, *target.rglob("*")):
        assert not path.stat().st_mode & 0o222


def test_bits_that_give_rights_are_not_taken_over(tmp_path: Path) -> None:
    target = unpacked(members([member("service.py", "x", mode=0o6777)]), tmp_path)
    assert stat.S_IMODE((target / "service.py").stat().st_mode) == 0o555


def test_links_of_a_zip_are_links(tmp_path: Path) -> None:
    target = unpacked(zip_with("alias", b"lib/model.py", stat.S_IFLNK | 0o777, FILES), tmp_path)
    assert (target / "alias").read_text() == "y = 2\n"


def test_a_sparse_file_has_its_holes(tmp_path: Path) -> None:
    sparse = tmp_path / "hole.bin"
    with sparse.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    packed = subprocess.run(
        ["tar", "-c", "--sparse", "-C", str(tmp_path), "hole.bin"], check=True, capture_output=True
    ).stdout
    assert (unpacked(Archive(packed), tmp_path) / "hole.bin").read_bytes() == sparse.read_bytes()


# --- names and links that lead out ------------------------------------------------------------------------------------


OUT = ["../outside", "/etc/outside", "a/../../outside", "lib/../service.py", "..", "a\\..\\outside", "a\nb", "a/\x7f"]


@pytest.mark.parametrize("name", OUT)
def test_a_name_that_is_not_below_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    found = refusal(tar({name: "x"}), tmp_path)
    assert found.reason == "BundleInvalid"
    assert repr(name) in str(found)


@pytest.mark.parametrize("name", OUT)
def test_so_is_one_in_a_zip(name: str, tmp_path: Path) -> None:
    assert refusal(zipped({name: "x"}), tmp_path).reason == "BundleInvalid"


def link(name: str, to: str) -> Entry:
    return member(name, type_=tarfile.SYMTYPE, to=to)


@pytest.mark.parametrize(
    "entries",
    [
        [link("a", "/etc/passwd")],
        [link("a", "../outside")],
        [link("lib/a", "../../outside")],
        [link("lib/a", "x/../../../outside")],
        [link("a", "b/../../outside"), link("b", "lib/deep")],
        [link("a", "lib"), link("lib/b", "../../outside")],
        [link("a", "..")],
        [link("a", "./../outside")],
        [link("a", "")],
    ],
)
def test_a_link_that_may_lead_out_is_refused(entries: list[Entry], tmp_path: Path) -> None:
    found = refusal(members([member("service.py", "x"), *entries]), tmp_path)
    assert found.reason == "BundleInvalid"


@pytest.mark.parametrize(
    "entries",
    [
        [link("a", "."), member("a/outside", "x")],
        [link("a", "lib"), member("a/b.py", "x")],
        [member("a/b.py", "x"), link("a", "lib")],
        [link("a", "lib"), link("a/b", "c")],
        [link("a", "b"), link("a", "c")],
        [link("a", "b"), member("a", "x")],
        [member("a", "x"), member("a", "y")],
        [member("a", "x"), member("a/b", "y")],
        [member("a", "x"), member("a", type_=tarfile.DIRTYPE)],
    ],
)
def test_nothing_is_written_through_a_link_or_twice(entries: list[Entry], tmp_path: Path) -> None:
    found = refusal(members([member("service.py", "x"), *entries]), tmp_path)
    assert found.reason == "BundleInvalid"


@pytest.mark.parametrize("to", ["/etc/passwd", "../outside", "missing.py", "alias", "lib"])
def test_a_hard_link_is_to_a_file_of_the_archive(to: str, tmp_path: Path) -> None:
    entries = [member("lib/x.py", "x"), link("alias", "lib/x.py"), member("a", type_=tarfile.LNKTYPE, to=to)]
    assert refusal(members(entries), tmp_path).reason == "BundleInvalid"


def test_links_in_a_chain_stay_inside_whatever_their_order(tmp_path: Path) -> None:
    entries = [
        link("one", "two/three"),
        link("two", "real"),
        link("real/three", "../lib"),
        member("lib/service.py", "x"),
    ]
    assert (unpacked(members(entries), tmp_path) / "one/service.py").read_text() == "x"


@pytest.mark.parametrize("type_", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"])
def test_devices_and_the_like_are_refused(type_: bytes, tmp_path: Path) -> None:
    found = refusal(members([member("service.py", "x"), member("device", type_=type_)]), tmp_path)
    assert (found.reason, "'device'" in str(found)) == ("BundleInvalid", True)


# --- what has no end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tar_gz, zipped])
def test_what_unpacks_to_more_than_the_limit_is_refused_before_it_is_written(
    make: Callable[[dict[str, str | bytes]], Archive], tmp_path: Path
) -> None:
    found = refusal(make({"zeros.bin": bytes(8 << 20)}), tmp_path, Limits(bytes=1 << 20))
    assert isinstance(found, BundleTooLargeError)
    assert "code.imagePath" in str(found)
    assert (tmp_path / "code/zeros.bin").stat().st_size <= 1 << 20


def test_a_zip_that_lies_about_its_sizes_is_counted_all_the_same(tmp_path: Path) -> None:
    data = bytearray(zipped({"zeros.bin": bytes(4 << 20)}).data)
    size = struct.pack("<L", 4 << 20)
    for header in (b"PK\x03\x04", b"PK\x01\x02"):
        at = data.index(size, data.index(header))
        data[at : at + 4] = struct.pack("<L", 10)
    found = refusal(Archive(bytes(data)), tmp_path, Limits(bytes=1 << 20))
    assert found.reason in ("BundleInvalid", "BundleTooLarge")


def test_more_files_than_the_limit_are_refused(tmp_path: Path) -> None:
    many = {f"{n}.py": "" for n in range(21)}
    for number, make in enumerate((tar_gz, zipped)):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = refusal(make(many), folder, Limits(entries=20))
        assert isinstance(found, BundleTooLargeError)
        assert "more than 20 files" in str(found)


def test_folders_that_only_names_imply_count_too(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 30) + "/x.py"
    assert isinstance(refusal(tar_gz({deep: "x"}), tmp_path, Limits(entries=20)), BundleTooLargeError)


def test_a_stream_of_headers_without_end_is_cut(tmp_path: Path) -> None:
    pax = tarfile.TarInfo("service.py").create_pax_header(
        {**tarfile.TarInfo("x").get_info(), "path": "ä" * 200}, "utf-8"
    )
    header = pax[: len(pax) - 512]  # the extended header alone, again and again
    found = refusal(Archive(gzip.compress(header * 2000)), tmp_path, Limits(tar_bytes=1 << 20))
    assert found.reason in ("BundleInvalid", "BundleTooLarge")


def test_a_name_that_takes_all_memory_is_cut(tmp_path: Path) -> None:
    def long_name(info: tarfile.TarInfo) -> None:
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30

    info, _ = member("././@LongLink", change=long_name)
    header = info.tobuf(tarfile.GNU_FORMAT)
    found = refusal(Archive(gzip.compress(header + bytes(8 << 20))), tmp_path, Limits(tar_bytes=1 << 20))
    assert found.reason in ("BundleInvalid", "BundleTooLarge")


# --- what is no archive -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"\x1f\x8b",
        gzip.compress(b"no tar", mtime=0),
        gzip.compress(b"", mtime=0),
        gzip.compress(b"x" * 2000, mtime=0),
        b"PK\x03\x04",
    ],
)
def test_what_is_no_archive_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    found = refusal(Archive(data), tmp_path)
    assert isinstance(found, BundleInvalidError)
    assert "make it anew" in str(found)


def test_another_compression_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:xz") as archive:
        archive.addfile(tarfile.TarInfo("service.py"))
    assert "neither a .tar.gz nor a .tar nor a .zip" in str(refusal(Archive(target.getvalue()), tmp_path))


@pytest.mark.parametrize("make", [tar_gz, tar, zipped])
@pytest.mark.parametrize("part", [0.1, 0.4, 0.6, 0.9])
def test_half_an_archive_is_refused(
    make: Callable[[dict[str, str | bytes]], Archive], part: float, tmp_path: Path
) -> None:
    whole = make({f"{n}.bin": os.urandom(3000) for n in range(20)}).data.rstrip(b"\0")
    assert refusal(Archive(whole[: int(len(whole) * part)]), tmp_path).reason == "BundleInvalid"


@pytest.mark.parametrize("make", [tar_gz, tar])
def test_a_header_that_is_damaged_is_not_taken_for_the_end(
    make: Callable[[dict[str, str | bytes]], Archive], tmp_path: Path
) -> None:
    data = bytearray(tar({"a.py": "x", "b.py": "y"}).data)
    data[1024 + 150] ^= 1  # of the checksum of the second header
    damaged = gzip.compress(bytes(data)) if make is tar_gz else bytes(data)
    assert "damaged" in str(refusal(Archive(damaged), tmp_path))


def test_a_zip_whose_content_is_not_what_its_sum_says_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"service.py": "x = 1\n"}, zipfile.ZIP_STORED).data)
    data[data.index(b"x = 1")] ^= 1
    assert "damaged" in str(refusal(Archive(bytes(data)), tmp_path))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"service.py": "x = 1\n"}, zipfile.ZIP_STORED).data)
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in str(refusal(Archive(bytes(data)), tmp_path))


@pytest.mark.parametrize("archive", [tar_gz({}), members([member("lib", type_=tarfile.DIRTYPE)]), zipped({})])
def test_an_archive_without_a_file_is_refused(archive: Archive, tmp_path: Path) -> None:
    assert "no file" in str(refusal(archive, tmp_path))


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_holds_no_device(kind: int, tmp_path: Path) -> None:
    assert refusal(zip_with("device", b"", kind | 0o666, FILES), tmp_path).reason == "BundleInvalid"


def test_a_link_of_a_zip_does_not_lead_out(tmp_path: Path) -> None:
    assert refusal(zip_with("a", b"../outside", stat.S_IFLNK | 0o777, FILES), tmp_path).reason == "BundleInvalid"


def test_a_name_that_no_file_can_have_is_the_archives_fault(tmp_path: Path) -> None:
    assert refusal(tar({"n" * 300: "x"}), tmp_path).reason == "BundleInvalid"


def zip_with(name: str, data: bytes, mode: int, files: dict[str, Any]) -> Archive:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for other, text in files.items():
            archive.writestr(other, text)
        info = zipfile.ZipInfo(name)
        info.create_system = 3  # Unix: the mode is there
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return Archive(target.getvalue())
