"""Content that is stored under its digest, so that what is equal is stored once: bundles, and blobs of authoring.

It is stored first, and named by a document or a WebService then; what nothing names is removed after a time. Whoever
stores content that is there already must not have it removed in that moment by a replica that has found it old, and no
store deletes under a condition. So who removes says so first (`doomed/KEY`), looks at the age after that, and takes the
word back when it is done; who stores looks for that word afterwards, and then whether the content is there:

- the word came after that look: the one who removes sees how young the content is by then, and leaves it;
- the word is there: it is waited for, and all is done again;
- the word was taken back before: what was removed is missing, and is written again.

A process that ends in between leaves its word, which counts for nothing after DOOMED_SECONDS. Called by authoring.py,
bundles.py and collect.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Final

from sessionpools.web.store.errors import NotFound, StoreUnavailable
from sessionpools.web.store.objects import ObjectStore
from sessionpools.web.store.received import Content

__all__ = ["DOOMED", "DOOMED_SECONDS", "FRESH", "delete_if_old", "put_fresh"]

DOOMED: Final = "doomed"
# What is written again within this time of its last use is not collected meanwhile: half of collect.GRACE, so that what
# publishing has found is kept until its WebService is there.
FRESH: Final = timedelta(minutes=30)
DOOMED_SECONDS: Final = 180.0  # more than a look and a removal can take
_REMOVAL_SECONDS: Final = 90.0
_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.25


async def put_fresh(store: ObjectStore, key: str, content: Content) -> None:
    """Store content under a key that its digest is in, unless it is there; afterwards it stays for GRACE - FRESH at
    least. Raises StoreUnavailable."""
    for _ in range(_TRIES):
        if not await _younger(store, key, FRESH.total_seconds()):
            await store.put(key, content)
        if await _younger(store, _doomed(key), DOOMED_SECONDS):
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        with contextlib.suppress(NotFound):
            await store.modified(key)
            return
    raise StoreUnavailable(f"store {store.url}: {key} is being removed as unused just now: try again")


async def delete_if_old(store: ObjectStore, key: str, seconds: float, now: float) -> None:
    """Remove content that was written longer ago: looked at again right before, as somebody may just use it anew."""
    word = _doomed(key)
    await store.put(word, b"")
    # Where this does not come to its end the removal may yet happen, and the word has to stay.
    async with asyncio.timeout(_REMOVAL_SECONDS):
        with contextlib.suppress(NotFound):
            if now - (await store.modified(key)).timestamp() > seconds:
                await store.delete(key)
    await store.delete(word)


async def _younger(store: ObjectStore, key: str, seconds: float) -> bool:
    """Whether there is such an object, and not for longer."""
    try:
        return (datetime.now(UTC) - await store.modified(key)).total_seconds() < seconds
    except NotFound:
        return False


def _doomed(key: str) -> str:
    return f"{DOOMED}/{key}"
