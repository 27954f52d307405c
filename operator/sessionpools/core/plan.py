"""What to do next for one pool: the pure middle of the reconciler.

`plan()` looks at each node by itself; nothing in it waits, retries or counts (core.holds does). It may be called with a
cache that lags behind: it then asks for what has been done already, and deterministic names (core.naming) and the uid
in each deletion make that harmless.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.backoff import Backoff
from sessionpools.core.demand import Wish
from sessionpools.core.handover import LOOK_AGAIN_SECONDS
from sessionpools.core.limits import slots_in, slots_of, slots_of_new
from sessionpools.core.model import NodeView, PodView, SessionReport
from sessionpools.core.placement import Place
from sessionpools.core.pods import settings_of
from sessionpools.core.sessions import isolation_of, ready_sessions, sessions_wanted
from sessionpools.core.target import Blocked, Target

__all__ = ["CreatePod", "DeletePod", "Plan", "SettingsPatch", "plan", "pods_wanted"]

# A pod that the kubelet will not run again (evicted, refused by the node) is replaced soon the first time, and then
# after five minutes, doubled each time: no slot has more than two pods in five minutes. One that lived for
# long was no part of such a series.
REPLACE_FIRST_SECONDS: Final = 15.0
REPLACE_AGAIN_SECONDS: Final = 300.0
_REPLACE_FIRST: Final = Backoff(REPLACE_FIRST_SECONDS, REPLACE_FIRST_SECONDS)
_REPLACE_AGAIN: Final = Backoff(REPLACE_AGAIN_SECONDS, 1800.0)
LIVED_LONG_SECONDS: Final = 600.0
OLD_REVISION: Final = "OldRevision"


@dataclass(frozen=True, slots=True)
class CreatePod:
    node: NodeView
    slot: int
    incarnation: int
    why: str = "Initial"  # Initial | Rollout | Demand, for the log and the metrics


@dataclass(frozen=True, slots=True)
class DeletePod:
    pod: PodView
    why: str  # for the log


@dataclass(frozen=True, slots=True)
class SettingsPatch:
    pod: PodView
    settings: str


@dataclass(frozen=True, slots=True)
class Plan:
    creates: tuple[CreatePod, ...] = ()
    deletes: tuple[DeletePod, ...] = ()
    patches: tuple[SettingsPatch, ...] = ()
    # nodes where something wanted waits for the limit of all pools' sessions there (core.limits)
    limited: tuple[str, ...] = ()
    # seconds until something that only time changes is due (the replacement of an ended pod, the end of a hold)
    look_again_seconds: float | None = None  # None: never


def pods_wanted(pool: SessionPool) -> int:
    """Session pods wanted on each compute node, whatever is asked of the pool."""
    if pool.spec.isolation is Isolation.PROCESS:
        return 1 if pool.spec.max_pool_size > 0 else 0
    return pool.spec.initial_pool_size


def plan(
    pool: SessionPool,
    target: Target | Blocked,
    places: Mapping[str, Place],
    pods: Sequence[PodView],
    reports: Mapping[str, SessionReport],
    now: float,
    wishes: Mapping[str, Wish] | None = None,
    unseen: float = 0.0,
    not_before: Mapping[str, float] | None = None,
    most: Mapping[str, int] | None = None,
) -> Plan:
    """`places` by node name, `pods` all of this pool, `reports` by pod uid as far as known, `now` in epoch seconds.
    `wishes` by node name is what demand asks for; without it each node has what `pods_wanted` says. `unseen` is how
    many new sessions of a rollout no gateway has yet (core.handover). `not_before` by node name is when a node gets the
    next session pod, in epoch seconds (core.holds); those that are there are dealt with meanwhile. `most` by node name
    is how many sessions the pool may have there (core.limits); None: there is no limit."""
    if pool.metadata.deletion_timestamp:
        return Plan()  # the garbage collector removes what the pool owns
    if isinstance(target, Blocked) and not target.retire:
        patches, limited = _patches(pool, pods, most)
        return Plan(patches=patches, limited=limited)
    by_node: dict[str, list[PodView]] = {name: [] for name in places}
    for pod in pods:
        by_node.setdefault(pod.owner.node, []).append(pod)
    wish = Wish(pods_wanted(pool))
    parts = [
        _plan_node(pool, target, places.get(node), found, reports, now, (wishes or {}).get(node, wish), allowed)
        for node, found, allowed in ((n, f, None if most is None else most.get(n, 0)) for n, f in by_node.items())
    ]
    parts = [_held_back(part, not_before or {}, now) for part in parts]
    waits = [part.look_again_seconds for part in parts if part.look_again_seconds is not None]
    deletes = [delete for part in parts for delete in part.deletes]
    handed_over = _handed_over(pool, deletes, reports, unseen)
    if len(handed_over) < len(deletes):
        waits.append(LOOK_AGAIN_SECONDS)
    creates = tuple(create for part in parts for create in part.creates)
    patches, not_resized = _patches(pool, [p for p in pods if p.owner.node in places], most, creates)
    return Plan(
        creates=creates,
        deletes=tuple(handed_over),
        patches=patches,
        limited=(*(node for part in parts for node in part.limited), *not_resized),
        look_again_seconds=min(waits, default=None),
    )


def _plan_node(
    pool: SessionPool,
    target: Target | Blocked,
    place: Place | None,
    pods: Sequence[PodView],
    reports: Mapping[str, SessionReport],
    now: float,
    wish: Wish,
    most: int | None,
) -> Plan:
    alive = [pod for pod in pods if pod.alive]
    if isinstance(target, Blocked):
        return _delete(pods, target.reason)
    if place is None:
        return _delete(pods, "NodeRemoved")
    here = [pod for pod in alive if pod.owner.node_uid == place.node.uid]
    gone = [pod for pod in pods if pod.owner.node_uid != place.node.uid]  # a node of the same name was replaced
    if not place.may_stay:
        return _delete(pods, "NodeNotEligible")

    wanted = wish.sessions
    idle = [DeletePod(pod, "Idle") for pod in wish.retire]
    here = [pod for pod in here if pod not in wish.retire]
    current = [pod for pod in here if pod.owner.revision == target.revision.name]
    old = [pod for pod in here if pod.owner.revision != target.revision.name]
    ended = [pod for pod in pods if pod.ended and not pod.deleting and pod.owner.node_uid == place.node.uid]
    if not place.compute_node:  # nothing replaces what runs here: it may stay while it is what is wanted
        excess = _shrink(current, len(current) - wanted, reports) if place.node.ready else []
        return Plan(deletes=(*_delete([*gone, *old, *ended], "NodeNotEligible").deletes, *idle, *excess))
    if place.closed:  # nothing can replace what is here: a rollout waits, and a lost node keeps what it has
        # single pods of a pool that is Process now are not to be measured by its one pod
        alike = [pod for pod in here if not wanted or isolation_of(pool, pod) is pool.spec.isolation]
        excess = _shrink(alike, len(alike) - wanted, reports) if place.node.ready else []
        return Plan(deletes=(*_delete(gone, "NodeReplaced").deletes, *idle, *excess))
    moved = _misled(current, target.bundle_url, reports)
    if not gone and not old and not moved and len(here) == len(pods) == wanted:
        return Plan()
    excess = _shrink(current, len(current) - wanted, reports)
    deletes = [
        *_delete(gone, "NodeReplaced").deletes,
        *idle,
        *_retire_old(pool, wanted, current, old, reports),
        *excess,
        *_delete([pod for pod in moved if pod not in [each.pod for each in excess]], "BundleMoved").deletes,
    ]
    held, replaced, due = _replace_ended(target.revision.name, ended, now)
    standing = [pod for pod in pods if not pod.ended and pod.owner.node_uid == place.node.uid]
    room = _room(pool, wanted, [*here, *held], old, standing)
    missing = min(wanted - len(current) - len(held), room)
    whys = ("Rollout" if old else "Initial" if n < pods_wanted(pool) else "Demand" for n in count(len(current)))
    # what is leaving has its place until it is gone, and is no reason to say that there is none
    limited = missing > _below_limit(pool, most, [pod for pod in standing if not pod.deleting], missing)
    missing = _below_limit(pool, most, standing, missing)
    creates = _fill(target.revision.name, place.node, missing, [*current, *held], pods, whys)
    where = (place.node.name,) if limited else ()
    return Plan(tuple(creates), (*deletes, *replaced), limited=where, look_again_seconds=due)


def _misled(current: Iterable[PodView], url: str, reports: Mapping[str, SessionReport]) -> list[PodView]:
    """Pods that ask in vain for a bundle where it no longer is, or never was: they make room for ones that know better.
    One that was ready has it, and keeps it."""
    return [
        pod
        for pod in current
        if pod.bundle_url != url and not pod.ready and not pod.was_ready and _needs_bundle(pod, reports.get(pod.uid))
    ]


def _needs_bundle(pod: PodView, report: SessionReport | None) -> bool:
    if pod.failure:
        return pod.failure.reason in names.BUNDLE_REASONS
    return report is not None and report.phase.startswith(names.PHASE_FETCH_BUNDLE)


def _held_back(part: Plan, not_before: Mapping[str, float], now: float) -> Plan:
    """A node's plan without the session pods that it is too early for."""
    held = max((not_before.get(create.node.name, now) - now for create in part.creates), default=0.0)
    if held <= 0:
        return part
    waits = [wait for wait in (held, part.look_again_seconds) if wait is not None and math.isfinite(wait)]
    return replace(part, creates=(), look_again_seconds=min(waits, default=None))


