"""One batch at work: as many calls at a time as it asks for, and one writer that keeps its record true.

Workers take items that are claimed, make the calls, and leave results. The writer alone writes the record: results
since its last write, items that did not run, what the workers need next, and with it the renewal of the lease. So what
is written does not grow with the items but with time, about once a second, and no worker waits for the store while
there is something claimed. A write that fails is repeated until it takes or somebody else has the batch.

Called by batches.py, with a record that was taken for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from sessionpools.web.batch import state as states
from sessionpools.web.batch.calls import Gateway, NotRun, Ran, failure
from sessionpools.web.batch.layout import Place
from sessionpools.web.batch.state import Progress, State
from sessionpools.web.store.errors import Changed, StoreUnavailable
from sessionpools.web.store.objects import ObjectStore, Version

__all__ = ["MAX_RESULT_BYTES", "Run"]

_log = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 1.0  # how long results wait for others: what a crash makes of them is "unknown"
_CLAIM_SECONDS: Final = 0.1  # between two writes for items while other calls are under way
_TAIL_BYTES: Final = 32 << 10  # results behind the record, which each write repeats; a full volume takes both
# All results are in memory when they are asked for, and one answer; files are apart.
MAX_RESULT_BYTES: Final = 64 << 20
_FIRST_PAUSE_SECONDS: Final = 0.5  # of a worker whose calls are refused: doubled each time, no less than Retry-After
_MAX_PAUSE_SECONDS: Final = 10.0
_STORE_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # between tries of a write; the last one again and again
_FILE_TRIES: Final = 5


class Run:
    """A batch in our hands. `work` ends when it is finished, taken from us, deleted, or after `stop`."""

    def __init__(
        self,
        store: ObjectStore,
        gateway: Gateway,
        taken: tuple[State, bytes, Version],
        *,
        renew_seconds: float,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self._tail, self._version = taken
        self.place = Place.of_state(self.state)
        self._store = store
        self._gateway = gateway
        self._renew_seconds = renew_seconds
        self._now = now
        self._clock = clock
        self._items: list[bytes] = []
        self._queue: asyncio.Queue[int] = asyncio.Queue()  # claimed, and not begun
        self._results: dict[int, bytes] = {}  # since the last write
        self._returned: set[int] = set()
        self._workers = self._idle = self._paused = self._busy = 0
        self._changed = asyncio.Event()
        self._pending_bytes = 0  # of the results since the last write
        self._stopping = self._abandoned = self._lost = False
        self._written_at = self._counted_at = self._ran_at = clock()
        self._finished_calls = 0
        self._per_second = 0.0

    # --- life -------------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Make the calls. Raises nothing on purpose; what it could not write, another finds as lost."""
        data = (await self._persist(lambda: self._store.get(self.place.items_key))).data
        self._items = data.split(b"\n")
        self._workers = self._idle = min(self.state.parallel, max(self.state.waiting, 1))
        workers = [asyncio.create_task(self._worker()) for _ in range(self._workers)]
        try:
            await self._keep()
            if self._lost:  # calls under way are not cut off: that would end their sessions
                self._drop_queue()
                while self._busy:
                    await self._wait(None)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def stop(self) -> None:
        """Begin nothing more, let calls under way finish, give the batch back."""
        self._stopping = True
        self._changed.set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was said."""
        return self._stopping

    @property
    def seconds_without_result(self) -> float:
        """For how long none of its calls has come to an end: their service has no session, or they take that long."""
        return self._clock() - self._ran_at

    def abandon(self) -> None:
        """After `stop`: wait for no call any more. What is under way is lost."""
        self._abandoned = True
        self._changed.set()

    def lose(self) -> None:
        """The batch is somebody else's by now, or deleted: begin nothing more, write nothing more."""
        self._lost = True
        self._changed.set()

    # --- the writer -------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._lost:
            await self._wait(self._due() - self._clock())
            if self._lost or self._due() > self._clock():
                continue
            try:
                await self._write()
                if states.done(self.state) or (self._over and not self.state.claimed):
                    await self._commit(states.finished(self.state, self._now()), self._tail)
                    return
                unwritten = self._results or self._returned or not self._queue.empty()
                if self._stopping and not unwritten and (not self._busy or self._abandoned):
                    await self._commit(states.released(self.state), self._tail)
                    return
            except Changed:
                self._lost = True

    @property
    def _over(self) -> bool:
        return states.given_up(self.state, self._now())

    def _due(self) -> float:
        """When the next write is."""
        if self._stopping and (not self._queue.empty() or not self._busy or self._abandoned):
            return self._clock()
        if self._settles_all() or (self._over and not self._queue.empty()):
            return self._clock()
        if self._wanted():
            return self._written_at + (_CLAIM_SECONDS if self._busy else 0.0)
        if self._results or self._returned:
            return self._written_at + _FLUSH_SECONDS
        return self._written_at + self._renew_seconds

    def _settles_all(self) -> bool:
        return len(self._results) == len(self.state.claimed) and (not self.state.waiting or self._over)

    @property
    def _halted(self) -> bool:
        """Whether no worker will take an item soon."""
        return self._stopping or self._over or self._paused == self._workers

    def _wanted(self) -> int:
        if self._halted or not self.state.waiting + len(self._returned):
            return 0
        return states.claim_count(self._idle, self._queue.qsize(), self._per_second)

    async def _write(self) -> None:
        if self._measured_surplus() or self._halted:
            self._drop_queue()
        wanted = self._wanted()
        results, self._results, self._pending_bytes = self._results, {}, 0
        returned, self._returned = self._returned, set()
        lines = b"".join(results.values())
        tail, segments = self._tail + lines, self.state.segments
        if len(tail) > _TAIL_BYTES:
            name = f"{self.state.token}-{self.state.number}"
            content = tail
            await self._persist(lambda: self._store.put(self.place.segment_key(name), content))
            tail, segments = b"", (*segments, name)
        progress = Progress(
            settled=results.keys(),
            returned=returned,
            segments=segments,
            result_bytes=self.state.result_bytes + len(lines),
            claim=wanted,
        )
        kept = set(self.state.claimed) - returned
        await self._commit(states.advanced(self.state, progress), tail)
        for item in self.state.claimed:
            if item not in kept:
                self._queue.put_nowait(item)

    async def _commit(self, state: State, tail: bytes) -> None:
        """Swap the record, until it is done. Raises Changed when it is no longer ours."""
        data = state.dump(tail)
        self._version = await self._persist(lambda: self._store.update(self.place.state_key, data, self._version))
        self.state, self._tail = state, tail
        self._written_at = self._clock()

    async def _persist(self, operation: Callable[[], Any]) -> Any:
        """Do something with the store, again and again while it is away."""
        for pause in itertools.chain(_STORE_PAUSES, itertools.repeat(_STORE_PAUSES[-1])):
            try:
                return await operation()
            except StoreUnavailable as error:
                _log.warning("batch waits for the store", extra={"batch": self.state.id, "error": str(error)})
            await asyncio.sleep(pause)
        raise AssertionError  # the pauses have no end

    def _measured_surplus(self) -> bool:
        """Count what was finished since the last write; whether far more is claimed than that."""
        now = self._clock()
        seconds = now - self._counted_at
        self._per_second = self._finished_calls / max(seconds, _CLAIM_SECONDS)
        self._counted_at, self._finished_calls = now, 0
        return seconds >= _FLUSH_SECONDS and self._queue.qsize() > 2 * (self._workers + self._per_second)

    def _drop_queue(self) -> None:
        while not self._queue.empty():
            self._returned.add(self._queue.get_nowait())

    async def _wait(self, seconds: float | None) -> None:
        """Until something has changed, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for of Python 3.11 loses a cancellation that comes as it ends
                await self._changed.wait()
        self._changed.clear()

    # --- workers ----------------------------------------------------------------------------------------------------

    async def _worker(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            item = await self._queue.get()
            self._idle -= 1
            self._busy += 1
            answer = await self._call(item)
            if isinstance(answer, Ran):
                line = self._line(item, answer.result)
                self._results[item] = line
                self._pending_bytes += len(line)
                self._finished_calls += 1
                self._ran_at = self._clock()
                self._busy -= 1
                pause = _FIRST_PAUSE_SECONDS
            else:
                self._returned.add(item)
                self._busy -= 1
                self._paused += 1
                self._changed.set()
                await asyncio.sleep(max(pause, answer.seconds) * random.uniform(1.0, 1.5))  # noqa: S311
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                self._paused -= 1
            self._idle += 1
            self._changed.set()

    async def _call(self, item: int) -> Ran | NotRun:
        try:
            answer = await self._gateway.call(
                self.state.service, self.state.owner, f"batch-{self.state.id}-{item}", self._items[item]
            )
            if isinstance(answer, Ran) and answer.files:
                await self._keep_files(item, answer)
            return answer
        except Exception as error:  # a bug of ours must not leave the batch unfinished for ever
            _log.exception("batch item failed", extra={"batch": self.state.id, "item": item})
            return Ran(failure(f"{states.LOST} ({type(error).__name__})"))

    async def _keep_files(self, item: int, answer: Ran) -> None:
        try:
            for number, content in enumerate(answer.files.values()):
                await self._store_file(self.place.file_key(item, number), content)
            await self._store_file(self.place.file_names_key(item), orjson.dumps(list(answer.files)))
        except StoreUnavailable as error:
            answer.result["errorMessage"] = f"The call ran; its output files could not be kept: {error}"
            answer.result["success"] = False

    async def _store_file(self, key: str, content: bytes) -> None:
        for number in range(_FILE_TRIES):
            try:
                return await self._store.put(key, content)
            except StoreUnavailable:
                if number == _FILE_TRIES - 1:
                    raise
            await asyncio.sleep(_STORE_PAUSES[number])
        raise AssertionError

    def _line(self, item: int, result: dict[str, Any]) -> bytes:
        """A result as it is stored: the item's number, and a JSON object. One that is too much says so instead."""
        line = b"%d %b\n" % (item, orjson.dumps({"index": item, **result}))
        if self.state.result_bytes + self._pending_bytes + len(line) > MAX_RESULT_BYTES:
            text = (
                f"The call ran; its result of {len(line)} bytes is not kept, as those of the batch would be larger "
                f"than {MAX_RESULT_BYTES >> 20} MiB: make smaller batches, or write large results into output files."
            )
            line = b"%d %b\n" % (item, orjson.dumps({"index": item, **failure(text)}))
        return line
