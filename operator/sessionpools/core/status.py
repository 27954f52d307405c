"""The status of a pool as a pure function of what was observed: never of what was intended.

`pool_status()` gives the whole status; the controller writes it when it differs from the one that stands there.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from sessionpools.api.v1alpha1 import (
    MAX_CONDITION_MESSAGE,
    MAX_NODE_MESSAGE,
    MAX_STATUS_NODES,
    Condition,
    Isolation,
    NodeCounts,
    NodeStatus,
    SessionCounts,
    SessionPool,
    SessionPoolStatus,
    State,
)
from sessionpools.core.holds import QUOTA_EXCEEDED
from sessionpools.core.limits import NODE_LIMIT_REACHED
from sessionpools.core.model import Failure, PodView, SessionReport
from sessionpools.core.observe import UNSCHEDULABLE
from sessionpools.core.placement import NODE_PRESSURE, Place
from sessionpools.core.plan import pods_wanted
from sessionpools.core.sessions import ready_sessions, sessions_wanted
from sessionpools.core.target import Blocked, Target
from sessionpools.core.transitions import ROLLING_OUT, UP_TO_DATE

__all__ = ["Observation", "condition", "pool_status", "says_more_in_seconds"]

_Make = Callable[[str, bool | None, str, str], Condition]

# A start that takes longer than this is shown with the phase that runs (seconds).
LONG_PHASE_SECONDS = 5.0
# Creating a container takes longer than this only if something is missing: a volume's Secret, say (seconds).
LONG_CREATION_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a pool's status is made of. `places` by node name, `reports` by pod uid, `held` by node name: why no
    session pod is created there (core.holds, core.limits). `left`: nodes that pods of the pool have left a moment ago
    or are told to leave, so that neither the scheduler nor a quota may have been asked since."""

    pool: SessionPool
    target: Target | Blocked
    places: Mapping[str, Place]
    pods: Sequence[PodView]
    reports: Mapping[str, SessionReport] = field(default_factory=dict)
    held: Mapping[str, Failure] = field(default_factory=dict)
    left: Collection[str] = ()
    awaits_gateways: bool = False  # old sessions stay until the gateways have the new ones, for a while already
    now: float = 0.0  # seconds since the epoch

    @property
    def revision(self) -> str:
        """That sessions should have; the last one that was known while there is no target."""
        return self.target.revision.name if isinstance(self.target, Target) else self.pool.status.revision

    def age(self, pod: PodView) -> float:
        """Seconds since the pod was created."""
        return self.now - pod.created_at


@dataclass(frozen=True, slots=True)
class _Row:
    """A node, and what of it decides the conditions."""

    status: NodeStatus
    counts: bool
    updated: int  # ready sessions of the revision
    old: int  # ready sessions of older ones
    outdated: int  # session pods of older ones that stay, of whatever state
    failure: Failure | None  # of the revision that is wanted, be it only that of a surge session


def pool_status(seen: Observation) -> SessionPoolStatus:
    now = datetime.fromtimestamp(int(seen.now), UTC)
    rows = _rows(seen)
    states = [row.status.state for row in rows]
    counts = NodeCounts(
        total=len(rows),
        success=states.count(State.SUCCESS),
        pending=states.count(State.PENDING),
        not_found=states.count(State.NOT_FOUND),
    )
    sessions = SessionCounts(
        desired=sum(row.status.desired for row in rows),
        ready=sum(row.status.ready for row in rows),
        updated=sum(row.updated for row in rows),
        old=sum(row.old for row in rows),
    )
    before = seen.pool.status
    revision = seen.target.revision if isinstance(seen.target, Target) else None
    return SessionPoolStatus(
        observed_generation=seen.pool.metadata.generation,
        state=_state(states),
        nodes=[row.status for row in rows[:MAX_STATUS_NODES]],
        node_counts=counts,
        sessions=sessions,
        image=revision.image if revision else before.image,
        revision=revision.name if revision else before.revision,
        conditions=_conditions(seen, rows, counts, sessions, now),
    )


