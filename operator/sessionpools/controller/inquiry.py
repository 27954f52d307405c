"""When which session pod of a pool is asked what it does: core.reports says who is worth asking, this says how often.

A pod that does not answer (a network policy, a node that hangs) must not hold up its pool: it is asked again after a
back-off, and reconciliations in between go on with what is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.model import PodView, SessionReport
from sessionpools.core.reports import reports_wanted
from sessionpools.kube.podclient import PodClient

__all__ = ["Inquiry"]

BACKOFF_AT_MOST_SECONDS = 300.0
AT_ONCE = 16  # pods that are asked in one run: if all of them are silent it takes a second


@dataclass(slots=True)
class Inquiry:
    """What the pods of one pool have said, by uid."""

    reports: dict[str, SessionReport] = field(default_factory=dict)
    _unanswered: dict[str, int] = field(default_factory=dict)
    _next_at: dict[str, float] = field(default_factory=dict)

    async def ask(
        self,
        client: PodClient,
        pool: SessionPool,
        revision: str,
        pods: Sequence[PodView],
        now: float,
        interval: float,
    ) -> float | None:
        """Asks those that are worth it and due; returns the seconds until the next one is, or None."""
        self._forget_all_but({pod.uid for pod in pods})
        wanted = reports_wanted(pool, revision, pods, self.reports)
        due = [pod for pod in wanted if self._next_at.get(pod.uid, now) <= now][:AT_ONCE]
        answers = await client.reports(due)
        for pod in due:
            failures = 0 if pod.uid in answers else self._unanswered.get(pod.uid, 0) + 1
            self._unanswered[pod.uid] = failures
            self._next_at[pod.uid] = now + min(interval * 2.0**failures, BACKOFF_AT_MOST_SECONDS)
        self.reports |= answers
        still = reports_wanted(pool, revision, pods, self.reports)
        return min((self._next_at.get(pod.uid, now) - now for pod in still), default=None)

    def _forget_all_but(self, uids: set[str]) -> None:
        for known in (self.reports, self._unanswered, self._next_at):
            for uid in known.keys() - uids:
                del known[uid]
