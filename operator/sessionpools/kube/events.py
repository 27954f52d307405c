"""Kubernetes Events: the notes that `kubectl describe` shows under an object. Called by the controller on transitions.

core/v1 Events, not events.k8s.io: `kubectl describe` and `kubectl get events` sort by and show `lastTimestamp` and
`count`, which the newer kind leaves empty. One Event per object and reason, under a name that follows from the two, so
that a controller that was restarted finds the Event of the one before it and counts on. It is written at most once in
five minutes; what happens meanwhile is counted and added to the next write. Events explain, they never carry state: a
failure to write one is logged and forgotten, and nothing waits for it to succeed.
"""

from __future__ import annotations

import hashlib
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from sessionpools.kube.protocol import EVENTS, AlreadyExists, Json, KubeApi, KubeError, NotFound, ObjectRef

WRITE_AT_MOST_EVERY: Final = timedelta(minutes=5)
MESSAGE_CHARACTERS: Final = 1024  # the API server refuses more
REMEMBERED: Final = 4096  # objects and reasons; one that falls out costs a read when it happens again
_NAME_CHARACTERS: Final = 253 - 1 - 16  # of an object's name, before "." and the hash

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Series:
    count: int  # as written
    written: datetime
    unwritten: int = 0


class EventRecorder:
    def __init__(
        self,
        api: KubeApi,
        component: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        instance: str = "",
    ) -> None:
        self._api = api
        self._component = component
        self._instance = instance or socket.gethostname()
        self._clock = clock
        self._series: OrderedDict[str, _Series] = OrderedDict()

    async def record(
        self, regarding: ObjectRef, type: Literal["Normal", "Warning"], reason: str, message: str, action: str
    ) -> None:
        """Say that it happened. Never raises a KubeError."""
        name = event_name(regarding, reason)
        now = self._clock()
        series = self._series.get(name)
        if series is not None and now - series.written < WRITE_AT_MOST_EVERY:
            series.unwritten += 1
            return
        if series is None:
            series = self._series[name] = _Series(0, now)
            if len(self._series) > REMEMBERED:
                self._series.popitem(last=False)
        self._series.move_to_end(name)
        # Before the call, so that whoever records the same meanwhile only counts.
        series.written = now
        happened, series.unwritten = series.unwritten + 1, 0
        try:
            await self._write(name, series, happened, self._body(name, regarding, type, reason, message, action, now))
        except KubeError as error:
            series.unwritten += happened
            _log.warning(
                "event not written",
                extra={
                    "object": regarding.name,
                    "namespace": regarding.namespace,
                    "reason": reason,
                    "error": str(error),
                },
            )

    async def _write(self, name: str, series: _Series, happened: int, body: Json) -> None:
        namespace = body["metadata"]["namespace"]
        if series.count == 0:
            try:
                await self._api.create(EVENTS, body | {"count": happened}, namespace=namespace)
                series.count = happened
                return
            except AlreadyExists:
                former = await self._api.get(EVENTS, name, namespace=namespace)
                series.count = int(former.get("count") or 1)
                last = _parse_time(former.get("lastTimestamp"))
                if last is not None and self._clock() - last < WRITE_AT_MOST_EVERY:
                    series.written, series.unwritten = last, series.unwritten + happened
                    return
        change = {
            "count": series.count + happened,
            "lastTimestamp": body["lastTimestamp"],
            "message": body["message"],
            "type": body["type"],
            "reportingInstance": self._instance,
        }
        try:
            await self._api.merge_patch(EVENTS, name, change, namespace=namespace)
            series.count += happened
        except NotFound:  # Events live for an hour
            await self._api.create(EVENTS, body | {"count": happened}, namespace=namespace)
            series.count = happened

    def _body(
        self, name: str, regarding: ObjectRef, type: str, reason: str, message: str, action: str, now: datetime
    ) -> Json:
        if len(message) > MESSAGE_CHARACTERS:
            message = message[: MESSAGE_CHARACTERS - 1] + "…"
        time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        involved = {
            "apiVersion": regarding.api_version,
            "kind": regarding.kind,
            "name": regarding.name,
            "namespace": regarding.namespace,
            "uid": regarding.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # Events about what has no namespace live in "default"; the API server insists on it.
            "metadata": {"name": name, "namespace": regarding.namespace or "default"},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": type,
            "reason": reason,
            "message": message,
            "action": action,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def event_name(regarding: ObjectRef, reason: str) -> str:
    identity = "\0".join((regarding.kind, regarding.namespace, regarding.name, regarding.uid, reason))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return f"{regarding.name[:_NAME_CHARACTERS].rstrip('-.')}.{digest}"


def _parse_time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
