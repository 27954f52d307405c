"""Spare sessions: forked ahead of need, so that the next slots to be filled do not wait for a fork.

A session in all but its slot: its limits, its random streams and the hook `after_fork` are behind it, and it waits
for an order that names a slot. It is no session of the pod until it has one. A pod has one spare, and more when it has
many slots, for bursts. Never needed: without one, a slot is filled by a fork. Called by the supervisor only.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from sessionpools.session import linux
from sessionpools.session.channel import (
    SPARE,
    BadMessageError,
    Channel,
    ChannelClosedError,
    ChannelFullError,
    Message,
)
from sessionpools.session.keeper import SlotKeeper
from sessionpools.session.log import Log
from sessionpools.session.loop import Loop, Timer
from sessionpools.session.slots import back_off_seconds

# After the last start of a session: its first caller, and the others of a burst, come first.
_DELAY_SECONDS: Final = 0.03
# Room below the container's memory limit that is left to sessions; more to make one, so that it does not come and go.
_LEAST_ROOM_BYTES: Final = 32 << 20
_ROOM_TO_MAKE_BYTES: Final = 64 << 20
# A spare for pods with so many slots, and one more from each of the next numbers on. One is 3 MB, with numpy, pandas
# and scikit-learn, and saves 15 ms of a refill and 5 ms of a burst on two processors.
_LEAST_SLOTS: Final = (1, 4, 8)


class Host(Protocol):
    """What this needs of the supervisor."""

    def can_fork(self) -> bool:
        """Whether there is a template that forks, in a pod that is ready and does not drain."""

    def fork(self, slot: int, slots: int, fds: list[int]) -> None:
        """Order a session with the memory of one of so many. Raises ChannelError's."""


class Spares:
    """All of a pod's."""

    def __init__(self, loop: Loop, log: Log, keeper: SlotKeeper, cgroup: linux.MemoryCgroup, host: Host) -> None:
        self._all = [
            Spare(loop, log, keeper, cgroup, host, SPARE - number, least) for number, least in enumerate(_LEAST_SLOTS)
        ]

    @property
    def pids(self) -> set[int]:
        return {spare.pid for spare in self._all} - {0}

    def plan(self) -> None:
        """A session has started: make what is missing when it is quiet."""
        for spare in self._all:
            spare.plan()

    def tick(self) -> None:
        """Once a second: see that there are as many as there should be."""
        for spare in self._all:
            spare.tick()

    def serve(self, slot: int, fds: list[int]) -> int:
        """Give a slot to one of them: the pid of what is that slot's session now, or 0 when there is none."""
        return next((pid for spare in self._all if (pid := spare.serve(slot, fds))), 0)

    def drop(self) -> None:
        """End them all."""
        for spare in self._all:
            spare.drop()

    def exited(self, pid: int, status: int) -> bool:
        """The template tells of an end: whether it was a spare's."""
        return any(spare.exited(pid, status) for spare in self._all)


