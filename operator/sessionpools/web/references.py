"""Which bundles may still be needed: those that web services name, and those that they named in the last days.

A service that is updated does not need its old bundle from then on, but its session pods may: an update that fails to
warm leaves the old sessions serving, and one of their pods that starts again fetches its bundle again. Whoever puts an
older manifest back (GitOps) wants it too. So when a bundle was last named is kept in the store, in one document that
only the replica that collects writes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

import orjson

from sessionpools.web.store.errors import NotFound
from sessionpools.web.store.objects import ObjectStore

__all__ = ["KEPT_SECONDS", "References", "remembered"]

KEPT_SECONDS: Final = 7 * 86_400.0
KEY: Final = "bundles-named.json"


def remembered(before: Mapping[str, float], named: Iterable[str], now: float) -> dict[str, float]:
    """When each digest was last named, in seconds since the epoch, without what was too long ago."""
    recent = {digest: at for digest, at in before.items() if now - at < KEPT_SECONDS}
    return recent | dict.fromkeys(named, now)


class References:
    """`named` gives the digests that web services name now, and raises when it does not know all of them."""

    def __init__(
        self, store: ObjectStore, named: Callable[[], Awaitable[Collection[str]]], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._named = named
        self._clock = clock

    async def known(self) -> Collection[str]:
        """Digests of bundles that must stay. Raises what `named` raises, and StoreUnavailable."""
        try:
            before: dict[str, float] = orjson.loads((await self._store.get(KEY)).data)
        except NotFound:
            before = {}
        now = remembered(before, await self._named(), self._clock())
        await self._store.put(KEY, orjson.dumps(now))
        return now.keys()
