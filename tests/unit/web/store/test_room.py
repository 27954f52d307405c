"""The temporary directory of a replica: nobody writes more than there is, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from sessionpools.web.store import authoring, bundles
from sessionpools.web.store.authoring import Authoring
from sessionpools.web.store.bundles import Bundles, packed_at_most
from sessionpools.web.store.errors import NoRoom, TooLarge
from sessionpools.web.store.objects import ObjectStore
from sessionpools.web.store.room import ROOM_BYTES, Room, sweep, temporary_folder, to_end
from support.runtime_pod import OPERATOR

CHART = Path(__file__).parents[4] / "charts" / "session-pools" / "templates" / "web-deployment.yaml"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of the test's own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def pieces(count: int, size: int = MIB) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield os.urandom(size)


async def test_who_finds_no_room_waits_for_it_and_is_served_in_order() -> None:
    room, order = Room(10), list[str]()

    async def work(name: str, size: int) -> None:
        async with room.take(size, name):
            order.append(name)
            await asyncio.sleep(0)

    async with room.take(8, "first"):
        waiting = [asyncio.create_task(work(name, size)) for name, size in (("large", 9), ("small", 1), ("last", 10))]
        await asyncio.sleep(0.01)
        assert order == []
    await asyncio.gather(*waiting)
    assert order == ["large", "small", "last"]


async def test_who_waits_too_long_is_told_so_and_holds_up_nobody() -> None:
    room = Room(10, wait_seconds=0.02)
    async with room.take(8, "first"):
        with pytest.raises(NoRoom, match=r"object 'm': needs 0 MiB of temporary files, .* try again later"):
            async with room.take(9, "object 'm'"):
                raise AssertionError
        async with room.take(2, "small"):
            pass
    async with room.take(10, "all"):
        pass


async def test_one_that_is_cancelled_while_it_waits_takes_nothing() -> None:
    room = Room(10, wait_seconds=30)
    async with room.take(10, "first"):
        waiting = asyncio.create_task(room.take(10, "second").__aenter__())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), room.take(10, "third"):
        pass


async def test_what_never_fits_does_not_wait() -> None:
    with pytest.raises(TooLarge, match="needs 2 MiB of temporary files, and there are 1 MiB"):
        async with Room(MIB, wait_seconds=30).take(2 * MIB, "x"):
            raise AssertionError


def test_the_largest_work_there_is_fits_and_the_pods_disk_has_more() -> None:
    largest_bundle = bundles.MAX_PACKED_BYTES + bundles.MAX_BYTES + bundles._TAR_BYTES + bundles.MAX_ENTRIES * 4096
    assert largest_bundle + packed_at_most(largest_bundle) <= ROOM_BYTES
    assert 8 * authoring.MAX_OBJECT_BYTES > ROOM_BYTES >= 4 * authoring.MAX_OBJECT_BYTES
    (size,) = [line.split()[1] for line in CHART.read_text().splitlines() if line.strip().startswith("sizeLimit:")]
    assert yaml.safe_load(size.removesuffix("Gi")) << 30 >= ROOM_BYTES + (256 << 20)


async def test_a_large_upload_takes_what_it_declares_and_a_small_one_none(volume: ObjectStore, temporary: Path) -> None:
    keeper = Authoring(volume, room=Room(8 * MIB, wait_seconds=0.02))
    session = (await keeper.create_session("ann")).id
    await keeper.put_object(session, "ann", "declared", pieces(6), 6 * MIB)
    with pytest.raises(TooLarge, match="object 'undeclared': needs 512 MiB of temporary files"):
        await keeper.put_object(session, "ann", "undeclared", pieces(6))
    async with keeper.room.take(8 * MIB, "another"):
        with pytest.raises(NoRoom, match="object 'late'"):
            await keeper.put_object(session, "ann", "late", pieces(6), 6 * MIB)
        await keeper.put_object(session, "ann", "small", pieces(3))
    assert set((await keeper.session(session, "ann")).objects) == {"declared", "small"}
    assert list(temporary.iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_no_file_and_gives_its_room_back(
    volume: ObjectStore, temporary: Path
) -> None:
    keeper = Authoring(volume, room=Room(8 * MIB, wait_seconds=0.02))
    session = (await keeper.create_session("ann")).id

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(5):
            yield piece
        assert list(temporary.iterdir()) != []
        raise ConnectionResetError

    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            await keeper.put_object(session, "ann", "m", broken(), 8 * MIB)
        assert list(temporary.iterdir()) == []


async def test_a_bundle_is_not_packed_further_than_one_may_be(
    volume: ObjectStore, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system takes no more here: a larger file is an error of another kind."""
    monkeypatch.setattr(bundles, "MAX_PACKED_BYTES", MIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        with pytest.raises(TooLarge, match="larger than 1 MiB when it is compressed"):
            await Bundles(volume).put({"noise": os.urandom(8 * MIB)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(temporary.iterdir()) == []


async def test_the_room_of_a_bundle_is_what_its_files_take(volume: ObjectStore) -> None:
    files = {"a": os.urandom(3 * MIB), "zeros": bytes(5 * MIB)}
    bundle = await Bundles(volume).put(files)
    assert 8 * MIB + bundle.size < await Bundles(volume).room_of(bundle.sha256) < 96 * MIB
    assert bundle.size + MIB <= await Bundles(volume).room_of(bundle.sha256, MIB) < bundle.size + 10 * MIB


async def test_a_folder_is_not_left_before_the_thread_that_writes_into_it_is_done(temporary: Path) -> None:
    go, began = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        began.set()
        go.wait(10)
        (folder / "late").write_bytes(b"x")

    async def work() -> None:
        with temporary_folder() as folder:
            await to_end(write, folder)

    task = asyncio.create_task(work())
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    await asyncio.sleep(0.02)
    assert len(list(temporary.iterdir())) == 1
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(temporary: Path) -> None:
    program = (
        "import os, tempfile, sys; tempfile.tempdir = sys.argv[1]\n"
        "from sessionpools.web.store.room import temporary_folder\n"
        "with temporary_folder() as folder: (folder / 'x').write_text('x'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(temporary)], env={"PYTHONPATH": str(OPERATOR)}, check=False)
    (left,) = temporary.iterdir()
    sweep()
    assert left.exists()  # so young that it may be about to be locked
    with temporary_folder() as used:
        for folder in (left, used):
            os.utime(folder, (time.time() - 3600,) * 2)
        sweep()
        assert list(temporary.iterdir()) == [used]
