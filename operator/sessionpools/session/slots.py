"""Slots and the sessions in them as the supervisor sees them, and what is to be done with a slot: decisions only.

No I/O, no clock: the supervisor asks and acts. A slot outlives its sessions and keeps its listening socket open.
"""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field

from sessionpools.session.channel import Channel
from sessionpools.session.config import Settings
from sessionpools.session.state import Row

_BACK_OFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # before the next session, by failures to start in a row
STARTS_BEFORE_FAILURE = 3  # of one slot before Ready; then the pod fails
CALLER_GONE = "caller gone"  # why a session ended
# Killed at the request timeout only so much later: the gateway's own timeout answers 504 first.
REQUEST_MARGIN_SECONDS = 1.0


@dataclass
class Session:
    """One session from the order to fork it until its end is known."""

    slot: int
    channel: Channel
    started_at: float
    activated: bool  # a connection came on an empty slot
    pid: int = 0  # 0 until the template, or the session itself, has told
    own_process: bool = False  # loads for itself; not a fork
    was_spare: bool = False  # forked ahead of need
    phase: str = "starting"
    serving: bool = False  # it has said that it accepts requests
    answered: bool = False  # the warm-up call over its slot, or none is needed
    draining: bool = False
    kill_reason: str = ""  # why the supervisor killed it
    end_reason: str = ""  # why it says that it ended
    failure: tuple[str, str] | None = None  # summary and details of what kept it from starting
    memory_bytes: int = 0
    memory_at: float = float("-inf")  # when that was measured


@dataclass
class Slot:
    number: int
    port: int
    listener: socket.socket
    row: Row
    session: Session | None = None
    started: int = 0  # sessions so far
    last_end: str = ""
    failures: int = 0  # sessions in a row that ended before they served
    retry_at: float = 0.0
    handover: list[int] = field(default_factory=list)  # connections that the last session left, until the next serves


class Action(enum.Enum):
    NOTHING = "nothing"
    FILL = "fill"  # start a session
    WATCH = "watch"  # start one when a connection comes
    DRAIN = "drain"  # tell the session to end when its callers are answered
    CLOSE = "close"  # close the listening socket and forget the slot


def decide(slot: Slot, settings: Settings, *, can_start: bool, draining: bool, now: float) -> Action:
    """What is to be done with a slot now."""
    session = slot.session
    if draining or slot.number >= settings.max_pool_size:
        if session is None:
            return Action.CLOSE
        return Action.NOTHING if session.draining else Action.DRAIN
    if session is not None or not can_start or now < slot.retry_at:
        return Action.NOTHING
    if slot.number < settings.initial_pool_size or slot.handover:
        return Action.FILL
    return Action.WATCH


def back_off_seconds(failures: int) -> float:
    return _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]


def seconds_until_overdue(busy_since_ns: int, now_ns: int, settings: Settings) -> float:
    """How long the request that runs since then may still run; negative when it must be ended."""
    allowed = settings.request_timeout_seconds + REQUEST_MARGIN_SECONDS
    return allowed - (now_ns - busy_since_ns) / 1e9


def may_retire(slot: Slot, idle_seconds: float, settings: Settings) -> bool:
    """Whether the idle session of a slot above the initial size has been unused for long enough."""
    return slot.number >= settings.initial_pool_size and idle_seconds >= settings.idle_timeout_seconds
