"""Batches: many calls of a web service in the background, and their results."""

from collections.abc import Sequence
from typing import Any, Final

from sessionpools.client.errors import AnswerInvalid
from sessionpools.client.exchange import Flow, Link
from sessionpools.client.flows.waiting import Progress, until
from sessionpools.client.models import Batch, BatchStatus, read
from sessionpools.client.values import records_of
from sessionpools.client.wire import UPLOAD_SECONDS, Request, Timeout, path_of, post_json

__all__ = ["Batches"]

_PARALLEL: Final = 10  # Machine Learning Server's
_WAIT_SECONDS: Final = 3600.0


class Batches:
    def __init__(self, link: Link) -> None:
        self._link = link

    def start(self, name: str, version: str, records: Any, *, parallel: int = _PARALLEL) -> Flow[Batch]:
        """Start a call for each record: a list of dicts of inputs, a dict of columns, or the rows of a data frame.

        `parallel` calls are made at a time, over all sessions of the pool. Raises InputInvalid, NotFound, BadRequest.
        """
        request = post_json(
            path_of("api", name, version, "batch"),
            records_of(records),
            params={"parallelCount": str(parallel)},
            timeout=Timeout(answer=UPLOAD_SECONDS),
        )
        body = (yield from self._link.exchange(request)).json()
        found = body.get("batchExecutionId") or body.get("BatchExecutionId") if isinstance(body, dict) else None
        if not isinstance(found, str) or not found:
            raise AnswerInvalid(f"{request}: the answer has no batchExecutionId")
        return Batch(name=name, version=version, id=found)

    def list(self, name: str, version: str) -> Flow[Sequence[Batch]]:
        """The batches of a web service that are yours, or, for an Owner, anybody's, and have not expired."""
        request = Request("GET", path_of("api", name, version, "batch"))
        response = yield from self._link.exchange(request)
        ids = read(list[str], response.json(), str(request))
        return [Batch(name=name, version=version, id=each) for each in ids]

    def poll(self, batch: Batch, *, partial: bool = True) -> Flow[BatchStatus]:
        """How far it is, with the results there are; without `partial` only those of a batch that is complete."""
        request = Request("GET", _path(batch), {"showPartialResults": str(partial).lower()})
        response = yield from self._link.exchange(request)
        body = response.json()
        if not isinstance(body, dict):
            raise AnswerInvalid(f"{request}: the answer is no object")
        results = body.get("batchExecutionResults") or []
        numbered = [{"index": place, **result} for place, result in enumerate(results) if isinstance(result, dict)]
        return read(BatchStatus, {**body, "batch": batch.model_dump(), "results": numbered}, str(request))

    def wait(
        self, batch: Batch, *, timeout: float = _WAIT_SECONDS, progress: Progress[BatchStatus] | None = None
    ) -> Flow[BatchStatus]:
        """The status of the complete batch, with all results. `progress` gets each status on the way, without results.

        Raises WaitTimeout after `timeout` seconds; the batch goes on.
        """
        yield from until(
            lambda: self.poll(batch, partial=False),
            lambda status: status.done,
            timeout=timeout,
            clock=self._link.clock,
            what=lambda status: f"batch {batch.id}: {status.completed} of {status.total} items are done",
            progress=progress,
        )
        return (yield from self.poll(batch))

    def cancel(self, batch: Batch) -> Flow[None]:
        """End it, and forget its results. Calls that run are not interrupted."""
        yield from self._link.exchange(Request("DELETE", _path(batch), gone_is_done=True))

    def files(self, batch: Batch, index: int) -> Flow[Sequence[str]]:
        """The names of the files that an item has written, of those the service declares."""
        request = Request("GET", _path(batch, str(index), "files"))
        response = yield from self._link.exchange(request)
        return read(list[str], response.json() or [], str(request))

    def file(self, batch: Batch, index: int, file_name: str) -> Flow[bytes]:
        """The content of a file of an item, by the name that `files` gives; it may be in a folder: `plots/a.png`."""
        response = yield from self._link.exchange(
            Request("GET", _path(batch, str(index), "files", *file_name.split("/")))
        )
        return response.body


def _path(batch: Batch, *more: str) -> str:
    return path_of("api", batch.name, batch.version, "batch", batch.id, *more)
