"""Signatures of what follows; see the commit's message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sessionpools.web.store.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    version: str


# What the gateway needs to let a call of this owner's batch in: {"Authorization": "Bearer ..."}. Asked for each call.
Headers = Callable[[Service, str], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class BatchStatus:
    id: str
    owner: str
    state: str  # pending, inProgress, complete
    completed: int
    total: int
    results: Sequence[Mapping[str, Any]]  # {"index", "success", "errorMessage", "outputParameters", "consoleOutput", "changedFiles"}


class Batches:
    def __init__(self, store: ObjectStore, gateway_url: str, headers: Headers, identity: str) -> None: ...
    async def run(self) -> None: ...  # until cancelled: makes the calls, takes over from replicas that are gone
    async def start(self, service: Service, owner: str, items: Sequence[Any], parallel_count: int = 10) -> str: ...
    async def list(self, service: Service, owner: str | None) -> list[str]: ...
    async def poll(self, service: Service, batch_id: str, owner: str | None, partial: bool) -> BatchStatus: ...
    async def delete(self, service: Service, batch_id: str, owner: str | None) -> None: ...
    async def files(self, service: Service, batch_id: str, owner: str | None, index: int) -> list[str]: ...
    def file(
        self, service: Service, batch_id: str, owner: str | None, index: int, name: str
    ) -> AsyncIterator[bytes]: ...
    async def expire(self) -> None: ...  # what Collector calls
