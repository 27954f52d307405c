"""On which nodes a pool gets no session pod now, and why: those where one was refused, and those where somebody else
deletes them. Plain decisions; the reconciler keeps the `Holds` of each pool, and losing them costs an attempt a node.

**Refused** by the API server: a quota, pod security, an unknown service account. The node is tried again after a
back-off (`core.backoff`). Such causes are mostly the namespace's and not the node's, so one attempt speaks for all
nodes with the same reason: those wait on when it fails, and are due at once when it does not. The seed of each node's
back-off has the number of failures in it, so that another node goes first each time.

**Deleted young** by somebody else: a cleaner, a preemption by pods of a higher priority, two parties that both own the
pods. The first one is replaced at once, as whoever deletes a session pod wants a new session; those after it wait. What
was deleted in one sweep (a drain) counts once; the series ends when new pods were due for `YOUNG_SECONDS` and none of
them was deleted.

A change of the pool or of its revision ends all of it: what was wrong may be repaired.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sessionpools.core.backoff import Backoff
from sessionpools.core.model import Failure, PodView

__all__ = ["NAMESPACE_TERMINATING", "POD_REFUSED", "QUOTA_EXCEEDED", "YOUNG_SECONDS", "Hold", "Holds", "refusal"]

# Below it a deletion may be one of a series that would churn. Sessions that start in seconds have served by then.
YOUNG_SECONDS: Final = 60.0
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
POD_REFUSED: Final = "PodRefused"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
_DELETED: Final = Failure(
    "PodsDeleted",
    "PodsDeleted: somebody else deletes session pods here soon after they are created; the next one waits. The API "
    "server's audit log tells who, kubectl get events whether pods of a higher priority do",
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a node waits, how often that has happened in a row, and when last (seconds since the epoch)."""

    failure: Failure
    count: int
    at: float


@dataclass(frozen=True, slots=True)
class Holds:
    """Those of one pool, by node name."""

    refused: Mapping[str, Hold] = field(default_factory=dict)
    deleted: Mapping[str, Hold] = field(default_factory=dict)

    def not_before(self, backoff: Backoff, seed: str) -> dict[str, float]:
        """When each node gets the next session pod (seconds since the epoch; infinity: never)."""
        due = {node: hold.at + backoff.seconds(hold.count - 1, seed + node) for node, hold in self.deleted.items()}
        for node, hold in self.refused.items():
            never = hold.failure.reason == NAMESPACE_TERMINATING  # there is no way back from it
            at = math.inf if never else hold.at + backoff.seconds(hold.count, seed + node)
            due[node] = max(at, due.get(node, at))
        return due

    def waiting(self, backoff: Backoff, seed: str, now: float) -> set[str]:
        """The nodes that get no session pod yet."""
        return {node for node, at in self.not_before(backoff, seed).items() if at > now}

    def failures(self, backoff: Backoff, seed: str, now: float) -> dict[str, Failure]:
        """What the nodes' rows say: a refusal until a pod is accepted, a deletion while the next pod waits for it."""
        waiting = self.waiting(backoff, seed, now)
        found = {node: hold.failure for node, hold in self.deleted.items() if node in waiting}
        return found | {node: hold.failure for node, hold in self.refused.items()}

    def of(self, nodes: Collection[str]) -> "Holds":
        """Without those of nodes that are none of the pool's any more."""
        return Holds(
            {node: hold for node, hold in self.refused.items() if node in nodes},
            {node: hold for node, hold in self.deleted.items() if node in nodes},
        )

    def after_creating(
        self, tried: Collection[str], refused: Mapping[str, Failure], waiting: Collection[str], now: float
    ) -> "Holds":
        """Once session pods were created on the nodes `tried`, or were `refused` there, while others were `waiting`.
        Where neither is so no session pod is wanted any more, and what was refused is of no interest."""
        passed = {self.refused[node].failure.reason for node in tried if node in self.refused and node not in refused}
        failed = {failure.reason: 1 for failure in refused.values()}
        for hold in self.refused.values():
            reason = hold.failure.reason
            if reason in failed and reason not in passed:
                failed[reason] = max(failed[reason], hold.count + 1)
        after = {}
        for node, hold in self.refused.items():
            reason = hold.failure.reason
            if reason in failed:
                after[node] = replace(hold, count=failed[reason], at=now)
            elif reason not in passed and node in waiting:
                after[node] = hold
        after = {node: hold for node, hold in after.items() if node not in tried}
        after |= {node: Hold(failure, failed[failure.reason], now) for node, failure in refused.items()}
        return replace(self, refused=after)

    def after_deletions(self, pods: Iterable[PodView], now: float, backoff: Backoff, seed: str) -> "Holds":
        """Once somebody else has deleted these pods; to be asked also when there are none."""
        due = self.not_before(backoff, seed)
        before = {node: hold for node, hold in self.deleted.items() if now - due[node] <= YOUNG_SECONDS}
        after = dict(before)
        for pod in pods:
            hold = before.get(pod.owner.node)
            if now - pod.created_at >= YOUNG_SECONDS:
                continue
            if hold is None or pod.created_at >= int(hold.at):  # creation times have whole seconds
                after[pod.owner.node] = Hold(_DELETED, hold.count + 1 if hold else 1, now)
        return replace(self, deleted=after)

    def with_room(self) -> "Holds":
        """Once a session pod of the pool has gone: what it took of a quota is free."""
        rest = {node: hold for node, hold in self.refused.items() if hold.failure.reason != QUOTA_EXCEEDED}
        return replace(self, refused=rest)


def refusal(reason: str, message: str) -> Failure:
    """What a refusal (403 or 422) means; `reason`, which is PodRefused or ConfigMapRefused, if it is no special one."""
    if "because it is being terminated" in message:  # NamespaceLifecycle's words
        return Failure(
            NAMESPACE_TERMINATING, f"{NAMESPACE_TERMINATING}: the namespace is being deleted: no session starts there"
        )
    if reason == POD_REFUSED and "exceeded quota" in message:  # ResourceQuota's words
        return Failure(QUOTA_EXCEEDED, f"{QUOTA_EXCEEDED}: {message}")
    return Failure(reason, f"{reason}: {message}")