def _state(states: Sequence[State]) -> State:
    if not states or all(state is State.NOT_FOUND for state in states):
        return State.NOT_FOUND
    return State.SUCCESS if all(state is State.SUCCESS for state in states) else State.PENDING


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(seen: Observation) -> list[_Row]:
    """A row for each compute node, and for each other node that still holds session pods; those not Success first."""
    pods: dict[str, list[PodView]] = {name: [] for name, place in seen.places.items() if place.compute_node}
    for pod in seen.pods:
        pods.setdefault(pod.owner.node, []).append(pod)
    rows = [_row(seen, name, found) for name, found in pods.items()]
    return sorted(rows, key=lambda row: (row.status.state is State.SUCCESS, row.status.name))


def _row(seen: Observation, name: str, pods: Sequence[PodView]) -> _Row:
    place = seen.places.get(name)
    belongs = place is not None and place.compute_node
    wanted = belongs and not seen.pool.metadata.deletion_timestamp and not _retired(seen.target)
    desired = seen.pool.spec.initial_pool_size if wanted else 0
    held = [pod for pod in pods if not pod.ended]
    lost = place is None or not place.node.ready
    serving = [] if lost else [pod for pod in held if pod.ready and not pod.deleting]
    sessions = {pod.uid: ready_sessions(seen.pool, pod, seen.reports.get(pod.uid)) for pod in serving}
    ready = sum(sessions.values())
    current = [pod for pod in serving if pod.owner.revision == seen.revision]
    updated = sum(sessions[pod.uid] for pod in current)
    failure = _failure(seen, name, pods)
    awaited = (
        wanted
        and place is not None
        and not place.closed
        and isinstance(seen.target, Target)
        and pods_wanted(seen.pool) > 0
    )
    missing = State.PENDING if held or awaited else State.NOT_FOUND
    # a node that sessions no longer belong to may keep those that it has (a NoSchedule taint)
    enough = ready >= desired if wanted else ready > 0 and place is not None and place.may_stay
    deleted = seen.pool.metadata.deletion_timestamp is not None or _retired(seen.target)
    state = State.SUCCESS if enough and not deleted else missing
    message = "" if state is State.SUCCESS and not failure else _message(seen, place, held, failure)
    if wanted and place is not None and place.counts and place.closed and state is not State.SUCCESS:
        failure = failure or place.closed
    # What fails beyond initialPoolSize is said here and is no condition of the pool, which has what was asked for.
    if wanted and seen.pool.spec.isolation is Isolation.POD and len(current) >= max(desired, 1):
        failure = None
    return _Row(
        NodeStatus(
            name=name,
            state=state,
            desired=desired,
            ready=ready,
            message=message[:MAX_NODE_MESSAGE],
        ),
        counts=belongs and place is not None and place.counts,
        updated=updated,
        old=ready - updated,
        outdated=sum(pod.alive and pod.owner.revision != seen.revision for pod in held),
        failure=failure,
    )


def _failure(seen: Observation, node: str, pods: Sequence[PodView]) -> Failure | None:
    """The newest revision's failure speaks for the node. An older one's does not last, as what has it is replaced; nor
    does want of room while pods are on their way out."""
    if node in seen.held:
        return _unless_others_leave(seen, node, seen.held[node], pods)
    failed = [pod for pod in pods if pod.failure and not pod.ready and not pod.deleting]
    if (place := seen.places.get(node)) and place.closed:  # why one that was made just before has no room
        failed = [pod for pod in failed if pod.failure and pod.failure.reason != UNSCHEDULABLE]
    current = [pod for pod in pods if pod.owner.revision == seen.revision and not pod.deleting]
    if any(pod.ready for pod in current):  # what is old and fails will be replaced
        failed = [pod for pod in failed if pod in current]
    failed.sort(key=lambda pod: (pod not in current, pod.owner.slot))
    first = failed[0] if failed else None
    if first is None or first.failure is None:
        return None
    if first not in current and isinstance(seen.target, Target):
        return replace(first.failure, lasts=False)
    return _unless_others_leave(seen, node, first.failure, pods)


def _unless_others_leave(seen: Observation, node: str, failure: Failure, pods: Sequence[PodView]) -> Failure:
    leaving = node in seen.left or any(pod.deleting and not pod.ended for pod in pods)
    return replace(failure, lasts=False) if leaving and _no_room(failure) else failure


