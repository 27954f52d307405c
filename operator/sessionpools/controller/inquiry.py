"""When which session pod of a pool is asked what it does: core.reports says who is worth asking, this says how often.

A pod that does not answer (a network policy, a node that hangs) must not hold up its pool: it is asked again after a
back-off, and reconciliations in between go on with what is known.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.backoff import doubled
from sessionpools.core.model import PodView, SessionReport
from sessionpools.core.reports import reports_wanted
from sessionpools.kube.podclient import PodClient

__all__ = ["Inquiry"]

BACKOFF_AT_MOST_SECONDS = 300.0
AT_ONCE = 64  # pods that are asked in one run: if all of them are silent it takes a second all the same


@dataclass(slots=True)
class Inquiry:
    """What the pods of one pool have said, by uid."""

    reports: dict[str, SessionReport] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)  # for how many seconds, of those that were asked just now
    waited_seconds: float = 0.0  # of processor time, that others took while those answered
    _unanswered: dict[str, int] = field(default_factory=dict)
    _next_at: dict[str, float] = field(default_factory=dict)
    _rested_at: dict[str, float] = field(default_factory=dict)  # when one that may retire can have rested long enough

    async def ask(
        self,
        client: PodClient,
        pool: SessionPool,
        revision: str,
        pods: Sequence[PodView],
        now: float,
        interval: float,
        sessions: Mapping[str, int] | None = None,
        retirable: Sequence[PodView] = (),
    ) -> float | None:
        """Asks those that are worth it and due; returns the seconds until the next one is, or None. `sessions` is as in
        core.reports; `retirable` are asked for how long they have been idle, no sooner than that can be enough."""
        self._forget_all_but({pod.uid for pod in pods})
        wanted = reports_wanted(pool, revision, pods, self.reports, sessions)
        due = {pod.uid: pod for pod in wanted if self._next_at.get(pod.uid, now) <= now}
        due |= {pod.uid: pod for pod in retirable if self._rested_at.get(pod.uid, now) <= now}
        # Who was never asked, or not for longest, comes first: else the last of many would have no turn at all.
        asked = sorted(due.values(), key=lambda pod: self._next_at.get(pod.uid, -math.inf))[:AT_ONCE]
        began = time.thread_time()
        answers = await client.reports(asked)
        self.waited_seconds = time.thread_time() - began
        for pod in asked:
            failures = 0 if pod.uid in answers else self._unanswered.get(pod.uid, 0) + 1
            self._unanswered[pod.uid] = failures
            self._next_at[pod.uid] = now + doubled(interval, BACKOFF_AT_MOST_SECONDS, failures)
        self.reports |= answers
        self.idle = {uid: 0.0 if report.busy_sessions else report.idle_seconds for uid, report in answers.items()}
        for pod in asked:
            rest = pool.spec.idle_timeout_seconds - self.idle.get(pod.uid, 0.0) if pod.uid in answers else 0.0
            self._rested_at[pod.uid] = max(now + rest, self._next_at[pod.uid])
        still = reports_wanted(pool, revision, pods, self.reports, sessions)
        waits = [self._next_at.get(pod.uid, now) - now for pod in still]
        waits += [self._rested_at.get(pod.uid, now) - now for pod in retirable]
        return min(waits, default=None)

    def _forget_all_but(self, uids: set[str]) -> None:
        for known in (self.reports, self._unanswered, self._next_at, self._rested_at):
            for uid in known.keys() - uids:
                del known[uid]
