"""What is known of a batch, and how it changes: a frozen record and plain functions, no I/O and no clock.

A batch's record is one object of the store. Whoever works on it writes each change by compare-and-swap, so that of two
who think that the batch is theirs one loses with its next step. An item is in exactly one of five places:

    waiting    nobody has it: `next` and all after it, and those in `free`
    claimed    the holder may send it, or has: it was claimed, durably, before anything was sent
    settled    its result is in one of the segments, or behind the record
    lost       it was claimed by a holder that is gone: it may have run or not, and nobody will send it again
    dropped    the batch was given up before anybody claimed it

Only the holder sends, only what it has claimed itself, and no claim leads back to `waiting` but by a holder that knows
that the call did not run. That is why no item is sent twice, whatever dies or stands still in between; no clock has a
part in it. The holder's token goes up with each holder, and is in the names of the segments it writes.

Results are behind the record in the same object while they are few, so that a claim, the results since the last one and
the renewal of the lease are one write; what is more goes into segments, which never change.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

import orjson

__all__ = ["MAX_CLAIM", "Service", "State", "claim_count", "expired", "given_up"]

MAX_CLAIM: Final = 1000  # what a replica that dies can leave behind as lost, and what a record holds one by one
# How much work is claimed ahead. A replica that dies leaves that much behind as lost; half of it is the time between
# two writes of a batch of short calls.
_CLAIM_AHEAD_SECONDS: Final = 0.5
RESULTS_SECONDS: Final = 7 * 86_400.0  # how long results are kept, and how long a batch may take to begin its items


@dataclass(frozen=True, slots=True)
class Service:
    """Which web service, as it was published."""

    namespace: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class State:
    """A batch's record. Items are numbered from 0; times are seconds since the epoch."""

    id: str
    service: Service
    owner: str
    total: int
    parallel: int  # calls at a time
    created: float
    next: int = 0  # this item and those after it were never claimed
    free: tuple[int, ...] = ()  # items before `next` that wait again: they did not run
    claimed: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    segments: tuple[str, ...] = ()  # names of the objects with the results, in the order of writing
    result_bytes: int = 0  # of all results
    holder: str = ""  # "" is nobody: anybody may take it
    token: int = 0
    number: int = 0  # one more with each write: no two records of a batch are equal
    finished: float = 0.0  # 0: not yet
    deleted: bool = False

    @property
    def waiting(self) -> int:
        """Items that nobody has claimed."""
        return self.total - self.next + len(self.free)

    @property
    def completed(self) -> int:
        """Items about which all is known that ever will be."""
        if self.finished:
            return self.total
        return self.next - len(self.free) - len(self.claimed)

    @property
    def word(self) -> str:
        """The state as the REST API calls it: pending, inProgress or complete."""
        if self.finished:
            return "complete"
        return "inProgress" if self.next else "pending"

    def dump(self, tail: bytes = b"") -> bytes:
        """The object's content: the record, and lines of results that are in no segment."""
        return orjson.dumps(asdict(self)) + b"\n" + tail

    @classmethod
    def parse(cls, data: bytes) -> tuple[State, bytes]:
        """The reverse of `dump`; members that a later version has added are left out. Raises ValueError."""
        line, _, tail = data.partition(b"\n")
        try:
            raw: dict[str, Any] = orjson.loads(line)
            members = {each.name: raw[each.name] for each in fields(cls) if each.name in raw}
            members["service"] = Service(**{each.name: raw["service"][each.name] for each in fields(Service)})
            for name in ("free", "claimed", "lost", "segments"):
                members[name] = tuple(members.get(name, ()))
            return cls(**members), tail
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"is no record of a batch: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a holder has to say with its next write."""

    settled: Collection[int] = ()  # their results are written with it
    returned: Collection[int] = ()  # they did not run, and wait again
    segments: Sequence[str] = field(default_factory=tuple)
    result_bytes: int = 0
    claim: int = 0  # so many more


# --- by a holder ----------------------------------------------------------------------------------------------------


def taken(state: State, holder: str) -> State:
    """The batch in the hands of another holder; what the one before had claimed is lost."""
    return _next(
        state,
        holder=holder,
        token=state.token + 1,
        claimed=(),
        lost=tuple(sorted({*state.lost, *state.claimed})),
    )


def advanced(state: State, progress: Progress) -> State:
    """The batch after a piece of work of its holder's, with more items claimed for it, the first that wait."""
    gone = {*progress.settled, *progress.returned}
    free = sorted({*state.free, *progress.returned})
    again, free = free[: progress.claim], free[progress.claim :]
    fresh = range(state.next, min(state.total, state.next + progress.claim - len(again)))
    return _next(
        state,
        next=max(state.next, fresh.stop),
        free=tuple(free),
        claimed=tuple(sorted({*(item for item in state.claimed if item not in gone), *again, *fresh})),
        segments=tuple(progress.segments),
        result_bytes=progress.result_bytes,
    )


def done(state: State) -> bool:
    """Whether nothing is left to claim or to wait for."""
    return not state.waiting and not state.claimed


def finished(state: State, now: float) -> State:
    """The batch at its end; what still waits is dropped."""
    return _next(state, finished=now, holder="")


def released(state: State) -> State:
    """The batch without a holder; what it still has claimed, and can't give back, is lost."""
    return taken(state, "")


# --- by anybody -----------------------------------------------------------------------------------------------------


def deleted(state: State) -> State:
    """The batch, cancelled and to be removed: its holder's next write fails."""
    return _next(state, deleted=True, holder="", token=state.token + 1)


def settled(state: State, item: int) -> bool:
    """Whether the item has a result."""
    return item < state.next and item not in {*state.free, *state.claimed, *state.lost}


def without_result(state: State) -> dict[int, str]:
    """What is said of the items that have no result and never will have one, by item."""
    said = dict.fromkeys(state.lost, LOST)
    if state.finished:
        said |= dict.fromkeys((*state.free, *range(state.next, state.total)), DROPPED)
    return said


def expired(state: State, now: float) -> bool:
    """Whether nobody can want it any more."""
    return state.deleted or bool(state.finished and now - state.finished > RESULTS_SECONDS)


def given_up(state: State, now: float) -> bool:
    """Whether it has taken so long that no more of its items are begun."""
    return now - state.created > RESULTS_SECONDS


def claim_count(idle: int, queued: int, per_second: float) -> int:
    """How many more items to claim with a write now; 0: no write is needed for that.

    `idle` workers have nothing to do, `queued` items are claimed and not begun, `per_second` items have been finished.
    What is claimed lasts for a moment and is filled up when half of it is begun. Not more: each item that is claimed
    and not begun when its replica dies is reported as lost without need.
    """
    wanted = min(idle + int(per_second * _CLAIM_AHEAD_SECONDS), MAX_CLAIM)
    return wanted - queued if queued <= wanted // 2 else 0


LOST: Final = (
    "The outcome of this item is unknown: who made the call stopped before the answer was kept. The item may have run "
    "or not; it is not repeated. Put it into another batch if it may run twice."
)
DROPPED: Final = "This item was not begun within 7 days, in which the service had no session for it; it did not run."


def _next(state: State, **changes: Any) -> State:
    return replace(state, number=state.number + 1, **changes)
