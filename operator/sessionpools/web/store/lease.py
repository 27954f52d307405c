"""Who of several replicas does what only one may do at a time: a lease that is an object of the store.

Nobody's clock is compared with another's. A holder writes its lease again and again, each time with another number; who
has seen the same lease for longer than it holds takes it over, by compare-and-swap, with a higher token. A holder that
stood still meanwhile finds that out with its next write. So work under a lease has to bear that for a moment two do it:
collecting does (it removes what nothing uses, which stays so), and batches guard each step by its own swap.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from sessionpools.web.store.errors import Changed, NotFound
from sessionpools.web.store.objects import ObjectStore, Version

__all__ = ["Lease", "Sightings"]

LEASE_SECONDS: Final = 30.0  # a replica that is gone is followed this late; three of its renewals may fail


class Sightings:
    """Since when each of several things was seen unchanged, by our own monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def unchanged_for(self, name: str, version: object) -> float:
        """Seconds since this version was first seen of it; 0 when it is new."""
        now = self._clock()
        before = self._seen.get(name)
        if before is None or before[0] != version:
            self._seen[name] = (version, now)
            return 0.0
        return now - before[1]

    def keep(self, names: set[str]) -> None:
        """Forget all but these."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}


@dataclass(frozen=True, slots=True)
class _Record:
    holder: str  # "" is nobody
    token: int  # one more with each holder
    number: int  # one more with each write of a holder


class Lease:
    """One contender for `leases/NAME`. Raises StoreUnavailable; whoever does not get it is told False."""

    def __init__(
        self, store: ObjectStore, name: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._key = f"leases/{name}"
        # a process that begins anew under the same name does not hold what the one before it held
        self._holder = f"{identity}/{uuid.uuid4().hex}"
        self._sightings = Sightings(clock)
        self._record: _Record | None = None
        self._version: Version | None = None

    async def acquire(self) -> bool:
        """Take the lease or renew it; whether it is ours for LEASE_SECONDS more."""
        record, version = await self._read()
        if record is None or version is None:
            fresh = _Record(self._holder, 1, 1)
            return await self._store.put_if_absent(self._key, orjson.dumps(asdict(fresh)))
        if record.holder == self._holder:
            return await self._write(_Record(self._holder, record.token, record.number + 1), version)
        if not record.holder or self._sightings.unchanged_for(self._key, record) > LEASE_SECONDS:
            return await self._write(_Record(self._holder, record.token + 1, 1), version)
        return False

    async def release(self) -> None:
        """Give it back, if it is ours, so that another need not wait."""
        record, version = await self._read()
        if record is not None and version is not None and record.holder == self._holder:
            await self._write(_Record("", record.token, record.number + 1), version)

    async def _read(self) -> tuple[_Record | None, Version | None]:
        try:
            stored = await self._store.get(self._key)
        except NotFound:
            return None, None
        return _Record(**orjson.loads(stored.data)), stored.version

    async def _write(self, record: _Record, version: Version) -> bool:
        try:
            await self._store.update(self._key, orjson.dumps(asdict(record)), version)
        except Changed:
            return False
        return True
