"""How many sessions each pool may have on one node where all pools together have a limit there: a pure decision.

The limit is the administrator's word over everybody's pools (`limits.maxSessionsPerNode` of the chart):

- The oldest pool comes first (creationTimestamp, then uid): what it is to have on the node whatever is asked of it is
  kept for it, also while it is not there yet. A pool that no session pod can be asked for (it has no web service, say)
  keeps nothing; one whose session pods are refused or fail does.
- What is then left goes to growth, and to whoever comes first.
- No session is ended for it: where a limit is lowered, or an older pool comes to the node, younger ones keep what they
  have and get no more. What they give up by themselves goes to those that are older.

Every session pod counts until it is gone: those that start, those that leave, and those that a rollout adds. So the
limit is one of the node's memory, too; a rollout that finds no room is told so, as where a quota has none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.keys import age_of
from sessionpools.core.model import Failure, PodView

__all__ = [
    "NODE_LIMIT_REACHED",
    "Claim",
    "claim_of",
    "entitled",
    "limit_reached",
    "slots_in",
    "slots_of",
    "slots_of_new",
]

NODE_LIMIT_REACHED: Final = "NodeLimitReached"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pool is to have on a node, and what it has there, in sessions."""

    since: tuple[str, str] = ("~", "")  # the oldest first; one that is not known any more comes last
    initial: int = 0  # whatever is asked of the pool
    at_once: int = 1  # sessions of one session pod: they come together or not at all
    standing: int = 0


def claim_of(pool: SessionPool) -> Claim:
    """What it is to have on each of its nodes. The slots of a Process pod are fixed, so that it is all of them."""
    at_once = slots_of_new(pool)
    process = pool.spec.isolation is Isolation.PROCESS
    return Claim(age_of(pool), at_once if process else pool.spec.initial_pool_size, max(at_once, 1))


def slots_of_new(pool: SessionPool) -> int:
    """Sessions that a new session pod of the pool counts as."""
    return pool.spec.max_pool_size if pool.spec.isolation is Isolation.PROCESS else 1


def slots_of(pod: PodView) -> int:
    """Sessions that a session pod counts as until it is gone: all that it may come to have, by its own settings."""
    return slots_in(pod.settings)


@lru_cache(maxsize=1024)
def slots_in(settings: str) -> int:
    """The same, of a settings annotation (core.pods.settings_of)."""
    try:
        return max(int(json.loads(settings)["maxPoolSize"]), 1)
    except (ValueError, LookupError, TypeError):  # somebody has changed it; it is about to be put right
        return 1


def entitled(claims: Mapping[str, Claim], limit: int) -> dict[str, int]:
    """The most sessions that each pool (by uid) may have on the node, those that stand there included. Each may go up
    to its own without asking the others: what one takes the others' next numbers show."""
    left, kept = limit, {}
    for uid, claim in sorted(claims.items(), key=lambda item: item[1].since):
        reserved = min(claim.initial, left // claim.at_once * claim.at_once)
        left -= reserved
        kept[uid] = max(reserved, claim.standing)
    standing = sum(claim.standing for claim in claims.values())
    free = max(limit - sum(kept.values()), 0)
    return {
        uid: max(min(kept[uid] + free, limit - standing + claim.standing), claim.standing)
        for uid, claim in claims.items()
    }


def limit_reached(pool: SessionPool, limit: int) -> Failure:
    """What the row of a node says where the pool gets no session for the limit. It names no other pool: their
    namespaces may be none of the reader's business."""
    what = f"{NODE_LIMIT_REACHED}: no more than {limit} sessions of all pools may be on one node"
    if slots_of_new(pool) > limit:
        return Failure(
            NODE_LIMIT_REACHED,
            f"{what}, and a session pod of this pool is {slots_of_new(pool)}: lower maxPoolSize, or have the limit "
            "(limits.maxSessionsPerNode of the chart) raised",
        )
    return Failure(
        NODE_LIMIT_REACHED,
        f"{what}, and this pool's would be beyond that: lower the sizes of pools there, or have the limit "
        "(limits.maxSessionsPerNode of the chart) raised",
    )
