"""Batches: calls in the background, and what they gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any, Protocol, Self

from sessionpools.client.wire import path_of
from sessionpools_azureml.common.http_client import HttpClient
from sessionpools_azureml.deploy.server.response import ServiceResponse

__all__ = ["Batch", "BatchResponse"]


class _Service(Protocol):
    _http_client: HttpClient

    def capabilities(self) -> dict[str, Any]: ...


class Batch:
    """A batch of a service: `start` it, ask for its `results`, `cancel` it."""

    def __init__(
        self,
        service: _Service,
        records: Sequence[Mapping[str, Any]] = (),
        parallel_count: int = 10,
        execution_id: str | None = None,
    ) -> None:
        capabilities = service.capabilities()
        self._service_api: str = capabilities["api"]
        self._output_schema = capabilities["outputs"]
        self._http_client = service._http_client
        self.api = f"{self._service_api}/batch"
        self.records = list(records)
        self.parallel_count = parallel_count
        self.execution_id = execution_id

    def start(self) -> Self:
        """Start it; one that has been started is not started again."""
        if self.execution_id is None:
            params = {"parallelCount": str(self.parallel_count)}
            answer = self._http_client.post(self.api, json=self.records, params=params).json()
            self.execution_id = answer.get("batchExecutionId") or answer["BatchExecutionId"]
        return self

    def cancel(self) -> None:
        """End it, and have the server forget its results."""
        self._http_client.delete(self._path())

    def state(self) -> str:
        """pending, inProgress or complete."""
        return str(self._poll(partial=False).state)

    def results(self, show_partial_results: bool = True) -> BatchResponse | None:
        """How far it is, with the results there are; without partial ones those of a batch that is complete. None
        before it is started."""
        return None if self.execution_id is None else self._poll(partial=show_partial_results)

    def artifact(self, index: int, file_name: str) -> bytes:
        """A file that an item has written."""
        return self._http_client.get(self._path(str(index), "files", *file_name.split("/"))).content

    def list_artifacts(self, index: int) -> list[str]:
        """The names of the files that an item has written."""
        found: list[str] | None = self._http_client.get(self._path(str(index), "files")).json()
        return found or []

    def download(self, index: int, file_name: str | None = None, destination: str | Path | None = None) -> list[str]:
        """Write a file of an item, or all of them, into a folder, else the current one. The paths of what was
        written."""
        folder = Path.cwd() if destination is None else Path(destination)
        if not folder.is_dir():
            raise ValueError(f'No such file or directory "{folder}".')
        paths = []
        for name in self.list_artifacts(index) if file_name is None else [file_name]:
            content = self.artifact(index, name)
            path = folder / Path(name).name  # a server does not say where on this machine
            path.write_bytes(content)
            paths.append(str(path))
        return paths

    def _poll(self, *, partial: bool) -> BatchResponse:
        params = {"showPartialResults": str(partial).lower()}
        answer = self._http_client.get(self._path(), params=params).json()
        assert self.execution_id is not None  # noqa: S101  (_path has said so)
        return BatchResponse(self._service_api, self.execution_id, answer, self._output_schema)

    def _path(self, *more: str) -> str:
        if self.execution_id is None:
            raise ValueError("Batch not started, `execution_id` is None.")
        return f"{self.api}{path_of(self.execution_id, *more)}"

    def __str__(self) -> str:
        return f"<{type(self).__name__}> \n{pformat(vars(self), indent=4, width=1)}"


class BatchResponse:
    """How far a batch was when it was asked: state, completed_item_count, total_item_count, and results."""

    def __init__(
        self,
        api: str,
        execution_id: str,
        response: Mapping[str, Any],
        output_schema: Sequence[Mapping[str, str]],
    ) -> None:
        self.api = api
        self.execution_id = execution_id
        self.completed_item_count = response["completedItemCount"]
        self.total_item_count = response["totalItemCount"]
        self.state = response["state"]
        results = response.get("batchExecutionResults") or []
        self._results = {each.get("index", place): each for place, each in enumerate(results)}
        self._output_schema = output_schema

    def execution(self, index: int) -> ServiceResponse:
        """What the item of this index gave. Raises IndexError while it has not given anything."""
        if index not in self._results:
            raise IndexError(f"item {index} has no result: {self.completed_item_count} of {self.total_item_count} have")
        return ServiceResponse(self.api, self._results[index], self._output_schema)

    def __str__(self) -> str:
        fields = ("api", "execution_id", "completed_item_count", "total_item_count", "state")
        return "\n".join(["\n<BatchResponse> ", *(f"   {name}: {getattr(self, name)}" for name in fields)])
