"""Signatures of what follows; see the commit's message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime

from sessionpools.web.store.objects import Entry, ObjectStore

Chore = Callable[[], Awaitable[None]]


def unused(bundles: Iterable[Entry], referenced: Collection[str], now: datetime) -> list[str]: ...


class Collector:
    """One replica at a time: collects bundles, then does the chores (authoring.expire, batches.expire)."""

    def __init__(
        self,
        store: ObjectStore,
        identity: str,  # the pod's name
        referenced: Callable[
            [], Awaitable[Collection[str]]
        ],  # sha256 of every WebService's bundle; raises if not known
        chores: Mapping[str, Chore],
    ) -> None: ...
    async def run(self) -> None: ...  # until cancelled
