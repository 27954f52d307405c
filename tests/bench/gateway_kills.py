"""Sessions killed under half load through the gateway: which calls fail, and how soon callers are answered by the
session that comes next. Open loop: calls are due whatever has been killed.
"""

import os
import random
import signal
import statistics
import time
from typing import Final

import orjson

from bench import bars, services
from bench.figures import Figure, figure, progress
from bench.gateway import Pool, gateway, slot_of
from bench.open_loop import Call, OpenLoop, Run, percentile
from bench.priority import preferred
from support.runtime_pod import Pod

_SLOTS: Final = 4
_CALL_SECONDS: Final = 0.005
_RATE: Final = _SLOTS / _CALL_SECONDS / 2  # calls a second: half of what the sessions can do
_BETWEEN_KILLS_SECONDS: Final = (0.05, 0.15)
_AT_MOST_SECONDS: Final = 120
_IN_USE_SECONDS: Final = 0.03
_NOTICED_SECONDS: Final = 0.05  # from a kill until its caller knows


class Killer:
    """Kills one of the sessions in use, now and then, whether it has a call or not; what came of it."""

    def __init__(self, pod: Pod, kills: int) -> None:
        self._slots = {int(row["pid"]): int(row["slot"]) for row in pod.view()["sessions"]}
        self._kills = kills
        self._random = random.Random(1)
        self._answered: dict[int, float] = {}  # pid -> when it answered last
        self._killed_at = 0.0  # 0: no kill whose slot has not answered since
        self._killed = 0
        self._next = time.perf_counter() + 0.5
        self.slots: list[int] = []  # that were killed, in order
        self.times: list[float] = []  # of the kills
        self.refills: list[float] = []  # milliseconds

    def done(self) -> bool:
        return len(self.refills) == self._kills

    def step(self, now: float) -> float:
        if self._killed_at:
            return now + 1
        in_use = [pid for pid, at in self._answered.items() if now - at < _IN_USE_SECONDS]
        if now >= self._next and in_use:
            self._killed, self._killed_at = self._random.choice(in_use), time.perf_counter()
            del self._answered[self._killed]
            os.kill(self._killed, signal.SIGKILL)
            self.slots.append(self._slots.pop(self._killed))
            self.times.append(self._killed_at)
            return now + 1
        return self._next

    def watch(self, call: Call) -> None:
        if call.status != 200:
            return
        answer = orjson.loads(call.body)
        pid = int(next(iter(answer["outputParameters"].values())))
        if pid == self._killed:
            return  # answered before the signal came
        self._answered[pid] = call.done
        if pid not in self._slots:
            self._slots[pid] = self.slots[-1]
            # ready when it began with this call; what the call took is not the refill's
            self.refills.append((call.done - call.service - self._killed_at) * 1000)
            self._killed_at = 0.0
            self._next = call.done + self._random.uniform(*_BETWEEN_KILLS_SECONDS)


def measure(quick: bool) -> list[Figure]:
    kills = 5 if quick else 50
    with services.session_pod(services.sleeper(), _SLOTS) as pod:
        pool = Pool(pod, _SLOTS)
        with gateway(pool) as front, preferred([*front.pids, *services.pids(pod)]):
            progress(f"gateway-kills: {kills} kills, {_SLOTS} sessions, {_RATE:g} calls a second")
            killer = Killer(pod, kills)
            inputs = {"seconds": _CALL_SECONDS}
            loop = OpenLoop(front.server(pool), inputs, _RATE, watch=killer.watch, step=killer.step)
            run = loop.run(_AT_MOST_SECONDS, until=killer.done)
            time.sleep(0.2)  # the last log lines
            slots = {line["requestId"]: slot_of(line) for line in front.log_lines()}
    if not killer.done():
        raise RuntimeError(f"only {len(killer.refills)} of {kills} killed sessions were followed by an answer")
    own, elsewhere, unanswered = _failures(run, killer, slots)
    answered = [call.milliseconds for call in run.calls if call.status == 200]
    progress(f"gateway-kills: {len(run.calls)} calls, {sum(own)} failed with their session, {elsewhere} elsewhere")
    return [
        figure(bars.GATEWAY_REFILL_MEDIAN, statistics.median(killer.refills), "ms", killer.refills),
        figure(bars.GATEWAY_REFILL_WORST, max(killer.refills), "ms"),
        figure(bars.GATEWAY_FAILED_ELSEWHERE, elsewhere, "requests"),
        figure(bars.GATEWAY_FAILED_OWN, max(own), "requests"),
        figure(bars.GATEWAY_UNANSWERED, unanswered, "requests"),
        figure("gateway: calls that failed with their session, of all kills", sum(own), "requests"),
        figure("gateway: p99 of the calls that were answered during the kills", percentile(answered, 99), "ms"),
        figure("gateway: slowest of the calls that were answered during the kills", max(answered), "ms"),
    ]


def _failures(run: Run, killer: Killer, slots: dict[str, int]) -> tuple[list[int], int, int]:
    """How many calls failed by each kill; how many that no kill explains; how many got no answer, of all of them.

    A kill explains a call that was under way in its slot. Where the gateway has written no log line, and so told no
    slot, it explains one that was under way and ended with it."""
    own, elsewhere, unanswered = [0] * len(killer.times), 0, 0
    for call in run.calls:
        if call.status == 200:
            continue
        unanswered += not call.status
        kill = sum(at <= call.done for at in killer.times) - 1
        same_slot = slots.get(call.id, killer.slots[kill]) == killer.slots[kill]
        ended_with_it = call.sent <= killer.times[kill] and call.done - killer.times[kill] < _NOTICED_SECONDS
        if kill >= 0 and call.status in (0, 502) and same_slot and (call.id in slots or ended_with_it):
            own[kill] += 1
        else:
            progress(f"gateway-kills: {call.status} in slot {slots.get(call.id)}, after {call.milliseconds:.1f} ms")
            elsewhere += 1
    return own, elsewhere, unanswered
