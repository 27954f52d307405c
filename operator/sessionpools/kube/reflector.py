"""A local copy of all objects of one resource that is kept true. Called by the controller; knows nothing of pools.

LIST in pages, then WATCH from there. Four things make the copy trustworthy where kopf's indices are not:

- **Replace.** A list is compared with what is held: what it lacks is gone, and `on_change(old, None)` says so. A pod
  that was deleted while the watch was down would otherwise be counted as a warm session for ever.
- **Progress.** Bookmarks move the resourceVersion on, so that a watch on a quiet resource can be begun again where it
  was; 410 Gone means that it cannot, and leads to a new list.
- **Doubt.** A watch that sends bookmarks and no events looks like a quiet one. So everything is listed again now and
  then; of a copy that is true, `on_change` hears nothing of it.
- **Liveness.** `last_seen` is when the API server last said anything about the stalest namespace, bookmarks included.

Only what `parse` returns is kept: 10,000 pods must not cost 10,000 pod documents; of namespaces that are `ignored`
nothing is. `on_change` is called for every difference, in order, on the event loop, after the copy was changed; it must
be cheap and do no I/O. An object that `parse` refuses is logged and skipped: what was last understood of it stays until
it is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from sessionpools.core.backoff import doubled
from sessionpools.kube.protocol import Gone, Json, KubeApi, KubeError, Resource, TooManyRequests, WatchEvent

T = TypeVar("T")
Key = tuple[str, str]  # namespace ("" if there is none), name

PAGE: Final = 500
# The server ends a watch after about this long; the spread keeps reflectors that began together from ending together.
WATCH_SECONDS: Final = (240, 360)
# The next watch that ends after about this long is followed by a list. Of 10,000 pods that is 20 pages.
RELIST_SECONDS: Final = (900, 1500)
BACKOFF_FIRST_SECONDS: Final = 0.5
# What was not reached for long is decided about blindly for so long after it is back.
BACKOFF_MOST_SECONDS: Final = 10.0
# A watch that ends sooner than this without a word is a failure in disguise: without a pause it would be a hot loop.
SHORT_WATCH_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: str
    parsed: T


@dataclass(slots=True)
class _Scope(Generic[T]):
    """One list and watch: of one namespace, or of all of them (None)."""

    namespace: str | None
    last_seen: float
    version: str = ""  # "" means: list
    list_at: float = 0.0  # at the latest
    entries: dict[Key, _Entry[T]] = field(default_factory=dict)
    listed: bool = False
    relisted: bool = False  # since the failures began
    failures: int = 0
    trouble: str = ""  # what was last logged, so that a lasting failure is logged once


class Reflector(Generic[T]):
    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        parse: Callable[[Json], T],
        on_change: Callable[[T | None, T | None], None],
        namespaces: Sequence[str] | None = None,
        label_selector: str = "",
        *,
        field_selector: str = "",
        ignored: Collection[str] = (),
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if namespaces is not None and not namespaces:
            raise ValueError("namespaces: name at least one, or say None for all of them")
        self.resource = resource
        self.synced = asyncio.Event()  # set after the first complete list of every namespace
        self._api = api
        self._parse = parse
        self._on_change = on_change
        self._selector = label_selector
        self._field_selector = field_selector
        self._ignored = frozenset(ignored)
        self._rng = rng or random.Random()  # noqa: S311  jitter
        self._sleep = sleep
        self._clock = clock
        scopes = [None] if namespaces is None else list(dict.fromkeys(namespaces))
        self._scopes: dict[str | None, _Scope[T]] = {name: _Scope(name, clock()) for name in scopes}

    def get(self, namespace: str, name: str) -> T | None:
        scope = self._scopes.get(None) or self._scopes.get(namespace)
        entry = scope.entries.get((namespace, name)) if scope else None
        return entry.parsed if entry else None

    def values(self) -> Iterator[T]:
        """Everything that is held. Do not await while iterating."""
        return (entry.parsed for scope in self._scopes.values() for entry in scope.entries.values())

    def __len__(self) -> int:
        return sum(len(scope.entries) for scope in self._scopes.values())

    @property
    def last_seen(self) -> float:
        return min(scope.last_seen for scope in self._scopes.values())

    async def run(self) -> None:
        """Keep the copy true until cancelled. Nothing that the API server says or does ends it."""
        async with asyncio.TaskGroup() as follow:
            for scope in self._scopes.values():
                follow.create_task(self._follow(scope))

    async def _follow(self, scope: _Scope[T]) -> None:
        while True:
            try:
                if not scope.version or self._clock() >= scope.list_at:
                    await self._list(scope)
                await self._watch(scope)
            except KubeError as error:
                if isinstance(error, Gone):
                    if scope.version and not scope.relisted:  # the API server is well; it only restarted, say
                        scope.failures = 0
                    scope.version = ""
                await self._back_off(scope, error)
            except Exception as error:  # an answer of a shape that no API server gives; a list puts everything right
                _log.exception("watch failed", extra=self._fields(scope))
                scope.version = ""
                await self._back_off(scope, KubeError(repr(error)))

    async def _back_off(self, scope: _Scope[T], error: KubeError) -> None:
        scope.failures += 1
        if scope.trouble != str(error) and not (isinstance(error, Gone) and scope.failures == 1):
            scope.trouble = str(error)
            _log.warning("watch interrupted", extra=self._fields(scope) | {"error": scope.trouble})
        delay = doubled(BACKOFF_FIRST_SECONDS, BACKOFF_MOST_SECONDS, scope.failures - 1)
        delay *= self._rng.uniform(0.5, 1.0)
        if isinstance(error, TooManyRequests):
            delay = max(delay, error.retry_after)
        await self._sleep(delay)

    def _alive(self, scope: _Scope[T]) -> None:
        scope.last_seen = self._clock()

    def _progress(self, scope: _Scope[T], version: str) -> None:
        """The watch delivers again: the next failure is a new one."""
        self._alive(scope)
        scope.version = version or scope.version
        scope.relisted = False
        scope.failures = 0
        if scope.trouble:
            scope.trouble = ""
            _log.info("watch resumed", extra=self._fields(scope))

    # --- list -------------------------------------------------------------------------------------------------------

    async def _list(self, scope: _Scope[T]) -> None:
        token = version = ""
        found: dict[Key, _Entry[T]] = {}
        while True:
            page = await self._api.list_page(
                self.resource,
                namespace=scope.namespace,
                label_selector=self._selector,
                field_selector=self._field_selector,
                limit=PAGE,
                continue_token=token,
            )
            self._alive(scope)
            for body in page.get("items") or ():
                key = _key(body)
                if key[0] in self._ignored:
                    continue
                entry = self._understand(scope, key, body)
                if entry is not None:
                    found[key] = entry
            version = str(page["metadata"]["resourceVersion"])
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._replace(scope, found)
        scope.version = version
        scope.list_at = self._clock() + self._rng.uniform(*RELIST_SECONDS)
        scope.listed = True
        scope.relisted = scope.failures > 0
        if all(each.listed for each in self._scopes.values()):
            self.synced.set()

    def _replace(self, scope: _Scope[T], found: dict[Key, _Entry[T]]) -> None:
        for key in [key for key in scope.entries if key not in found]:
            self._remove(scope, key)
        for key, entry in found.items():
            self._put(scope, key, entry)

    # --- watch ------------------------------------------------------------------------------------------------------

    async def _watch(self, scope: _Scope[T]) -> None:
        began = self._clock()
        heard = False
        events = self._api.watch(
            self.resource,
            namespace=scope.namespace,
            label_selector=self._selector,
            field_selector=self._field_selector,
            resource_version=scope.version,
            timeout_seconds=self._rng.randint(*WATCH_SECONDS),
        )
        async with contextlib.aclosing(events):
            async for event in events:
                heard = True
                self._apply(scope, event)
        if not heard and self._clock() - began < SHORT_WATCH_SECONDS:
            raise KubeError(f"the watch of {self.resource} ended as soon as it had begun")
        self._progress(scope, "")

    def _apply(self, scope: _Scope[T], event: WatchEvent) -> None:
        version = event.resource_version
        # What is not newer was said before: a quiet server's bookmark, or a proxy that repeats itself.
        news = _is_newer(version, scope.version)
        if news and event.type != "BOOKMARK":
            key = _key(event.object)
            if key[0] in self._ignored:
                pass
            elif event.type == "DELETED":
                self._remove(scope, key)
            else:
                entry = self._understand(scope, key, event.object)
                if entry is not None:
                    self._put(scope, key, entry)
        self._progress(scope, version if news else "")

    # --- the copy ---------------------------------------------------------------------------------------------------

    def _understand(self, scope: _Scope[T], key: Key, body: Json) -> _Entry[T] | None:
        """What `parse` makes of it; if it refuses, what is held of this same object; None if nothing is."""
        meta = body["metadata"]
        uid, version = str(meta.get("uid", "")), str(meta.get("resourceVersion", ""))
        held = scope.entries.get(key)
        if held is not None and (held.uid, held.version) == (uid, version):
            return held
        try:
            return _Entry(uid, version, self._parse(body))
        except Exception as error:  # whatever it is, the other objects must not suffer
            _log.exception("object not understood", extra=self._fields(scope) | {"object": key, "error": repr(error)})
            return held if held is not None and held.uid == uid else None

    def _put(self, scope: _Scope[T], key: Key, entry: _Entry[T]) -> None:
        held = scope.entries.get(key)
        if held is entry or (held is not None and (held.uid, held.version) == (entry.uid, entry.version)):
            return
        if held is not None and held.uid != entry.uid:  # deleted and created again, unseen
            self._remove(scope, key)
            held = None
        scope.entries[key] = entry
        self._tell(scope, key, held.parsed if held else None, entry.parsed)

    def _remove(self, scope: _Scope[T], key: Key) -> None:
        held = scope.entries.pop(key, None)
        if held is not None:
            self._tell(scope, key, held.parsed, None)

    def _tell(self, scope: _Scope[T], key: Key, old: T | None, new: T | None) -> None:
        try:
            self._on_change(old, new)
        except Exception:  # a bug over one object must not blind the controller to all others
            _log.exception("change not handled", extra=self._fields(scope) | {"object": key})

    def _fields(self, scope: _Scope[T]) -> dict[str, object]:
        return {"resource": str(self.resource), "namespace": scope.namespace or ""}


def _key(body: Json) -> Key:
    meta = body["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _is_newer(version: str, than: str) -> bool:
    """Kubernetes' own resourceVersions are numbers that grow; from a server whose are not, everything is news."""
    try:
        return int(version) > int(than)
    except ValueError:
        return True
