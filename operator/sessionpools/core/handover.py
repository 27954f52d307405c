"""Whether the gateways have taken in the new sessions of a rollout: only then may as many old ones go.

A session is of use when calls can reach it. A gateway says of how many ready pods of each revision HAProxy has been
told: their slots are open, or open at the moment at which older ones leave them room below maxPoolSize. That a count of
open slots would not tell: where initialPoolSize is the maximum there is no room before an old session goes. It is told
by revision, as a gateway whose view stands still would otherwise take the place of old pods for new ones.
"""

import math
from collections.abc import Sequence
from typing import Final

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.core.demand import Demand
from sessionpools.core.model import PodView
from sessionpools.core.sessions import sessions_wanted

__all__ = ["LOOK_AGAIN_SECONDS", "unseen_sessions"]

# A gateway has taken in a new pod after some 10 ms, and says so with its next poll of HAProxy (250 ms at most).
LOOK_AGAIN_SECONDS: Final = 0.25


def unseen_sessions(pool: SessionPool, revision: str, demand: Demand | None, pods: Sequence[PodView]) -> float:
    """Ready sessions of the revision that a gateway does not have yet, 0 where no rollout is under way; infinity if no
    gateway says what it has."""
    alive = [pod for pod in pods if pod.alive]
    if all(pod.owner.revision == revision for pod in alive):
        return 0.0
    if demand is None or demand.pods is None:
        return math.inf
    ready = sum(pod.ready and pod.owner.revision == revision for pod in alive)
    return float(sessions_wanted(pool, max(ready - demand.pods.get(revision, 0), 0)))