def _room(
    pool: SessionPool, wanted: int, here: Sequence[PodView], old: Sequence[PodView], standing: Sequence[PodView]
) -> int:
    """How many more session pods the node may get. `here` are those that count as sessions, `old` those of them that a
    rollout replaces, `standing` all that hold the node's resources: those that are leaving do until they are gone, and
    their deletion is an event."""
    surge = pool.spec.update.max_surge
    most = pool.spec.max_pool_size + surge - len(standing)
    if pool.spec.isolation is Isolation.POD:
        return min(most, wanted + (surge if old else 0) - len(here))
    # A Process pod is all sessions of its node: surge is one more pod, beside another or beside those of one session.
    if not surge:
        most = min(most, wanted - len(here))
    alike = sum(isolation_of(pool, pod) is Isolation.PROCESS for pod in standing)
    return min(most, wanted + min(surge, 1) - alike)


def _below_limit(pool: SessionPool, most: int | None, standing: Sequence[PodView], missing: int) -> int:
    """How many of the missing session pods the node's limit allows beside those that stand there."""
    if most is None or missing <= 0:
        return missing
    return min(missing, max(most - sum(map(slots_of, standing)), 0) // slots_of_new(pool))


def _retire_old(
    pool: SessionPool,
    wanted: int,
    current: Sequence[PodView],
    old: Sequence[PodView],
    reports: Mapping[str, SessionReport],
) -> list[DeletePod]:
    """Old sessions go as new ones are ready; those that are not ready serve nobody and go at once."""
    if not old:
        return []
    ready = {pod.uid: _worth(pool, pod, reports) for pod in [*current, *old] if pod.ready}
    spare = sum(ready.values()) - max(sessions_wanted(pool, wanted) - pool.spec.update.max_unavailable, 0)
    leave = [pod for pod in old if not pod.ready]
    for pod in _idle_first([pod for pod in old if pod.ready], reports):
        if ready[pod.uid] <= spare:
            spare -= ready[pod.uid]
            leave.append(pod)
    return [DeletePod(pod, OLD_REVISION) for pod in leave]


def _handed_over(
    pool: SessionPool, deletes: Sequence[DeletePod], reports: Mapping[str, SessionReport], unseen: float
) -> list[DeletePod]:
    """Without as many old sessions as there are new ones that no gateway has yet: callers then find, over all nodes, no
    fewer sessions than a rollout has to leave them. Which nodes' they are does not matter to a caller."""
    if not unseen:
        return list(deletes)
    old = {d.pod.uid: _worth(pool, d.pod, reports) for d in deletes if d.why == OLD_REVISION and d.pod.ready}
    spare = sum(old.values()) - unseen
    kept = []
    for delete in deletes:
        worth = old.get(delete.pod.uid, 0)
        if worth and worth > spare:
            continue
        spare -= worth
        kept.append(delete)
    return kept


def _worth(pool: SessionPool, pod: PodView, reports: Mapping[str, SessionReport]) -> int:
    """Sessions that a ready pod stands for in a rollout, counted as `sessions_wanted` counts."""
    if pool.spec.initial_pool_size == 0:
        return 1
    return ready_sessions(pool, pod, reports.get(pod.uid))


def _shrink(current: Sequence[PodView], excess: int, reports: Mapping[str, SessionReport]) -> list[DeletePod]:
    if excess <= 0:
        return []
    return [DeletePod(pod, "PoolResized") for pod in _idle_first(current, reports)[:excess]]


def _idle_first(pods: Iterable[PodView], reports: Mapping[str, SessionReport]) -> list[PodView]:
    """Not ready first, then idle, then the highest slot."""

    def order(pod: PodView) -> tuple[bool, bool, int]:
        report = reports.get(pod.uid)
        return (pod.ready, report is not None and report.busy_sessions > 0, -pod.owner.slot)

    return sorted(pods, key=order)


def _replace_ended(
    revision: str, ended: Sequence[PodView], now: float
) -> tuple[list[PodView], list[DeletePod], float | None]:
    """Ended pods that hold their slot until the back-off is over, those that make room now, and the seconds until the
    next one does."""
    held, replaced, waits = [], [], []
    for pod in ended:
        again = 0 if pod.ended_at - pod.created_at > LIVED_LONG_SECONDS else pod.owner.incarnation
        delay = _REPLACE_AGAIN.seconds(again, pod.uid) if again else _REPLACE_FIRST.seconds(1, pod.uid)
        left = pod.ended_at + delay - now
        if pod.owner.revision == revision and left > 0:
            held.append(pod)
            waits.append(left)
        else:
            replaced.append(DeletePod(pod, "PodEnded"))
    return held, replaced, min(waits, default=None)


def _fill(
    revision: str,
    node: NodeView,
    missing: int,
    taken: Sequence[PodView],
    pods: Sequence[PodView],
    whys: Iterable[str],
) -> Iterable[CreatePod]:
    """The lowest free slots; the incarnation after the last one that is still seen there."""
    slots = {pod.owner.slot for pod in taken}
    free = (slot for slot in count() if slot not in slots)
    for slot, why in zip(islice(free, max(missing, 0)), whys, strict=False):
        seen = [
            p.owner.incarnation
            for p in pods
            if p.owner.slot == slot and p.owner.revision == revision and p.owner.node_uid == node.uid
        ]
        yield CreatePod(node, slot, max(seen, default=-1) + 1, why)


def _patches(
    pool: SessionPool, pods: Sequence[PodView], most: Mapping[str, int] | None, creates: Iterable[CreatePod] = ()
) -> tuple[tuple[SettingsPatch, ...], tuple[str, ...]]:
    """The settings that are not as they should be, and the nodes whose limit has no room for the larger ones: there all
    but more sessions than now is taken over."""
    wanted = {isolation: settings_of(pool, isolation) for isolation in Isolation}
    found = ((pod, wanted[isolation_of(pool, pod)]) for pod in pods if pod.alive)
    patches = [SettingsPatch(pod, settings) for pod, settings in found if pod.settings != settings]
    if most is None or not patches:
        return tuple(patches), ()
    here = Counter(create.node.name for create in creates for _ in range(slots_of_new(pool)))
    here.update(pod.owner.node for pod in pods if not pod.ended for _ in range(slots_of(pod)))
    allowed, limited = [], []
    for patch in patches:
        node, more = patch.pod.owner.node, slots_in(patch.settings) - slots_of(patch.pod)
        if more > 0 and here[node] + more > most.get(node, 0):
            limited.append(node)
            settings = settings_of(pool, isolation_of(pool, patch.pod), slots_of(patch.pod))
            if settings != patch.pod.settings:
                allowed.append(SettingsPatch(patch.pod, settings))
        else:
            here[node] += more
            allowed.append(patch)
    return tuple(allowed), tuple(dict.fromkeys(limited))


def _delete(pods: Iterable[PodView], why: str) -> Plan:
    return Plan(deletes=tuple(DeletePod(pod, why) for pod in pods if not pod.deleting))
