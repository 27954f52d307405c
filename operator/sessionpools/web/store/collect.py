"""Removes what nothing uses any more: bundles that no WebService names, and whatever the chores it is given remove.

Bundles are judged by what the cluster says: a bundle is kept while a WebService, of any namespace that is watched,
names its digest, and for GRACE after it was written, as publishing stores the bundle first and writes the WebService
then. When the cluster can't be asked nothing is removed. One replica collects at a time (`leases/collect`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sessionpools.web.store.bundles import PREFIX, sha256_of_key
from sessionpools.web.store.content import delete_if_old
from sessionpools.web.store.errors import StoreError
from sessionpools.web.store.lease import LEASE_SECONDS, Lease
from sessionpools.web.store.objects import Entry, ObjectStore

__all__ = ["GRACE", "INTERVAL_SECONDS", "Chore", "Collector", "unused"]

_log = logging.getLogger(__name__)

# From storing a bundle to a WebService that names it are seconds; to one that somebody writes by hand it may be long.
GRACE: Final = timedelta(hours=1)
INTERVAL_SECONDS: Final = 600.0  # rubbish costs little while it lies there; each round lists the store

Chore = Callable[[], Awaitable[None]]


def unused(bundles: Iterable[Entry], referenced: Collection[str], now: datetime) -> list[str]:
    """Keys of the bundles that may be removed: old, and of a digest that is not among `referenced`."""
    keep = set(referenced)
    return [
        entry.key
        for entry in bundles
        if (digest := sha256_of_key(entry.key)) and digest not in keep and now - entry.modified > GRACE
    ]


class Collector:
    """`referenced` gives the digests that WebServices name, and raises when it does not know all of them."""

    def __init__(
        self,
        store: ObjectStore,
        identity: str,
        referenced: Callable[[], Awaitable[Collection[str]]],
        chores: Mapping[str, Chore],
    ) -> None:
        self._store = store
        self._lease = Lease(store, "collect", identity)
        self._referenced = referenced
        self._chores = {"bundles": self._collect_bundles, **chores}

    async def run(self) -> None:
        """Collect every INTERVAL_SECONDS, when it is this one's turn; until cancelled."""
        while True:
            try:
                await self.turn()
            except StoreError as error:
                _log.warning("not collected", extra={"error": str(error)})
            except Exception:  # a lease that can't be read must not end the web API
                _log.exception("not collected")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def turn(self) -> bool:
        """Take the lease and do everything once; whether it was ours. Raises StoreUnavailable."""
        if not await self._lease.acquire():
            return False
        renewing = asyncio.create_task(self._renew())
        try:
            for name, chore in self._chores.items():
                try:
                    await chore()
                except Exception as error:  # one that fails does not keep the others from being done
                    _log.warning("not collected", extra={"what": name, "error": str(error) or type(error).__name__})
        finally:
            renewing.cancel()
            await self._lease.release()
        return True

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._lease.acquire()
            except StoreError as error:
                _log.warning("lease not renewed", extra={"error": str(error)})

    async def _collect_bundles(self) -> None:
        """The bundles are listed first: one that is written after that is not in the list."""
        bundles = [entry async for entry in self._store.list(PREFIX)]
        now = datetime.now(UTC)
        for key in unused(bundles, await self._referenced(), now):
            _log.info("bundle removed", extra={"bundle": sha256_of_key(key)})
            await delete_if_old(self._store, key, GRACE.total_seconds(), now.timestamp())
