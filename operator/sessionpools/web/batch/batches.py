"""Machine Learning Server's batches: start, list, poll, cancel, files; and the loop that works on them.

Everything is in the store, so any replica answers for any batch, and a batch outlives the replica that works on it:
the others look every few seconds at the batches that are not finished, and take one that has no holder, or whose record
they have seen unchanged for longer than a lease. `state` says why no item is sent twice whatever happens in between.

An `owner` of None may see everybody's; another's batch is NotFound. Which service a batch calls is part of its name:
the REST API has it in the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from sessionpools.web.batch import state as states
from sessionpools.web.batch.calls import Gateway, Headers, Known, failure
from sessionpools.web.batch.layout import DATA, OPEN, STATES, Place, service_digest
from sessionpools.web.batch.run import Run
from sessionpools.web.batch.state import Service, State
from sessionpools.web.store.errors import Changed, NotFound, Refused, StoreError, TooLarge, TooMany, Unreadable
from sessionpools.web.store.keys import short_digest
from sessionpools.web.store.lease import LEASE_SECONDS, Sightings
from sessionpools.web.store.objects import ObjectStore, Version

__all__ = [
    "DEFAULT_PARALLEL",
    "MAX_BYTES",
    "MAX_ITEMS",
    "MAX_PARALLEL",
    "MAX_UNFINISHED_OF_OWNER",
    "BatchStatus",
    "Batches",
    "Headers",
    "Service",
]

_log = logging.getLogger(__name__)

MAX_ITEMS: Final = 10_000
MAX_BYTES: Final = 64 << 20  # of all inputs: what one request to the gateway may have
DEFAULT_PARALLEL: Final = 10  # Machine Learning Server's
MAX_PARALLEL: Final = 100  # its MaxNumberOfThreadsPerBatchExecution
_MAX_RUNNING: Final = 8  # batches of one replica at a time, as each has its inputs in memory; others are pending
_MAX_RUNNING_OF_OWNER: Final = 4  # of them: one who starts many does not keep others waiting
# A batch whose calls do not run, as its service has no session, gives its place to one that waits, for a while.
_STUCK_SECONDS: Final = 60.0
MAX_UNFINISHED_OF_OWNER: Final = 100
_SCAN_SECONDS: Final = 5.0  # a list of what is not finished, mostly empty
_ORPHAN_SECONDS: Final = 3600.0  # inputs are stored before the record, by a replica that may have died in between
_DRAIN_SECONDS: Final = 20.0  # for calls under way when the replica ends, after web.__main__.FINISH_SECONDS
_TRIES: Final = 20


Names = list[str]  # for signatures in a class that has a method `list`


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What a poll gives. Each of `results` is a JSON object of an item that is done, in the items' order:

    `{"index", "success", "errorMessage", "outputParameters", "consoleOutput", "changedFiles"}`, index counting from 0.
    """

    id: str
    owner: str
    state: str  # pending, inProgress or complete
    completed: int
    total: int
    results: Sequence[bytes] = ()


