"""Batches from start to end, over real HTTP and a real store: results, order, limits, cancelling, files, expiry."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from sessionpools.web.batch import run as batch_run
from sessionpools.web.batch import state as states
from sessionpools.web.batch.batches import Batches, BatchStatus, Service
from sessionpools.web.store.errors import NotFound, Refused, TooLarge, TooMany, Unreadable
from sessionpools.web.store.objects import ObjectStore
from support.batch_gateway import BatchGateway
from support.waiting import until

SERVICE = Service("demo", "Score", "v1.0")


async def headers(service: Service, owner: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {owner}"}


class Clock:
    """The time, some of it yet to come."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def gateway() -> AsyncIterator[BatchGateway]:
    async with BatchGateway() as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def working(
    store: ObjectStore, gateway: BatchGateway, name: str = "web-1", **options: Any
) -> AsyncIterator[Batches]:
    """A replica that works on batches until the block is left."""
    batches = Batches(store, gateway.url, headers, name, **options)
    task = asyncio.create_task(batches.run())
    try:
        yield batches
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ended(batches: Batches, batch_id: str, seconds: float = 30.0) -> BatchStatus:
    async with asyncio.timeout(seconds):
        while (status := await batches.poll(SERVICE, batch_id, None)).state != "complete":
            await asyncio.sleep(0.01)
    return status


def results(status: BatchStatus) -> list[dict[str, Any]]:
    return [orjson.loads(result) for result in status.results]


def answers(status: BatchStatus) -> list[Any]:
    return [result["outputParameters"].get("answer") for result in results(status)]


def items(count: int, **fields: Any) -> Sequence[Any]:
    return [{"n": number, **fields} for number in range(count)]


async def keys(store: ObjectStore, prefix: str = "batches") -> list[str]:
    return sorted([entry.key async for entry in store.list(prefix)])


# --- from start to end ------------------------------------------------------------------------------------------------


async def test_every_item_is_called_once_and_results_come_in_order(store: ObjectStore, gateway: BatchGateway) -> None:
    async with working(store, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(60))
        status = await ended(batches, batch_id)
        assert (status.owner, status.completed, status.total) == ("ann", 60, 60)
        assert answers(status) == list(range(60))
        assert gateway.runs == dict.fromkeys(range(60), 1)
        assert results(status)[7] == {
            "index": 7,
            "success": True,
            "errorMessage": "",
            "outputParameters": {"answer": 7, "text": ""},
            "consoleOutput": "",
            "changedFiles": [],
        }
        await until(lambda: not batches._runs, "the batch is closed")
        assert [key.split("/")[1] for key in await keys(store)] == ["states"]


async def test_no_more_calls_are_under_way_than_asked_for(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(40, ms=20), 7)
        await ended(batches, batch_id)
        assert gateway.most == 7


