"""Who of several like processes acts: leader election over one Lease, as client-go's LeaseLock does it.

A contender that finds the Lease free, released or expired writes its identity into it, with the resourceVersion that
it has read as the lock: of two, the API server takes one. The holder renews it every `renew_seconds`. Whether another's
record has expired is judged by the local monotonic clock alone, by how long it was seen unchanged: times in a record
are for people, as no two machines' clocks agree. Two things are added to client-go's way:

- Only time in which the record was read counts (of a gap between two reads, at most `renew_seconds`). After an outage
  of the API server the holder so has the time to renew before anyone believes that it has gone.
- `keep_when_unreachable`. False, for who writes to the API server: a holder that could not renew for two thirds of
  the lease stops, at the latest a third of the lease before another may begin; two never lead at once. True, for who
  serves callers without the API server: a holder stops only when it reads that another holds the Lease.

On cancellation the Lease is released (its holder emptied), so that another takes it at its next look.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from sessionpools.kube.protocol import LEASES, Conflict, Json, KubeApi, KubeError, NotFound

__all__ = ["Election", "Record"]

_log = logging.getLogger(__name__)

# Parts of the lease. client-go's defaults have the same proportions: 15 s, 10 s, a call of at most 5 s.
_RENEW_WITHIN: Final = 2 / 3
_CALL_AT_MOST: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class Record:
    """A Lease's spec."""

    holder: str = ""  # "" is nobody: released
    seconds: int = 1  # how long it holds after it was last renewed
    acquired: str = ""  # RFC 3339 with microseconds, by the holder's clock: never compared with ours
    renewed: str = ""
    transitions: int = 0

    @classmethod
    def parse(cls, lease: Json) -> Record:
        spec = lease.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            seconds=int(spec.get("leaseDurationSeconds") or 1),
            acquired=spec.get("acquireTime") or "",
            renewed=spec.get("renewTime") or "",
            transitions=int(spec.get("leaseTransitions") or 0),
        )

    def spec(self) -> Json:
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.seconds,
            "acquireTime": self.acquired or None,
            "renewTime": self.renewed or None,
            "leaseTransitions": self.transitions,
        }

    def taken(self, identity: str, seconds: int, now: str) -> Record:
        """What `identity` writes to get or to keep it."""
        if self.holder == identity:
            return replace(self, seconds=seconds, renewed=now)
        return Record(identity, seconds, now, now, self.transitions + 1)

    def released(self, now: str) -> Record:
        return Record("", 1, now, now, self.transitions)