class Spare:
    """One of them, while the pod has a template that forks, and `least_slots`. It is ordered by the number `slot`."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        keeper: SlotKeeper,
        cgroup: linux.MemoryCgroup,
        host: Host,
        slot: int = SPARE,
        least_slots: int = 1,
    ) -> None:
        self._slot = slot
        self._least_slots = least_slots
        self._loop = loop
        self._log = log
        self._keeper = keeper
        self._cgroup = cgroup
        self._host = host
        self._channel: Channel | None = None  # to the spare; None while there is none
        self._waiting = False  # for a slot: it is usable
        self._slots = 0  # its memory limit is that of one of so many
        self._reason = ""  # why it says that it ends
        self._ordered_at = 0.0
        self._failures = 0  # in a row, without one that took a slot
        self._not_before = 0.0
        self._timer: Timer | None = None
        self.pid = 0  # 0 until it has told

    def plan(self) -> None:
        """A session has started: make a spare when it is quiet."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_DELAY_SECONDS, self._make)

    def tick(self) -> None:
        """Once a second: see that there is one, or that there is none."""
        limit = self._keeper.settings.start_timeout_seconds
        if self._channel is not None:
            if not self._is_wanted() or self._is_outdated():
                self.drop()
            elif self._room_below(_LEAST_ROOM_BYTES):
                self._log("spare-dropped", pid=self.pid, reason="memory is short")
                self.drop()
            elif not self._waiting and self._loop.now() - self._ordered_at > limit:
                self._failed(f"start took longer than {limit:g} s")
        if self._channel is None:
            self._make()

    def serve(self, slot: int, fds: list[int]) -> int:
        """Give it a slot: the pid of what is that slot's session now, or 0 when there is none to give it to."""
        channel, pid = self._channel, self.pid
        if channel is None or not self._waiting:
            return 0
        if self._is_outdated():
            self.drop()
            return 0
        try:
            channel.send({"serve": slot}, fds)
        except (ChannelClosedError, ChannelFullError):
            return 0  # it has just ended, which is about to be told
        self._failures = 0
        self._forget()
        return pid

    def drop(self) -> None:
        """End it, if there is one."""
        self._hear()  # it may have told its pid just before
        if self.pid:
            linux.kill_group(self.pid)
        self._forget()

    def exited(self, pid: int, status: int) -> bool:
        """The template tells of an end: whether it was the spare's."""
        self._hear()  # its last words
        if not pid or pid != self.pid:
            return False
        self.pid = 0  # not to be killed any more
        out_of_memory = self._keeper.killed_for_memory(status)
        self._failed(self._reason or ("OOMKilled" if out_of_memory else linux.describe_status(status)))
        return True

    # --- making one -------------------------------------------------------------------------------------------------

    def _is_wanted(self) -> bool:
        return self._keeper.settings.max_pool_size >= self._least_slots and self._host.can_fork()

    def _is_outdated(self) -> bool:
        return self._slots != self._keeper.settings.max_pool_size

    def _make(self) -> None:
        if self._channel is not None or self._loop.now() < self._not_before or not self._is_wanted():
            return
        if any(not session.serving for session in self._keeper.sessions()) or self._room_below(_ROOM_TO_MAKE_BYTES):
            return  # later: when that has started, or at a tick
        try:
            ours, theirs = Channel.pair()
        except OSError:  # no descriptors
            return
        self._slots = self._keeper.settings.max_pool_size
        try:
            self._host.fork(self._slot, self._slots, [theirs.fileno()])
        except (ChannelClosedError, ChannelFullError):
            ours.close()
            return
        finally:
            theirs.close()
        self._channel, self._ordered_at = ours, self._loop.now()
        self._loop.readable(ours.fileno(), self._hear)

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                received = self._channel.receive()
                if received is None:
                    return
                self._note(*received)
            except ChannelClosedError:
                self._closed(self._channel)
                return
            except (BadMessageError, KeyError, TypeError, ValueError):
                self._failed("sent what is no message")  # the code wrote into its channel

    def _note(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        if "pid" in message and not self.pid:
            self.pid = int(message["pid"])
        if "failed" in message:
            self._reason = str(message["failed"]["summary"])
        if message.get("spare"):
            self._waiting = True

    def _closed(self, channel: Channel) -> None:
        self._loop.forget(channel.fileno())
        self._waiting = False
        self._ordered_at = self._loop.now()
        if not self.pid:
            self._failed("not forked")
        # else how it ended is about to be told

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._not_before = self._loop.now() + back_off_seconds(self._failures)
        self._log("spare-failed", level="warning", pid=self.pid, reason=reason)
        if self.pid:
            linux.kill_group(self.pid)
        self._forget()

    def _forget(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel.fileno())
            self._channel.close()
        self._channel, self.pid, self._waiting, self._reason = None, 0, False, ""

    def _room_below(self, least_bytes: int) -> bool:
        room = self._cgroup.room_bytes()
        return room is not None and room < least_bytes