async def test_results_come_as_they_are_done_and_only_when_asked_for(
    volume: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", [{"n": 0}, {"n": 1, "hold": True}, {"n": 2}], 3)

        async def two() -> BatchStatus:
            while (status := await batches.poll(SERVICE, batch_id, "ann", partial=True)).completed < 2:
                await asyncio.sleep(0.01)
            return status

        status = await asyncio.wait_for(two(), 10)
        assert (status.state, answers(status)) == ("inProgress", [0, 2])
        assert (await batches.poll(SERVICE, batch_id, "ann")).results == []
        gateway.release()
        assert answers(await ended(batches, batch_id)) == [0, 1, 2]


async def test_a_batch_that_nobody_works_on_is_pending(volume: ObjectStore) -> None:
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1")
    batch_id = await batches.start(SERVICE, "ann", items(3))
    status = await batches.poll(SERVICE, batch_id, "ann", partial=True)
    assert (status.state, status.completed, status.total, status.results) == ("pending", 0, 3, [])


async def test_calls_that_were_turned_away_are_made_again(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(10, statuses=[429, 503, 200]), 10)
        assert answers(await ended(batches, batch_id)) == list(range(10))
        assert gateway.calls == dict.fromkeys(range(10), 3)
        assert gateway.runs == dict.fromkeys(range(10), 1)


async def test_a_session_that_died_and_a_call_that_took_too_long_are_results(
    volume: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(
            SERVICE,
            "ann",
            [{"n": 0, "statuses": [502]}, {"n": 1, "statuses": [504]}, {"n": 2, "fail": "bad"}, {"n": 3}],
        )
        found = results(await ended(batches, batch_id))
        assert [result["success"] for result in found] == [False, False, False, True]
        assert found[0]["errorMessage"] == "The gateway answered 502: pool demo/score: refused with 502"
        assert "504" in found[1]["errorMessage"]
        assert found[2]["errorMessage"] == "bad"
        assert gateway.calls == dict.fromkeys(range(4), 1)


async def test_a_lost_connection_leaves_a_result_that_says_so_and_no_second_call(
    volume: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", [{"n": 0, "drop": True}, {"n": 1}])
        found = results(await ended(batches, batch_id))
        assert "outcome of this item is unknown" in found[0]["errorMessage"]
        assert gateway.calls == {0: 1, 1: 1}


async def test_thousands_of_short_calls_cost_few_writes(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(2000, bytes=200), 20)
        began = time.monotonic()
        status = await ended(batches, batch_id, 120)
        seconds = time.monotonic() - began
        assert answers(status) == list(range(2000))
        assert gateway.runs == dict.fromkeys(range(2000), 1)
        state = states.State.parse((await volume.get(next(iter(await keys(volume, "batches/states"))))).data)[0]
        # each write of the record, and each segment
        writes = state.number + len(state.segments)
        assert writes < 20 + 6 * seconds, f"{writes} writes in {seconds:.1f} s"


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_what_can_be_no_batch_is_refused_by_its_item(volume: ObjectStore) -> None:
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1")
    for wrong, count, message in (
        ([], 10, "has no items"),
        ([{"n": 1}, 2], 10, "item 1: must be a JSON object of inputs, got int"),
        ([{}], 0, "parallelCount 0: must be at least 1"),
    ):
        with pytest.raises(Refused, match=message):
            await batches.start(SERVICE, "ann", wrong, count)
    with pytest.raises(TooLarge, match="10001 items are more than 10000"):
        await batches.start(SERVICE, "ann", items(10_001))
    with pytest.raises(TooLarge, match="larger than 64 MiB in all"):
        await batches.start(SERVICE, "ann", [{"x": "y" * (33 << 20)}] * 2)
    assert await keys(volume) == []


async def test_results_that_are_too_much_say_so_and_leave_room_for_others(
    volume: ObjectStore, gateway: BatchGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "MAX_RESULT_BYTES", 100_000)
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(
            SERVICE, "ann", [{"n": 0, "bytes": 90_000}, {"n": 1, "bytes": 90_000}, {"n": 2}], 1
        )
        found = results(await ended(batches, batch_id))
        assert [result["success"] for result in found] == [True, False, True]
        assert "its result of 90" in found[1]["errorMessage"]


# --- whose ------------------------------------------------------------------------------------------------------------


async def test_what_is_anothers_is_not_there_but_for_who_may_see_everybodys(store: ObjectStore) -> None:
    batches = Batches(store, "http://127.0.0.1:1", headers, "web-1")
    mine = await batches.start(SERVICE, "ann", items(2))
    other = await batches.start(SERVICE, "bob", items(2))
    elsewhere = Service("demo", "score", "v1.0")
    assert await batches.list(SERVICE, "ann") == [mine]
    assert sorted(await batches.list(SERVICE, None)) == sorted([mine, other])
    assert await batches.list(elsewhere, None) == []
    for service, batch_id, owner in ((SERVICE, other, "ann"), (elsewhere, mine, "ann"), (elsewhere, mine, None)):
        for attempt in (
            batches.poll(service, batch_id, owner),
            batches.delete(service, batch_id, owner),
            batches.files(service, batch_id, owner, 0),
            anext(batches.file(service, batch_id, owner, 0, "a")),
        ):
            with pytest.raises(NotFound, match=f"batch '{batch_id}': there is none of this service"):
                await attempt
    assert (await batches.poll(SERVICE, other, None)).owner == "bob"


@pytest.mark.parametrize("wrong", ["", "x", "../../leases/collect", "A" * 36])
async def test_an_id_that_is_none_is_not_there(wrong: str, volume: ObjectStore) -> None:
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1")
    for owner in ("ann", None):
        with pytest.raises(NotFound):
            await batches.poll(SERVICE, wrong, owner)


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancelling_stops_what_has_not_begun_and_leaves_nothing(
    store: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(store, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(30, hold=True), 3)
        await until(lambda: gateway.held == 3, "three calls are under way")
        await batches.delete(SERVICE, batch_id, "ann")
        with pytest.raises(NotFound):
            await batches.poll(SERVICE, batch_id, "ann")
        assert await batches.list(SERVICE, "ann") == []
        gateway.release()
        await until(lambda: gateway.now == 0 and not batches._runs, "what was under way has ended")
        assert sum(gateway.calls.values()) == 3
        assert await keys(store) == []


async def test_a_batch_that_another_replica_works_on_is_cancelled_too(
    volume: ObjectStore, gateway: BatchGateway
) -> None:
    other = Batches(volume, gateway.url, headers, "web-2")
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(3000, ms=20), 5)
        await until(lambda: gateway.runs.total() > 20, "the batch is under way")
        await other.delete(SERVICE, batch_id, "ann")
        await until(lambda: not batches._runs, "its holder has noticed")
        stopped = gateway.calls.total()
        assert stopped < 2900
        assert await keys(volume) == []


async def test_a_finished_batch_can_be_deleted(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(3))
        await ended(batches, batch_id)
        await batches.delete(SERVICE, batch_id, "ann")
        with pytest.raises(NotFound):
            await batches.delete(SERVICE, batch_id, "ann")
        assert await keys(volume) == []


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_of_an_item_are_kept_apart_from_its_result(store: ObjectStore, gateway: BatchGateway) -> None:
    async with working(store, gateway) as batches:
        written = {"a.txt": "one", "plots/ä b.txt": "two", "none": None}
        batch_id = await batches.start(SERVICE, "ann", [{"n": 0}, {"n": 1, "files": written}])
        status = await ended(batches, batch_id)
        assert "outputFiles" not in results(status)[1]
        assert await batches.files(SERVICE, batch_id, "ann", 0) == []
        assert await batches.files(SERVICE, batch_id, "ann", 1) == ["a.txt", "plots/ä b.txt"]
        assert b"".join([p async for p in batches.file(SERVICE, batch_id, None, 1, "plots/ä b.txt")]) == b"two"
        with pytest.raises(NotFound, match=r"item 1: has no file 'b'; it has a\.txt, plots/ä b\.txt"):
            await anext(batches.file(SERVICE, batch_id, "ann", 1, "b"))
        for index in (-1, 2):
            with pytest.raises(NotFound, match=f"there is no item {index}: they are 0 to 1"):
                await batches.files(SERVICE, batch_id, "ann", index)
        await batches.delete(SERVICE, batch_id, "ann")
        assert await keys(store) == []


# --- replicas ---------------------------------------------------------------------------------------------------------


async def test_a_replica_that_ends_gives_back_what_it_has_not_begun(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway) as first:
        batch_id = await first.start(SERVICE, "ann", items(100, ms=20), 5)
        await until(lambda: gateway.runs.total() > 10, "the batch is under way")
    assert gateway.now == 0
    async with working(volume, gateway, "web-2") as second:
        status = await ended(second, batch_id)
    assert answers(status) == list(range(100))
    assert gateway.runs == dict.fromkeys(range(100), 1)


async def test_of_two_replicas_one_works_on_a_batch(volume: ObjectStore, gateway: BatchGateway) -> None:
    async with working(volume, gateway, "web-1") as one, working(volume, gateway, "web-2") as two:
        ids = [await (one, two)[n % 2].start(SERVICE, "ann", items(40)) for n in range(6)]
        for batch_id in ids:
            assert answers(await ended(two, batch_id)) == list(range(40))
    assert gateway.runs == dict.fromkeys(range(40), len(ids))


async def test_more_batches_than_one_replica_takes_are_done_one_after_the_other(
    volume: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(volume, gateway) as batches:
        ids = [await batches.start(SERVICE, "ann", items(2)) for _ in range(20)]
        for batch_id in ids:
            await ended(batches, batch_id)
        async with asyncio.timeout(10):  # a batch is complete a moment before its mark is gone
            while await keys(volume, "batches/open"):
                await asyncio.sleep(0.01)


# --- expiry -----------------------------------------------------------------------------------------------------------


async def test_results_expire_a_week_after_the_end(volume: ObjectStore, gateway: BatchGateway) -> None:
    clock = Clock()
    async with working(volume, gateway, now=clock) as batches:
        batch_id = await batches.start(SERVICE, "ann", [{"n": 0, "files": {"a": "b"}}])
        await ended(batches, batch_id)
        clock.ahead = states.RESULTS_SECONDS - 60
        await batches.expire()
        assert await batches.list(SERVICE, "ann") == [batch_id]
        assert answers(await ended(batches, batch_id)) == [0]
        clock.ahead = states.RESULTS_SECONDS + 60
        await batches.expire()
        assert await keys(volume) == []


async def test_a_batch_that_finds_no_session_for_a_week_is_given_up(volume: ObjectStore, gateway: BatchGateway) -> None:
    clock = Clock()
    gateway.refuse = (503, "0.1")
    async with working(volume, gateway, now=clock) as batches:
        batch_id = await batches.start(SERVICE, "ann", items(30), 3)
        await until(lambda: gateway.calls.total() > 3, "it has been turned away")
        clock.ahead = states.RESULTS_SECONDS + 60
        found = results(await ended(batches, batch_id))
    assert len(found) == 30
    assert {result["errorMessage"] for result in found} == {states.DROPPED}
    assert gateway.runs.total() == 0


async def test_what_a_dead_replica_left_halfway_is_removed(volume: ObjectStore) -> None:
    clock = Clock()
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1", now=clock)
    batch_id = await batches.start(SERVICE, "ann", items(3))
    root = Path(volume.url.removeprefix("file://"))
    [record] = await keys(volume, "batches/states")
    (root / record).unlink()  # as if its starter had died before it wrote that
    await batches.expire()
    assert await keys(volume, f"batches/data/{batch_id}") != []
    clock.ahead = 4000.0
    await batches.expire()
    assert await keys(volume, "batches/data") == []


async def test_a_batch_that_was_deleted_halfway_is_deleted_wholly(volume: ObjectStore) -> None:
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1")
    await batches.start(SERVICE, "ann", items(3))
    [record] = await keys(volume, "batches/states")
    stored = await volume.get(record)
    state, _ = states.State.parse(stored.data)
    await volume.update(record, states.deleted(state).dump(), stored.version)
    await batches.expire()
    assert await keys(volume) == []


async def test_a_replica_ends_also_in_the_moment_in_which_a_batch_is_started(
    store: ObjectStore, gateway: BatchGateway
) -> None:
    batches = Batches(store, gateway.url, headers, "web-1")
    task = asyncio.create_task(batches.run())
    await asyncio.sleep(0.3)
    await batches.start(SERVICE, "ann", items(1))
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10.0)
    assert done


async def test_a_record_that_can_not_be_read_keeps_no_other_batch_waiting(
    store: ObjectStore, gateway: BatchGateway
) -> None:
    idle = Batches(store, gateway.url, headers, "web-0")
    damaged = await idle.start(SERVICE, "ann", items(1))
    [key] = [key for key in await keys(store, "batches/states") if damaged in key]
    await store.put(key, b'{"id": 1}\n')
    async with working(store, gateway) as batches:
        good = await batches.start(SERVICE, "ann", items(3))
        assert answers(await ended(batches, good)) == [0, 1, 2]
        await batches.expire()
        with pytest.raises(Unreadable, match=damaged):
            await batches.poll(SERVICE, damaged, "ann")


async def test_a_batch_whose_calls_do_not_run_gives_its_place_to_one_that_waits(
    store: ObjectStore, gateway: BatchGateway
) -> None:
    async with working(store, gateway, lease_seconds=0.9, stuck_seconds=1.0) as batches:
        stuck = [await batches.start(SERVICE, "ann", [{"n": n, "statuses": [503]}]) for n in range(4)]
        async with asyncio.timeout(20):
            while not all(gateway.calls[n] for n in range(4)):
                await asyncio.sleep(0.02)
        other = await batches.start(SERVICE, "bob", [{"n": 9}])
        assert answers(await ended(batches, other)) == [9]  # as no one has all places
        waiting = await batches.start(SERVICE, "ann", [{"n": 10}])
        assert answers(await ended(batches, waiting)) == [10]
        assert [(await batches.poll(SERVICE, each, "ann")).completed for each in stuck] == [0] * 4


async def test_nobody_has_more_unfinished_batches_than_their_share(
    store: ObjectStore, gateway: BatchGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionpools.web.batch.batches.MAX_UNFINISHED_OF_OWNER", 2)
    batches = Batches(store, gateway.url, headers, "web-1")
    first = await batches.start(SERVICE, "ann", items(1))
    await batches.start(SERVICE, "ann", items(1))
    with pytest.raises(TooMany, match="2 of ann are not finished"):
        await batches.start(SERVICE, "ann", items(1))
    await batches.start(SERVICE, "bob", items(1))
    await batches.delete(SERVICE, first, "ann")
    await batches.start(SERVICE, "ann", items(1))


async def test_more_calls_at_a_time_than_there_may_be_are_as_many_as_there_may_be(volume: ObjectStore) -> None:
    batches = Batches(volume, "http://127.0.0.1:1", headers, "web-1")
    await batches.start(SERVICE, "ann", items(1), 5000)
    [key] = await keys(volume, "batches/states")
    assert states.State.parse((await volume.get(key)).data)[0].parallel == 100