def _no_room(failure: Failure) -> bool:
    """Whether the node or the namespace has not what a session pod takes."""
    return failure.reason in (UNSCHEDULABLE, QUOTA_EXCEEDED, NODE_LIMIT_REACHED)


def _message(seen: Observation, place: Place | None, pods: Sequence[PodView], failure: Failure | None) -> str:
    if place is None:
        return "NodeRemoved: the node is gone; its session pods are being removed"
    if place.closed:
        return place.closed.message
    if failure:
        return failure.message
    if isinstance(seen.target, Blocked):
        return seen.target.message
    waiting = [pod for pod in pods if pod.alive and not pod.ready]
    reports = [seen.reports[pod.uid] for pod in waiting if pod.uid in seen.reports]
    long = [report for report in reports if report.phase_seconds >= LONG_PHASE_SECONDS and report.phase != "ready"]
    if long:
        slowest = max(long, key=lambda report: report.phase_seconds)
        return f"{slowest.phase} for more than {_step(slowest.phase_seconds)} s"
    stuck = next((pod for pod in waiting if not pod.started and seen.age(pod) >= LONG_CREATION_SECONDS), None)
    if stuck:
        seconds = _step(seen.age(stuck))
        return f"pod {stuck.name} waits for its volumes or image for more than {seconds} s: see kubectl describe pod"
    return "sessions are starting" if waiting else "sessions are awaited"


def says_more_in_seconds(seen: Observation) -> float | None:
    """When a pod whose container is not created will have waited so long that the status says it, or says more: nothing
    happens meanwhile that would be a reason to look. None if there is no such pod."""
    ages = [seen.age(pod) for pod in seen.pods if pod.alive and not pod.started and not pod.failure]
    return min(
        (max(LONG_CREATION_SECONDS, 2.0 * _step(max(age, LONG_PHASE_SECONDS))) - age for age in ages), default=None
    )


def _step(seconds: float) -> int:
    """5, 10, 20, 40...: a message that changed each second would be a status write each second."""
    return int(LONG_PHASE_SECONDS * 2 ** int(math.log2(seconds / LONG_PHASE_SECONDS)))


# --- conditions -----------------------------------------------------------------------------------------------------


def _conditions(
    seen: Observation, rows: Sequence[_Row], counts: NodeCounts, sessions: SessionCounts, now: datetime
) -> list[Condition]:
    generation, before = seen.pool.metadata.generation, seen.pool.status.conditions
    counted = [row for row in rows if row.counts]
    failing = next((row for row in counted if row.failure and row.status.state is not State.SUCCESS), None)
    failing = failing or next((row for row in counted if row.failure), None)
    summary = f"{sessions.ready} of {sessions.desired} sessions are ready on {counts.total} compute nodes"

    def make(type_: str, holds: bool | None, reason: str, message: str) -> Condition:
        return condition(before, type_, holds, reason, message, generation, now)

    is_ready = (
        bool(counted) and all(row.status.state is State.SUCCESS for row in counted) and isinstance(seen.target, Target)
    )
    stalled = _stalled(seen, rows, failing)
    # until the last session is ready: none may be old any more before that
    was_rolling = any(c.status == "True" and c.reason == ROLLING_OUT for c in before)
    rolling = any(row.outdated for row in counted) or (was_rolling and not is_ready)
    if is_ready:
        ready = make("Ready", True, "SessionsReady", summary)
    elif stalled:
        ready = make("Ready", False, stalled.reason, stalled.message)
    elif failing and failing.failure:  # it may pass; the reason stands here at once all the same
        ready = make("Ready", False, failing.failure.reason, _of_node(failing))
    else:
        ready = make("Ready", False, "SessionsStarting", f"{summary}; {_first_message(counted)}")
    if stalled:
        reconciling = make("Reconciling", False, "Stalled", "no progress is expected: see the condition Stalled")
    elif rolling:
        reconciling = make(
            "Reconciling",
            True,
            ROLLING_OUT,
            f"{sessions.updated} of {sessions.desired} sessions have the new revision"
            + "; old ones stay until the gateways have the new ones" * seen.awaits_gateways,
        )
    elif not is_ready:
        reconciling = make("Reconciling", True, "Filling", summary)
    else:
        reconciling = make("Reconciling", False, UP_TO_DATE, "the pool is as its spec says")
    return [
        ready,
        reconciling,
        _stalled_condition(stalled, make),
        *_runtime_conditions(seen, make),
    ]  # fmt: skip


