"""Which session pods are worth asking what they do (their control port), given what they said before."""

from collections.abc import Iterable, Mapping, Sequence

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView, SessionReport
from sessionpools.core.plan import pods_wanted
from sessionpools.core.sessions import isolation_of

__all__ = ["reports_wanted"]

# A pool that starts on hundreds of nodes needs a message, not a survey.
STARTING_PODS_AT_MOST = 16


def reports_wanted(
    pool: SessionPool,
    revision: str,
    pods: Sequence[PodView],
    known: Mapping[str, SessionReport],
    sessions: Mapping[str, int] | None = None,
) -> list[PodView]:
    """Pods whose report decides something now and is missing or out of date; none while nothing changes.

    Starting ones for the phase that runs (one a node); one ready pod of the revision for what its warm-up found;
    Process pods until they have taken over the pool's sizes; where sessions have to go, also for a rollout, all of the
    node, to spare busy ones. `sessions` is how many pods each node should have, where demand decides it.
    """
    reachable = [pod for pod in pods if pod.alive and pod.started and pod.address]
    starting = {pod.owner.node: pod for pod in reachable if not pod.ready and not pod.failure}
    wanted = dict.fromkeys(pod.uid for pod in list(starting.values())[:STARTING_PODS_AT_MOST])
    ready = [pod for pod in reachable if pod.ready]
    current = [pod for pod in ready if pod.owner.revision == revision]
    if current and not any(known[pod.uid].phase == "ready" for pod in current if pod.uid in known):
        wanted[current[0].uid] = None
    several = [pod for pod in ready if isolation_of(pool, pod) is Isolation.PROCESS]
    wanted.update(dict.fromkeys(pod.uid for pod in several if not _settled(pool, known.get(pod.uid))))
    wanted.update(dict.fromkeys(pod.uid for pod in _on_crowded_nodes(pool, revision, ready, sessions or {})))
    return [pod for pod in reachable if pod.uid in wanted]


def _settled(pool: SessionPool, report: SessionReport | None) -> bool:
    spec = pool.spec
    return (
        report is not None
        and (report.initial_seen, report.max_seen) == (spec.initial_pool_size, spec.max_pool_size)
        and report.ready_sessions >= spec.initial_pool_size
    )


def _on_crowded_nodes(
    pool: SessionPool, revision: str, ready: Iterable[PodView], sessions: Mapping[str, int]
) -> list[PodView]:
    """Those of nodes that have more than they are to keep; a single one leaves no choice."""
    by_node: dict[str, list[PodView]] = {}
    for pod in ready:
        by_node.setdefault(pod.owner.node, []).append(pod)
    wanted, may_lack = pods_wanted(pool), pool.spec.update.max_unavailable
    return [
        pod
        for node, found in by_node.items()
        if len(found) > 1 and len(found) > sessions.get(node, wanted) - may_lack * _has_old(found, revision)
        for pod in found
    ]


def _has_old(pods: Iterable[PodView], revision: str) -> bool:
    return any(pod.owner.revision != revision for pod in pods)