class Batches:
    """All batches of a store. Raises StoreUnavailable, and NotFound for a batch that is none of the owner's."""

    def __init__(
        self,
        store: ObjectStore,
        gateway_url: str,
        headers: Headers,
        identity: str,  # the pod's name
        *,
        certificate: Path | None = None,  # of the gateway, PEM
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        lease_seconds: float = LEASE_SECONDS,
        known: Known = lambda _: True,  # services that are published
        stuck_seconds: float = _STUCK_SECONDS,
    ) -> None:
        self._store = store
        self._gateway_url = gateway_url
        self._certificate = certificate
        self._headers = headers
        # a process that begins anew under the same name does not hold what the one before it held
        self._holder = f"{identity}/{uuid.uuid4().hex}"
        self._now = now
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._sightings = Sightings(clock)
        self._known = known
        self._stuck_seconds = stuck_seconds
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._not_before: dict[str, float] = {}  # batches that have given up their place, by `clock`
        self._unreadable: set[str] = set()  # batches whose record is said to be so
        self._news = asyncio.Event()

    # --- what callers do --------------------------------------------------------------------------------------------

    async def start(
        self, service: Service, owner: str, items: Sequence[Any], parallel_count: int = DEFAULT_PARALLEL
    ) -> str:
        """Keep a batch, to be worked on at once by whoever has room; its id. More than MAX_PARALLEL calls at a time are
        not made, whatever `parallel_count` says. Raises Refused, TooLarge, TooMany."""
        lines = _lines(items, parallel_count)
        parallel = min(parallel_count, MAX_PARALLEL)
        state = State(str(uuid.uuid4()), service, owner, len(items), parallel, self._now())
        place = Place.of_state(state)
        await self._check_room(place.owner, owner)
        await self._store.put(place.items_key, lines)
        await self._store.put(place.open_key(state.created), b"")
        await self._store.put_if_absent(place.state_key, state.dump())
        self._news.set()
        return state.id

    async def list(self, service: Service, owner: str | None) -> Names:
        """Ids of the service's batches, until they expire; those written last come last."""
        found = []
        async for entry in self._store.list(f"{STATES}/{service_digest(service)}"):
            place = Place.of_state_key(entry.key)
            if place and (owner is None or place.owner == short_digest(owner)):
                found.append((entry.modified, place.id))
        return [batch_id for _, batch_id in sorted(found)]

    async def poll(self, service: Service, batch_id: str, owner: str | None, partial: bool = False) -> BatchStatus:
        """How far a batch is; with its results when it is complete, or with those there are if `partial`."""
        for _ in range(_TRIES):
            state, tail, _ = await self._read(await self._place(service, batch_id, owner))
            results: Sequence[bytes] = []
            if partial or state.finished:
                try:
                    results = await self._results(state, tail)
                except NotFound:  # it was deleted meanwhile
                    continue
            return BatchStatus(state.id, state.owner, state.word, state.completed, state.total, results)
        raise _missing(batch_id)

    async def delete(self, service: Service, batch_id: str, owner: str | None) -> None:
        """Cancel a batch, and remove it: what has not begun will not, and what has is not waited for."""
        place = await self._place(service, batch_id, owner)
        for _ in range(_TRIES):
            state, _, version = await self._read(place)
            with contextlib.suppress(Changed):
                await self._store.update(place.state_key, states.deleted(state).dump(), version)
                break
        else:
            raise Changed(f"batch {batch_id}: too many write to it at once: try again")
        if batch_id in self._runs:
            self._runs[batch_id][0].lose()
        await self._remove(state)

    async def files(self, service: Service, batch_id: str, owner: str | None, index: int) -> Names:
        """Names of the output files that an item has written. Raises NotFound for an item that there is not."""
        place = await self._place(service, batch_id, owner)
        state, _, _ = await self._read(place)
        if not 0 <= index < state.total:
            raise NotFound(f"batch {batch_id}: there is no item {index}: they are 0 to {state.total - 1}")
        return await self._file_names(place, index)

    async def file(
        self, service: Service, batch_id: str, owner: str | None, index: int, name: str
    ) -> AsyncIterator[bytes]:
        """An output file of an item, in pieces. Raises NotFound before the first."""
        names = await self.files(service, batch_id, owner, index)
        if name not in names:
            raise NotFound(f"batch {batch_id}, item {index}: has no file {name!r}; it has {', '.join(names) or 'none'}")
        place = await self._place(service, batch_id, owner)
        async for piece in self._store.stream(place.file_key(index, names.index(name))):
            yield piece

    # --- what is done in the background -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Work on batches until cancelled; then give them back, calls under way having _DRAIN_SECONDS to finish."""
        gateway = Gateway(self._gateway_url, self._headers, self._certificate, self._known)
        try:
            while True:
                try:
                    await self._scan(gateway)
                except StoreError as error:
                    _log.warning("batches not looked at", extra={"error": str(error)})
                except Exception:  # a record that can't be read must not end the web API
                    _log.exception("batches not looked at")
                with contextlib.suppress(TimeoutError):  # wait_for of Python 3.11 would lose a cancellation
                    async with asyncio.timeout(min(_SCAN_SECONDS, self._lease_seconds / 3)):
                        await self._news.wait()
                self._news.clear()
        finally:
            await self._give_back()
            await gateway.close()

    async def expire(self) -> None:
        """Remove what is expired or was deleted halfway, and data without a record. For one replica at a time.

        Data is listed before records: a batch that is started meanwhile is not in the list, or has a young one.
        """
        now = self._now()
        data: dict[str, float] = {}
        async for entry in self._store.list(DATA):
            batch_id = entry.key.split("/")[2]
            data[batch_id] = max(data.get(batch_id, 0.0), entry.modified.timestamp())
        known = set()
        async for entry in self._store.list(STATES):
            place = Place.of_state_key(entry.key)
            if place is None:
                continue
            known.add(place.id)
            try:
                state, _, _ = await self._read(place, deleted=True)
            except NotFound:
                continue
            except Unreadable as error:
                self._say_unreadable(place, error)
                continue
            if states.expired(state, now):
                await self._remove(state)
        for batch_id, written in data.items():
            if batch_id not in known and now - written > _ORPHAN_SECONDS:
                await self._remove_all(f"{DATA}/{batch_id}")

    async def _scan(self, gateway: Gateway) -> None:
        """Take batches that nobody works on, the oldest first, as many as there is room for and no more than
        _MAX_RUNNING_OF_OWNER of anybody's."""
        places = await self._unfinished()
        self._sightings.keep({place.id for place in places.values()})
        now = self._clock()
        self._not_before = {batch_id: until for batch_id, until in self._not_before.items() if until > now}
        for key, place in places.items():
            if place.id in self._runs or place.id in self._not_before:
                continue
            if len(self._runs) >= _MAX_RUNNING:
                self._make_room()
                return
            if sum(run.place.owner == place.owner for run, _ in self._runs.values()) >= _MAX_RUNNING_OF_OWNER:
                self._make_room(place.owner)
                continue
            try:
                await self._consider(key, place, gateway)
            except Unreadable as error:
                self._say_unreadable(place, error)

    def _make_room(self, owner: str = "") -> None:
        """Give back the batch none of whose calls has run for the longest, if that is long; of this owner's, if any."""
        runs = [run for run, _ in self._runs.values() if not run.stopping and owner in ("", run.place.owner)]
        stuck = max(runs, key=lambda run: run.seconds_without_result, default=None)
        if stuck and stuck.seconds_without_result > self._stuck_seconds:
            _log.info("batch makes room", extra={"batch": stuck.state.id, "seconds": self._stuck_seconds})
            stuck.stop()
            self._not_before[stuck.state.id] = self._clock() + self._stuck_seconds

    def _say_unreadable(self, place: Place, error: Unreadable) -> None:
        """Once: nothing else can be done about it here, and the others go on."""
        if place.id not in self._unreadable:
            self._unreadable.add(place.id)
            _log.error("batch can not be read", extra={"batch": place.id, "key": place.state_key, "error": str(error)})

    async def _check_room(self, digest: str, owner: str) -> None:
        unfinished = sum(place.owner == digest for place in (await self._unfinished()).values())
        if unfinished >= MAX_UNFINISHED_OF_OWNER:
            raise TooMany(
                f"batch: {unfinished} of {owner} are not finished, and {MAX_UNFINISHED_OF_OWNER} is the most: "
                "wait for one, or cancel one"
            )

    async def _consider(self, mark: str, place: Place, gateway: Gateway) -> None:
        try:
            stored = await self._store.get(place.state_key)
        except NotFound:  # being started, or its starter died, or being removed
            if self._sightings.unchanged_for(place.id, None) > _ORPHAN_SECONDS:
                await self._store.delete(mark)
            return None
        state, tail = _parsed(place, stored.data)
        if state.finished or state.deleted:
            return await self._close(state)
        if state.holder and self._sightings.unchanged_for(place.id, stored.version) < self._lease_seconds:
            return None
        if state.holder:
            _log.warning("batch taken over", extra={"batch": state.id, "holder": state.holder})
        ours = states.taken(state, self._holder)
        with contextlib.suppress(Changed):
            version = await self._store.update(place.state_key, ours.dump(tail), stored.version)
            run = Run(
                self._store,
                gateway,
                (ours, tail, version),
                renew_seconds=self._lease_seconds / 3,  # two may fail
                now=self._now,
                clock=self._clock,
            )
            self._runs[state.id] = (run, asyncio.create_task(self._work(run)))
        return None

    async def _work(self, run: Run) -> None:
        try:
            await run.work()
            if run.state.finished:
                await self._close(run.state)
        except StoreError as error:
            _log.warning("batch left", extra={"batch": run.state.id, "error": str(error)})
        except Exception:
            _log.exception("batch left", extra={"batch": run.state.id})
        finally:
            self._runs.pop(run.state.id, None)
            self._news.set()

    async def _close(self, state: State) -> None:
        """Remove what a finished batch does not need any more."""
        place = Place.of_state(state)
        await self._store.delete(place.items_key)
        await self._store.delete(place.open_key(state.created))

    async def _give_back(self) -> None:
        tasks = [task for _, task in self._runs.values()]
        for run, _ in self._runs.values():
            run.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=_DRAIN_SECONDS)
        for run, _ in self._runs.values():
            run.abandon()
        left = [task for task in tasks if not task.done()]
        if left:
            await asyncio.wait(left, timeout=_DRAIN_SECONDS / 4)
        for task in left:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the store --------------------------------------------------------------------------------------------------

    async def _unfinished(self) -> dict[str, Place]:
        """Batches that are not finished, by their mark's key, the oldest first."""
        marks = sorted([entry.key async for entry in self._store.list(OPEN)])
        return {key: place for key in marks if (place := Place.of_open_key(key))}

    async def _place(self, service: Service, batch_id: str, owner: str | None) -> Place:
        """Where the batch is. Raises NotFound for what is no id, and when it is to be looked for and is not there."""
        try:
            if str(uuid.UUID(batch_id)) != batch_id:
                raise _missing(batch_id)
        except ValueError:
            raise _missing(batch_id) from None
        if owner is not None:
            return Place.of(service, batch_id, owner)
        async for entry in self._store.list(f"{STATES}/{service_digest(service)}"):
            place = Place.of_state_key(entry.key)
            if place and place.id == batch_id:
                return place
        raise _missing(batch_id)

    async def _read(self, place: Place, deleted: bool = False) -> tuple[State, bytes, Version]:
        try:
            stored = await self._store.get(place.state_key)
        except NotFound:
            raise _missing(place.id) from None
        state, tail = _parsed(place, stored.data)
        if state.deleted and not deleted:
            raise _missing(place.id)
        return state, tail, stored.version

    async def _results(self, state: State, tail: bytes) -> Sequence[bytes]:
        place = Place.of_state(state)
        by_item = {
            item: orjson.dumps({"index": item, **failure(text)}) for item, text in states.without_result(state).items()
        }
        for name in state.segments:
            _add_lines(by_item, (await self._store.get(place.segment_key(name))).data)
        _add_lines(by_item, tail)
        return [by_item[item] for item in sorted(by_item)]

    async def _file_names(self, place: Place, index: int) -> Names:
        try:
            names: Names = orjson.loads((await self._store.get(place.file_names_key(index))).data)
        except NotFound:
            return []
        return names

    async def _remove(self, state: State) -> None:
        """Everything of a batch; its record last, so that what remains after a crash is found again."""
        place = Place.of_state(state)
        await self._store.delete(place.open_key(state.created))
        await self._remove_all(place.data_prefix)
        await self._store.delete(place.state_key)

    async def _remove_all(self, prefix: str) -> None:
        for key in [entry.key async for entry in self._store.list(prefix)]:
            await self._store.delete(key)