class Election:
    """One contender. Times are in seconds; `identity` must be its own alone, such as its pod's name.

    `poll_seconds` is how often a contender looks (default: `renew_seconds`). While `fit()` is false it does not
    contend, and releases what it holds. `holder_is_gone(identity)` may know that a holder exists no longer, a pod that
    was deleted for one: its Lease is then taken before it expires.
    """

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        lease_seconds: float,
        renew_seconds: float,
        keep_when_unreachable: bool,
        poll_seconds: float = 0.0,
        labels: Mapping[str, str] | None = None,
        fit: Callable[[], bool] = lambda: True,
        holder_is_gone: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not identity:
            raise ValueError("identity: two contenders without a name would both believe that they hold the lease")
        if not 0 < renew_seconds <= lease_seconds / 3:
            raise ValueError("renew_seconds: at most a third of lease_seconds, so that one renewal may fail")
        self.identity = identity
        self._api = api
        self._namespace = namespace
        self._name = name
        self._seconds = math.ceil(lease_seconds)
        self._renew_every = renew_seconds
        self._renew_within = lease_seconds * _RENEW_WITHIN
        self._call_at_most = lease_seconds * _CALL_AT_MOST
        self._keep = keep_when_unreachable
        self._poll = poll_seconds or renew_seconds
        self._labels = dict(labels or {})
        self._fit = fit
        self._gone = holder_is_gone
        self._clock = clock

        self._told = False  # what on_change was last told
        self._leads = False
        self._renewed_at = -math.inf  # when the last renewal that was accepted was sent
        self._unsure = False  # a write of ours has no answer: the Lease may name us
        self._record: Record | None = None  # as last read or written
        self._version = ""
        self._read_at = -math.inf
        self._unchanged = 0.0  # how long another's record was seen to be the same
        self._trouble = ""

    @property
    def leading(self) -> bool:
        """Whether this one may act now. Asked of the clock: right even when the event loop stood still meanwhile."""
        return self._leads and (self._keep or self._clock() < self._renewed_at + self._renew_within)

    @property
    def holder(self) -> str:
        """Who held it when it was last read; "" is nobody, or not known yet."""
        return self._record.holder if self._record else ""

    async def run(self, on_change: Callable[[bool], None]) -> None:
        """Contend until cancelled, then release. `on_change(leading)` is called at each change; it must not wait."""
        try:
            while True:
                delay = await self._turn(on_change)
                self._tell(on_change)
                await asyncio.sleep(min(delay, self._may_lead_for()))
        finally:
            self._leads, held = False, self._leads or self._unsure
            self._tell(on_change)  # first, so that this one has stopped before another begins
            if held:
                await self._release()

    def _tell(self, on_change: Callable[[bool], None]) -> None:
        leading = self.leading
        if leading == self._told:
            return
        self._told = leading
        _log.info("leading" if leading else "not leading", extra=self._fields())
        on_change(leading)

    # --- one turn ---------------------------------------------------------------------------------------------------

    async def _turn(self, on_change: Callable[[bool], None]) -> float:
        """Do what is due; when to come again."""
        if self._leads and not self.leading:
            self._leads = False
            self._tell(on_change)
        if not self._fit():
            if self._leads or self._unsure:
                self._leads, self._unsure = False, True
                self._tell(on_change)
                await self._release()
            return self._poll
        due = self._renewed_at + self._renew_every - self._clock() if self._leads else 0.0
        if due > 0:
            return min(due, self._poll)
        try:
            await self._contend()
        except (KubeError, TimeoutError) as error:
            self._failed(error)
            return self._poll
        self._trouble = ""
        if self._leads or not self._record or not self._record.holder:
            return self._poll
        return min(self._poll, max(self._record.seconds - self._unchanged, 0.01))

    def _may_lead_for(self) -> float:
        """How long this one leads without another renewal; for who does not lead, there is no such limit."""
        if not self._leads or self._keep:
            return math.inf
        return max(self._renewed_at + self._renew_within - self._clock(), 0.0)

    def _in_time(self) -> asyncio.Timeout:
        """Round one call: it ends with TimeoutError while there is time for another, or when this one leads no more."""
        return asyncio.timeout(min(self._call_at_most, self._may_lead_for()))

    async def _contend(self) -> None:
        if self._leads and self._record is not None and not self._unsure:
            try:  # nobody else has written since, most likely
                return await self._take(self._record)
            except (Conflict, NotFound):
                pass
        record = await self._read()
        if record is None:
            return await self._take(None)
        if record.holder in ("", self.identity) or self._unchanged >= record.seconds or self._gone(record.holder):
            return await self._take(record)
        self._leads = self._unsure = False
        return None

    async def _read(self) -> Record | None:
        try:
            async with self._in_time():
                lease = await self._api.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            self._record, self._version, self._unchanged = None, "", 0.0
            return None
        now, record = self._clock(), Record.parse(lease)
        if record == self._record:
            self._unchanged += min(now - self._read_at, self._renew_every)
        else:
            self._unchanged = 0.0
        self._read_at = now
        self._record, self._version = record, lease["metadata"]["resourceVersion"]
        return record

    async def _take(self, record: Record | None) -> None:
        """Write our identity; lose to whoever has written since (no error: the next look shows who it was)."""
        wanted = (record or Record(transitions=-1)).taken(self.identity, self._seconds, _now())
        sent, self._unsure = self._clock(), True
        try:
            if record is None:
                lease = await self._create(wanted)
            else:
                lease = await self._patch(wanted)
        except Conflict:
            self._unsure = False
            if self._leads:
                raise
            return
        self._unsure = False
        self._record, self._version, self._unchanged = Record.parse(lease), lease["metadata"]["resourceVersion"], 0.0
        self._leads, self._renewed_at = True, sent

    async def _create(self, record: Record) -> Json:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace, "labels": self._labels},
            "spec": record.spec(),
        }
        async with self._in_time():
            return await self._api.create(LEASES, body, namespace=self._namespace)

    async def _patch(self, record: Record) -> Json:
        body = {"metadata": {"resourceVersion": self._version}, "spec": record.spec()}
        async with self._in_time():
            return await self._api.merge_patch(LEASES, self._name, body, namespace=self._namespace)

    # --- release ----------------------------------------------------------------------------------------------------

    async def _release(self) -> None:
        """Empty the holder. Failing that, another takes the Lease when it has expired."""
        try:
            if self._record is None or self._record.holder != self.identity or not await self._emptied():
                record = await self._read()
                if record is not None and record.holder == self.identity:
                    await self._emptied()
            self._unsure = False
        except (KubeError, TimeoutError) as error:
            _log.warning("lease not released", extra=self._fields() | {"error": str(error) or "timed out"})

    async def _emptied(self) -> bool:
        assert self._record is not None  # noqa: S101  its callers have read it
        try:
            lease = await self._patch(self._record.released(_now()))
        except (Conflict, NotFound):
            return False
        self._record, self._version = Record.parse(lease), lease["metadata"]["resourceVersion"]
        return True

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _failed(self, error: KubeError | TimeoutError) -> None:
        if isinstance(error, Conflict):
            return  # the next look, in a moment, shows who it was
        trouble = str(error) or "the API server does not answer in time"
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("lease not reached", extra=self._fields() | {"error": trouble})

    def _fields(self) -> dict[str, object]:
        return {"lease": self._name, "namespace": self._namespace, "identity": self.identity, "holder": self.holder}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
