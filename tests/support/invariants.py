"""What holds at every moment of a simulated pool's life, judged at every single change and at every write.

    invariants = Invariants(sim)
    ...
    assert not invariants.broken

- No slot has two live pods.
- A session pod is created only where, leaving ones included, no more than maxPoolSize + maxSurge of its pool stand; of
  Process pods one, and one of surge.
- A gateway that sees what there is has no more than maxPoolSize slots of a pool open on a node.
- The controller deletes no busy session where an idle one of the same revision stays on the node.
- It deletes no ready pod below initialPoolSize - maxUnavailable of its node, and none with less grace than
  its last call may take.

A controller acts on what it saw a moment ago, so each is judged by what was true within the last `lag_seconds`, and the
floor of ready sessions only while its watches tell it what happens. Of lists that stand still (which a real API server
does not serve: it reads lists from etcd) only the first holds.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView
from sessionpools.core.observe import node_view, pod_view
from sessionpools.core.placement import place
from sessionpools.core.pods import grace_seconds
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_faults import Request
from support.apiserver_objects import Json, Refused
from support.open_slots import open_slots
from support.simulation import Simulation
from support.tally import TALLY

WATCHES: Final = 4  # of one controller
# What a session pod said is acted on within this time, on a machine that does other things as well: who was busy, or
# idle, for so long is known to be.
KNOWN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Choice:
    """A busy pod that was deleted, and the idle ones (by uid) that could have gone for it."""

    name: str
    instead: frozenset[str]
    at: float


@dataclass(slots=True)
class _Past:
    """Something that was true from `since` until `until`; infinity: it still is."""

    value: Any
    since: float
    until: float = math.inf


class Invariants:
    """Judges from now on."""

    def __init__(self, sim: Simulation, *, lag_seconds: float = 0.2, watches: int = WATCHES) -> None:
        self.broken: list[str] = []
        self._watches = watches
        self._lag = lag_seconds
        self._server = sim.server
        self._store = sim.server.store
        self._pools: dict[str, list[_Past]] = {}  # each pool's specs, by uid
        self._ready: dict[str, _Past] = {}  # session pods that are or were ready, by uid
        self._deleted: set[str] = set()  # uids of pods that the controller has deleted
        self._sim = sim
        self._busy: dict[str, float] = {}  # since when which pods are, by name
        self._idle: dict[str, float] = {}  # since when those that were busy are not
        self._choices: list[_Choice] = []
        self._blind_at = self._frozen_at = self._nodes_at = -math.inf
        self._no_service_at: dict[str, float] = {}  # by the uid of the pool
        publish = self._store.history.publish

        def witnessed(change: Any) -> None:
            publish(change)
            self._changed(change)

        self._store.history.publish = witnessed  # type: ignore[method-assign]
        self._server.on_write.append(self._written)

    # --- what happens -------------------------------------------------------------------------------------------------

    def _changed(self, change: Any) -> None:
        now = time.monotonic()
        self._look_at_the_watches(now)
        self.look_who_is_busy()
        self._judge_choices(now)
        self._look_for_services(now)
        if change.resource is NODES:
            self._nodes_at = now
        elif change.resource is SESSION_POOLS and change.after is not None:
            self._remember_spec(change.after, now)
        elif change.resource is PODS and _is_session_pod(change.after or change.before):
            self._remember_readiness(change, now)
            if change.before is None:
                self._created(pod_view(change.after), now)
        if change.resource in (PODS, SESSION_POOLS, WEB_SERVICES):
            self._opened()
        TALLY.add("changes of objects")
        TALLY.saw(self._state())

    def _written(self, request: Request) -> None:
        if request.resource is not PODS or request.verb != "delete":
            return
        self._look_for_services(time.monotonic())
        self._look_at_the_watches(time.monotonic())
        self.look_who_is_busy()
        try:
            body = self._store.get(PODS, request.name, request.namespace)
        except Refused:
            return
        preconditions = request.body.get("preconditions", {})
        if preconditions.get("uid") != body["metadata"]["uid"]:
            self.broken.append(f"{request.name} is deleted whichever pod it is")
            return
        if preconditions.get("resourceVersion") not in (None, body["metadata"]["resourceVersion"]):
            return  # it will be refused
        self._grace(body, request.body.get("gracePeriodSeconds"))
        pod = pod_view(body)
        if pod.alive:
            self._floor(pod, time.monotonic())
            self._choose(pod, time.monotonic())
            self._deleted.add(pod.uid)

    def _look_at_the_watches(self, now: float) -> None:
        if self._store.history.paused or self._server.watches < self._watches:
            self._blind_at = now
        if self._store.frozen:
            self._frozen_at = now

    def _look_for_services(self, now: float) -> None:
        """Of a pool without one nothing has to be left."""
        there = {(body["spec"]["name"], body["spec"]["version"]) for body in self._store.all(WEB_SERVICES)}
        for body in self._store.all(SESSION_POOLS):
            if (body["spec"].get("serviceName"), body["spec"].get("serviceVersion")) not in there:
                self._no_service_at[body["metadata"]["uid"]] = now

    def look_who_is_busy(self) -> None:
        """To be called by whoever changes it."""
        now, busy = time.monotonic(), self._sim.pods_say.busy
        for name in self._busy.keys() - busy:
            del self._busy[name]
            self._idle[name] = now
        for name in busy - self._busy.keys():
            self._busy[name] = now

    def _remember_spec(self, body: Json, now: float) -> None:
        pool = SessionPool.model_validate(body)
        known = self._pools.setdefault(pool.metadata.uid, [])
        if not known or known[-1].value.metadata.generation != pool.metadata.generation:
            if known:
                known[-1].until = now
            known.append(_Past(pool, now))

    def _remember_readiness(self, change: Any, now: float) -> None:
        body = change.after or change.before
        uid = body["metadata"]["uid"]
        if change.after is not None and _serves(pod_view(body)):
            known = self._ready.get(uid)
            since = known.since if known and math.isinf(known.until) else now
            self._ready[uid] = _Past(pod_view(body), since)
        elif uid in self._ready:
            self._ready[uid].until = min(self._ready[uid].until, now)

    def _specs(self, uid: str, now: float) -> list[SessionPool]:
        """That the controller may act by."""
        return [past.value for past in self._pools.get(uid, []) if past.until >= now - self._lag]

    # --- what is judged -----------------------------------------------------------------------------------------------

    def _created(self, pod: PodView, now: float) -> None:
        beside = [
            other
            for other in self._pods()
            if (other.owner.pool_uid, other.owner.node_uid) == (pod.owner.pool_uid, pod.owner.node_uid)
        ]
        slot = pod.owner.revision, pod.owner.slot
        twins = [other.name for other in beside if other.alive and (other.owner.revision, other.owner.slot) == slot]
        if len(twins) > 1:
            self.broken.append(f"one slot has {' and '.join(twins)}")
        specs = self._specs(pod.owner.pool_uid, now)
        most = max((spec.spec.max_pool_size + spec.spec.update.max_surge for spec in specs), default=0)
        standing = [other.name for other in beside if not other.ended]
        if specs and len(standing) > most and now - self._frozen_at > self._lag:
            self.broken.append(f"on {pod.owner.node} stand {', '.join(standing)}: more than {most}")
        if pod.owner.isolation is Isolation.PROCESS:
            alike = [o.name for o in beside if not o.ended and o.owner.isolation is Isolation.PROCESS]
            surge = min(max((spec.spec.update.max_surge for spec in specs), default=0), 1)
            if specs and len(alike) > 1 + surge and now - self._frozen_at > self._lag:
                self.broken.append(f"on {pod.owner.node} stand the Process pods {', '.join(alike)}: not {1 + surge}")

    def _opened(self) -> None:
        """As the pools are now: there is nothing that this gateway is late with."""
        most = {pool["metadata"]["uid"]: pool["spec"]["maxPoolSize"] for pool in self._store.all(SESSION_POOLS)}
        for (pool, node), count in open_slots(self._store, self._pods()).items():
            TALLY.add("judgements of the slots that are open on a node")
            if count > most[pool]:
                self.broken.append(f"{count} slots of a pool are open on {node}: more than {most[pool]}")

    def _grace(self, body: Json, given: int | None) -> None:
        """Its own, or what the pool's drainTimeoutSeconds says by now."""
        uid = body["metadata"]["labels"][names.LABEL_POOL_UID]
        by_pool = [grace_seconds(spec) for spec in self._specs(uid, time.monotonic())]
        least = min([body["spec"]["terminationGracePeriodSeconds"], *by_pool])
        if given is not None and given < least:
            self.broken.append(f"{body['metadata']['name']} is deleted with {given} s of grace, not {least}")

    def _floor(self, pod: PodView, now: float) -> None:
        specs = self._specs(pod.owner.pool_uid, now)
        no_service_at = self._no_service_at.get(pod.owner.pool_uid, -math.inf)
        unclear = max(self._blind_at, self._frozen_at, no_service_at, self._nodes_at)
        known = self._ready.get(pod.uid)
        if not pod.ready or known is None or not specs or not self._belongs(specs[-1], pod):
            return
        if now - max(unclear, known.since) < self._lag:
            return
        TALLY.add("deletions judged by the sessions that they leave")
        floor = min(each.spec.initial_pool_size - each.spec.update.max_unavailable for each in specs)
        most = max(each.spec.initial_pool_size for each in specs)
        beside = [
            other.value
            for uid, other in self._ready.items()
            if other.until >= now - self._lag
            and uid != pod.uid
            and uid not in self._deleted
            and (other.value.owner.pool_uid, other.value.owner.node) == (pod.owner.pool_uid, pod.owner.node)
        ]
        left = sum(most if other.owner.isolation is Isolation.PROCESS else 1 for other in beside)
        if left < floor:
            self.broken.append(f"{pod.name} is deleted, and {left} ready sessions are left of {floor}")

    def _choose(self, pod: PodView, now: float) -> None:
        """Which others go with it shows a moment later."""
        no_service_at = self._no_service_at.get(pod.owner.pool_uid, -math.inf)
        unclear = max(self._blind_at, self._frozen_at, no_service_at, self._nodes_at)
        specs = self._specs(pod.owner.pool_uid, now)
        since = now - KNOWN_SECONDS
        if self._busy.get(pod.name, now) > since or unclear > now - self._lag or not specs:
            return
        if not self._belongs(specs[-1], pod):
            return
        TALLY.add("busy sessions that were deleted")
        instead = frozenset(
            uid
            for uid, past in self._ready.items()
            if math.isinf(past.until)
            and past.since < since
            and (past.value.owner.pool_uid, past.value.owner.node) == (pod.owner.pool_uid, pod.owner.node)
            and past.value.owner.revision == pod.owner.revision
            and self._is_idle(past.value.name, since)
            and uid not in {pod.uid, *self._deleted}
        )
        self._choices.append(_Choice(pod.name, instead, now))

    def _judge_choices(self, now: float) -> None:
        due = [choice for choice in self._choices if now - choice.at > self._lag]
        self._choices = [choice for choice in self._choices if choice not in due]
        for choice in due:
            for uid in choice.instead - self._deleted:
                stays = self._ready[uid]
                if math.isinf(stays.until) and self._is_idle(stays.value.name, choice.at):
                    self.broken.append(f"{choice.name} was busy and is deleted, while {stays.value.name} was idle")

    def _is_idle(self, name: str, since: float) -> bool:
        return name not in self._busy and self._idle.get(name, -math.inf) < since

    def _belongs(self, pool: SessionPool, pod: PodView) -> bool:
        """Whether nothing but a rollout or a resize is a reason to delete it."""
        nodes = [node_view(body) for body in self._store.all(NODES, fields=f"metadata.name={pod.owner.node}")]
        here = [place(pool.spec.placement, node) for node in nodes if node.uid == pod.owner.node_uid]
        return pool.metadata.deletion_timestamp is None and any(p.compute_node and not p.closed for p in here)

    # --- what is covered ----------------------------------------------------------------------------------------------

    def _state(self) -> tuple[Any, ...]:
        """Of the pool: all that decides what happens to it, without names and numbers that go up for ever."""
        pools = self._store.all(SESSION_POOLS)
        revisions = {(pool.get("status") or {}).get("revision") for pool in pools}
        nodes = {body["metadata"]["name"]: str(body["spec"].get("taints")) for body in self._store.all(NODES)}
        pods = sorted(
            (
                nodes.get(pod.owner.node, "gone"),
                pod.owner.node,
                pod.owner.slot,
                pod.owner.pool,
                pod.owner.revision in revisions,
                str(pod.owner.isolation),
                (pod.ready, pod.deleting, pod.ended, pod.started),
                pod.failure.reason if pod.failure else "",
            )
            for pod in self._pods()
        )
        return (*(_sizes(body) for body in pools), tuple(sorted(nodes.items())), tuple(pods))

    def _pods(self) -> Iterator[PodView]:
        return (pod_view(body) for body in self._store.all(PODS) if _is_session_pod(body))


def _is_session_pod(pod: Json) -> bool:
    return names.LABEL_POOL_UID in (pod["metadata"].get("labels") or {})


def _serves(pod: PodView) -> bool:
    return pod.alive and pod.ready


def _sizes(pool: Json) -> tuple[Any, ...]:
    spec = pool["spec"]
    conditions = (pool.get("status") or {}).get("conditions", [])
    said = tuple((each["type"], each["status"], each["reason"]) for each in conditions)
    return spec["initialPoolSize"], spec["maxPoolSize"], spec.get("isolation"), str(spec.get("update")), said
