"""The history of the in-process API server, and the watches that follow it.

A test may hold all watches back (as a watch cache that lags), let them go on, make them lose what they missed, break
their connections, or have them repeat themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from support.apiserver_objects import Json, Matches, Refused, Resource, expired

KEPT: Final = 10_000  # changes that a watch can begin after


@dataclass(frozen=True, slots=True)
class Change:
    """One write, as the history keeps it."""

    version: int
    resource: Resource
    before: Json | None
    after: Json | None
    last: Json  # what a DELETED event shows: the object as it was, at the version of its deletion

    @property
    def type(self) -> str:
        """Of the event that a watch gets which selects everything."""
        if self.before is None:
            return "ADDED"
        return "DELETED" if self.after is None else "MODIFIED"


class Subscription:
    """One open watch: what it selects, and what it has not yet sent."""

    def __init__(self, resource: Resource, matches: Matches, wake: Callable[[], None]) -> None:
        self.resource = resource
        self.waiting: deque[Json] = deque()  # lines of the watch
        self.held: list[Json] = []  # while watches are paused
        self.closed = False  # no more lines; those that wait are still sent
        self.cut = False  # the connection breaks, now
        self.silent = False  # not even bookmarks
        self._matches = matches
        self._wake = wake

    def line(self, change: Change) -> Json | None:
        """The change as this watch sees it; None if it does not."""
        if change.resource != self.resource:
            return None
        before = change.before is not None and self._matches(change.before)
        after = change.after is not None and self._matches(change.after)
        if after:
            return {"type": "MODIFIED" if before else "ADDED", "object": change.after}
        return {"type": "DELETED", "object": change.last} if before else None

    def send(self, lines: Iterable[Json]) -> None:
        self.waiting.extend(lines)
        self._wake()

    def end(self, *, cut: bool = False) -> None:
        self.closed, self.cut = True, cut
        self._wake()


class History:
    def __init__(self, version: int) -> None:
        self.subscriptions: list[Subscription] = []
        self.paused = False
        self._changes: deque[Change] = deque()
        self._compacted = version  # a watch that begins before this is Gone

    def publish(self, change: Change) -> None:
        self._changes.append(change)
        if len(self._changes) > KEPT:
            self._compacted = self._changes.popleft().version
        for subscription in self.subscriptions:
            if line := subscription.line(change):
                self._send(subscription, [line])

    def open(self, subscription: Subscription, after: int, first: list[Json]) -> None:
        """Begin to follow: `first`, then what happened after that version."""
        if after < self._compacted:
            self._end(subscription, expired(f"too old resource version: {after} ({self._compacted})"))
            return
        missed = (subscription.line(change) for change in self._changes if change.version > after)
        self._send(subscription, [*first, *(line for line in missed if line)])
        self.subscriptions.append(subscription)

    def close(self, subscription: Subscription) -> None:
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)

    def compact(self, version: int) -> None:
        self._changes.clear()
        self._compacted = version

    # --- faults -----------------------------------------------------------------------------------------------------

    def resume(self, *, lost: bool) -> None:
        self.paused = False
        for subscription in list(self.subscriptions):
            held, subscription.held = subscription.held, []
            if lost:
                self._end(subscription, expired("too old resource version"))
            else:
                subscription.send(held)

    def cut(self) -> None:
        for subscription in list(self.subscriptions):
            subscription.end(cut=True)
            self.close(subscription)

    def fail(self, error: Refused) -> None:
        for subscription in list(self.subscriptions):
            self._end(subscription, error)

    def mute(self, *, bookmarks: bool) -> None:
        for subscription in list(self.subscriptions):
            subscription.silent = not bookmarks
            self.close(subscription)

    def replay(self, resource: Resource, count: int) -> None:
        """Send the latest `count` changes of `resource` once more."""
        changes = [change for change in self._changes if change.resource == resource][-count:]
        for subscription in self.subscriptions:
            self._send(subscription, [line for line in map(subscription.line, changes) if line])

    def _send(self, subscription: Subscription, lines: Iterable[Json]) -> None:
        if self.paused:
            subscription.held.extend(lines)
        else:
            subscription.send(lines)

    def _end(self, subscription: Subscription, error: Refused) -> None:
        self.close(subscription)
        subscription.send([{"type": "ERROR", "object": error.status()}])
        subscription.end()
