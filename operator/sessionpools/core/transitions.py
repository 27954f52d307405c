"""Which Events a change of status is worth: transitions only, never a count that moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sessionpools.api.v1alpha1 import Condition

__all__ = ["POOL_STALLED", "ROLLING_OUT", "UP_TO_DATE", "Transition", "transitions"]

# A WebService's reason when its pool is Stalled: the Event about it is the pool's.
POOL_STALLED = "PoolStalled"
# A pool's reasons of Reconciling. Ready stays True through a good rollout: only these tell that it has ended.
ROLLING_OUT = "RollingOut"
UP_TO_DATE = "UpToDate"


@dataclass(frozen=True, slots=True)
class Transition:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(before: Sequence[Condition], after: Sequence[Condition]) -> list[Transition]:
    was = {c.type: c for c in before}
    found = []
    for now in after:
        then = was.get(now.type)
        turned = then is None or then.status != now.status
        match (now.type, now.status):
            case ("Ready", "True") if turned:
                found.append(Transition("Normal", now.reason, now.message))
            case ("Stalled", "True") if now.reason != POOL_STALLED and (turned or (then and then.reason != now.reason)):
                found.append(Transition("Warning", now.reason, now.message))
            case ("Reconciling", "True") if now.reason == ROLLING_OUT and (
                turned or (then and then.reason != now.reason)
            ):
                found.append(Transition("Normal", now.reason, now.message))
            case ("Reconciling", "False") if now.reason == UP_TO_DATE and then and then.reason == ROLLING_OUT:
                found.append(Transition("Normal", "RolledOut", "every session has the new revision"))
            case ("NotForkSafe", "True") if turned:
                found.append(Transition("Warning", now.reason, now.message))
    return found