def _stalled(seen: Observation, rows: Sequence[_Row], failing: _Row | None) -> Failure | None:
    """Why nothing will change before somebody changes something."""
    if isinstance(seen.target, Blocked):
        return Failure(seen.target.reason, seen.target.message)
    if not any(row.counts for row in rows):
        closed = [f"{row.status.name}: {row.status.message}" for row in rows if row.status.message]
        detail = "; ".join(closed[:3]) if closed else "no node matches placement.nodeSelector and tolerations"
        return Failure("NoEligibleNodes", f"no Ready, schedulable compute node: {detail}")
    if not (failing and failing.failure and failing.failure.lasts):
        return None
    update, message = seen.pool.spec.update, _of_node(failing)
    if not failing.outdated or failing.failure.reason == NODE_PRESSURE:
        return Failure(failing.failure.reason, message)
    if update.max_surge and _no_room(failing.failure):
        limited = failing.failure.reason == NODE_LIMIT_REACHED
        more = "" if limited else "lower resources.requests of the WebService, add capacity, or "
        remedy = f"{more}set update.maxSurge 0 and update.maxUnavailable {sessions_wanted(seen.pool, 1)}"
        return Failure("SurgeUnschedulable", f"{message}; a new session has no room beside the old ones: {remedy}")
    return Failure("RevisionFailed", message)


def _of_node(row: _Row) -> str:
    return f"node {row.status.name}: {row.failure.message}" if row.failure else ""


def _stalled_condition(stalled: Failure | None, make: _Make) -> Condition:
    if stalled:
        return make("Stalled", True, stalled.reason, stalled.message)
    return make("Stalled", False, "Progressing", "nothing is in the way")


def _runtime_conditions(seen: Observation, make: _Make) -> list[Condition]:
    """What the sessions of the current revision say of themselves, once one of them was asked; till then what the last
    one said."""
    current = [pod for pod in seen.pods if pod.ready and pod.alive and pod.owner.revision == seen.revision]
    report = next((seen.reports[pod.uid] for pod in current if pod.uid in seen.reports), None)
    if report is None:
        before = [c for c in seen.pool.status.conditions if c.type in ("Warmed", "NotForkSafe")]
        return before or [make("Warmed", None, "NoSessionYet", "no session is ready yet")]
    made = []
    if report.warmed:
        made.append(make("Warmed", True, "WarmedUp", "every session has answered the warm-up call"))
    else:
        made.append(
            make(
                "Warmed",
                False,
                "NoInput",
                "the WebService has no warmup input: the first call of each session may be slow",
            )
        )
    if report.threads:
        threads = ", ".join(report.threads)
        made.append(
            make(
                "NotForkSafe",
                True,
                "ThreadsInTemplate",
                f"after warm-up these threads run: {threads}; each session imports for itself",
            )
        )
    return made


def _first_message(rows: Iterable[_Row]) -> str:
    waiting = next((row.status for row in rows if row.status.state is not State.SUCCESS), None)
    return f"{waiting.name}: {waiting.message}" if waiting else "no node is Success"


def _retired(target: Target | Blocked) -> bool:
    return isinstance(target, Blocked) and target.retire


def condition(
    before: Iterable[Condition],
    type_: str,
    holds: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> Condition:
    """The condition (None: Unknown), with the time of its last transition kept while its status stays."""
    status: Literal["True", "False", "Unknown"] = "Unknown" if holds is None else "True" if holds else "False"
    was = next((c for c in before if c.type == type_), None)
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MAX_CONDITION_MESSAGE],
        observed_generation=generation,
        last_transition_time=was.last_transition_time if was and was.status == status else now,
    )