def _lines(items: Sequence[Any], parallel_count: int) -> bytes:
    """The inputs, a line each. Raises Refused, TooLarge."""
    if parallel_count < 1:
        raise Refused(f"parallelCount {parallel_count}: must be at least 1")
    if not items:
        raise Refused("batch: has no items: send an array of at least one object of inputs")
    if len(items) > MAX_ITEMS:
        raise TooLarge(f"batch: {len(items)} items are more than {MAX_ITEMS}, the most of one: make several")
    lines = []
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise Refused(f"item {number}: must be a JSON object of inputs, got {type(item).__name__}")
        lines.append(orjson.dumps(item))
    data = b"\n".join(lines)
    if len(data) > MAX_BYTES:
        raise TooLarge(f"batch: the inputs are larger than {MAX_BYTES >> 20} MiB in all, the most of one: make several")
    return data


def _add_lines(by_item: dict[int, bytes], lines: bytes) -> None:
    for line in lines.splitlines():
        item, _, result = line.partition(b" ")
        by_item[int(item)] = result


def _parsed(place: Place, data: bytes) -> tuple[State, bytes]:
    try:
        return State.parse(data)
    except ValueError as error:
        raise Unreadable(f"batch {place.id}: its record is damaged, or of another version: {error}") from None


def _missing(batch_id: str) -> NotFound:
    return NotFound(f"batch {batch_id!r}: there is none of this service, it is another's, or it has expired")
