"""How many sessions a session pod holds. Its own isolation says so: the pool's has changed already while a change of it
is rolled out.
"""

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView, SessionReport

__all__ = ["isolation_of", "ready_sessions", "sessions_wanted"]


def isolation_of(pool: SessionPool, pod: PodView) -> Isolation:
    return pod.owner.isolation or pool.spec.isolation


def ready_sessions(pool: SessionPool, pod: PodView, report: SessionReport | None) -> int:
    """Sessions of a Ready pod that can take a call, of those that its pool wants. A Process pod is Ready once all its
    initial sessions were; whether it has grown to a new initialPoolSize its report says."""
    if isolation_of(pool, pod) is Isolation.POD:
        return 1
    initial = pool.spec.initial_pool_size
    # More come and go with demand, unseen: what was asked once would be counted for ever.
    return min(report.ready_sessions, initial) if report else initial


def sessions_wanted(pool: SessionPool, pods: int) -> int:
    """Sessions of so many pods. A Process pod counts as one at least: it makes the first one when a call comes."""
    if pool.spec.isolation is Isolation.POD:
        return pods
    return pods * max(pool.spec.initial_pool_size, 1)
