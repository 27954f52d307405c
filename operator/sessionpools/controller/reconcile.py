"""reconcile(key) for pools: observe, decide (core), write the status that was observed and carry out the plan."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.controller.config import Config
from sessionpools.controller.execute import CREATES_AT_ONCE, Executor, names_of
from sessionpools.controller.memory import Code, Memory, Pace
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.report import Reporter
from sessionpools.controller.store import SHOWN_WITHIN_SECONDS, Key, Kind, Store, pool_key, service_key
from sessionpools.core import naming
from sessionpools.core.backoff import doubled
from sessionpools.core.demand import Demand, Wish, elastic, retirable, wishes
from sessionpools.core.handover import unseen_sessions
from sessionpools.core.holds import Holds
from sessionpools.core.keys import key_of, service_of
from sessionpools.core.limits import limit_reached
from sessionpools.core.model import PodView
from sessionpools.core.placement import Place
from sessionpools.core.plan import Plan, plan
from sessionpools.core.progress import only_progress
from sessionpools.core.status import Observation, pool_status, says_more_in_seconds
from sessionpools.core.target import Blocked, CodeProblem, Target, needs_config_map, target
from sessionpools.kube import protocol
from sessionpools.kube.code import read_code
from sessionpools.kube.podclient import PodClient
from sessionpools.kube.protocol import Forbidden, KubeApi, KubeError, NotFound

__all__ = ["PoolReconciler"]

log = logging.getLogger(__name__)


class PoolReconciler:
    def __init__(
        self,
        api: KubeApi,
        store: Store,
        pod_client: PodClient,
        reporter: Reporter,
        config: Config,
        pace: Pace,
        clock: Callable[[], float],
        enqueue: Callable[[Key], None],
        metrics: Metrics,
        demand: Callable[[str], Demand | None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`demand` says what is asked of a pool, by its uid; without it there is no gateway."""
        self._api = api
        self._store = store
        self._pod_client = pod_client
        self._reporter = reporter
        self._config = config
        self._pace = pace
        self._clock = clock
        self._enqueue = enqueue
        self._monotonic = monotonic
        self._metrics = metrics
        self._demand = demand
        self._executor = Executor(api, store, config.pull_policy, metrics)
        self._memory: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which the pool has to be looked at again, or None."""
        found = self._store.pool(key)
        if found is None:
            self._memory.pop(key, None)
            self._metrics.forget(key.namespace, key.name)
            return None
        memory = self._memory_of(key, found)
        pool = self._with_latest_status(found, memory)
        services = self._store.services_of(key_of(pool))
        goal = await self._target(pool, services, memory)
        began = time.thread_time()
        seen, by_demand, ask_again = await self._observe(pool, goal, memory)
        not_before = memory.holds.not_before(self._pace.backoff, memory.uid)
        unseen = self._unseen(seen, memory)
        most = self._most(pool, seen.places)
        steps = plan(pool, goal, seen.places, seen.pods, seen.reports, seen.now, by_demand, unseen, not_before, most)
        memory.left |= {delete.pod.owner.node: self._monotonic() for delete in steps.deletes}
        left = frozenset(memory.left)  # there will be room that nobody has been asked for yet
        seen = replace(seen, left=left, awaits_gateways=self._awaits_gateways(unseen, memory))
        seen = self._within_limit(seen, steps, by_demand)
        decided = time.thread_time() - began - memory.inquiry.waited_seconds
        memory.filling = by_demand is None and all(pod.owner.revision == seen.revision for pod in seen.pods)
        # The status says what was observed before the plan. That it can not be written is no reason not to act.
        report, act = await asyncio.gather(
            self._report(seen, memory, decided), self._act(seen, steps, memory), return_exceptions=True
        )
        if isinstance(act, BaseException):
            raise act
        if isinstance(report, BaseException):
            raise report
        if report is None:
            self._now_handled(service_of(pool, services), memory)
        return _soonest(
            report,
            act,
            steps.look_again_seconds,
            *(at - seen.now for at in not_before.values() if at > seen.now and math.isfinite(at)),
            self._pace.config_map if memory.code else None,
            ask_again,
            says_more_in_seconds(seen),
            await self._collect_garbage(seen, memory),
        )

    def patience(self, key: Key, starting: int) -> float:
        """For how many seconds it can wait that one more pod of the pool starts or is ready, with so many that are
        still on their way to that."""
        memory = self._memory.get(key)
        return min(self._pace.a_start * starting, self._pace.progress) if memory and memory.filling else 0.0

    def pod_left(self, pod: PodView) -> None:
        """A session pod has begun to leave, whoever deletes it."""
        memory = self._memory.get(Key(Kind.POOL, pod.namespace, pod.owner.pool))
        if memory and memory.uid == pod.owner.pool_uid and pod.uid not in memory.deleted:
            memory.taken.append(pod)

    def progress(self, pool: SessionPool, service: WebService) -> tuple[SessionPool, int | None]:
        """The pool with its newest status, be it ahead of the watch, and the generation of the service that this status
        is about; None if the pool was not looked at yet."""
        memory = self._memory.get(pool_key(pool))
        if memory is None or memory.uid != pool.metadata.uid:
            return pool, None
        uid, generation = memory.handled
        return self._with_latest_status(pool, memory), generation if uid == service.metadata.uid else None

    def _now_handled(self, service: WebService | None, memory: Memory) -> None:
        """The pool's status is written, and is about this generation of its service: which the service's own status
        waits for."""
        handled = (service.metadata.uid, service.metadata.generation) if service else ("", 0)
        if service and (handled != memory.handled or memory.written):
            self._enqueue(service_key(service))
        memory.handled, memory.written = handled, False

    def _memory_of(self, key: Key, pool: SessionPool) -> Memory:
        memory = self._memory.get(key)
        if memory is None or memory.uid != pool.metadata.uid:
            memory = self._memory[key] = Memory(pool.metadata.uid)
        return memory

    # --- observe ----------------------------------------------------------------------------------------------------

    def _with_latest_status(self, pool: SessionPool, memory: Memory) -> SessionPool:
        """The pool with the status that was written last, while the watch has not shown it yet."""
        if memory.status is None or self._monotonic() - memory.written_at > self._pace.written:
            return pool
        return pool.model_copy(update={"status": memory.status})

    async def _target(self, pool: SessionPool, services: Sequence[WebService], memory: Memory) -> Target | Blocked:
        namespace = pool.metadata.namespace
        name = needs_config_map(service_of(pool, services))
        memory.code = await self._read_code(name, namespace, memory.code) if name else None
        code = memory.code.content if memory.code else None
        pools, pods = self._store.pools_of(key_of(pool)), self._store.pods_of(pool)
        return target(pool, pools, services, code, self._config.session_image, pods)

    async def _read_code(self, name: str, namespace: str, before: Code | None) -> Code:
        now = self._monotonic()
        # a little less than the interval, so that the run that comes for it does read
        if before and before.name == name and now - before.read_at < self._pace.config_map * 0.9:
            return before
        try:
            content = await self._api.get(protocol.CONFIG_MAPS, name, namespace=namespace)
        except NotFound:
            message = f"the code's ConfigMap {name!r} does not exist in namespace {namespace!r}; create it"
            return Code(name, now, CodeProblem("ConfigMapNotFound", message))
        except Forbidden as error:
            problem = CodeProblem("ConfigMapForbidden", f"the code's ConfigMap {name!r}: {error.message}")
            return Code(name, now, problem)
        return Code(name, now, read_code(content))

    async def _observe(
        self, pool: SessionPool, goal: Target | Blocked, memory: Memory
    ) -> tuple[Observation, Mapping[str, Wish] | None, float | None]:
        """What there is, what demand asks of each node, and in how many seconds a session pod should be asked again."""
        pods = self._store.pods_of(pool)
        holding = {pod.owner.node for pod in pods}
        places = self._store.places.of(pool.spec.placement, holding)
        revision = goal.revision.name if isinstance(goal, Target) else ""
        self._hold(pool, revision, places, pods, memory)
        held = memory.holds.waiting(self._pace.backoff, memory.uid, self._clock())
        inquiry, now, interval = memory.inquiry, self._monotonic(), self._pace.starting
        by_demand: Mapping[str, Wish] | None = None
        if self._store.ledger:
            self._store.ledger.blocked(pool.metadata.uid, isinstance(goal, Blocked))
        if self._demand and elastic(pool) and isinstance(goal, Target):
            demand, before = self._demand(pool.metadata.uid), memory.sessions
            most = self._most(pool, places)
            by_demand = wishes(pool, revision, demand, places, pods, before, {}, self._clock(), held, most)
            idle = retirable(pool, revision, demand, places, pods, before)
            sessions = {node: wish.sessions for node, wish in by_demand.items()}
            again = await inquiry.ask(self._pod_client, pool, revision, pods, now, interval, sessions, idle)
            # pods may have taken a second to answer: who waits for a place that is free by now is called by nobody
            then, rested = (demand, most), inquiry.idle
            demand, most = self._demand(pool.metadata.uid), self._most(pool, places)
            if then != (demand, most) or rested:
                by_demand = wishes(pool, revision, demand, places, pods, before, rested, self._clock(), held, most)
            memory.sessions = {node: wish.sessions for node, wish in by_demand.items()}
        else:
            memory.sessions = {}  # of an isolation that was
            again = await inquiry.ask(self._pod_client, pool, revision, pods, now, interval)
        memory.left = {node: at for node, at in memory.left.items() if now - at < self._pace.room}
        memory.left |= {pod.owner.node: now for pod in pods if pod.deleting and not pod.ended}
        reports, left, epoch = dict(inquiry.reports), frozenset(memory.left), self._clock()
        failures = memory.holds.failures(self._pace.backoff, memory.uid, epoch)
        seen = Observation(pool, goal, places, pods, reports, failures, left, now=epoch)
        return seen, by_demand, _soonest(again, self._pace.room if left else None)

    def _most(self, pool: SessionPool, places: Mapping[str, Place]) -> Mapping[str, int] | None:
        """How many sessions the pool may have on each node now; None: there is no limit."""
        ledger = self._store.ledger
        return ledger.most(pool.metadata.uid, places) if ledger else None

    def _within_limit(self, seen: Observation, steps: Plan, by_demand: Mapping[str, Wish] | None) -> Observation:
        """With the nodes whose limit holds something back. Others hear at once of what is about to be done: nothing is
        awaited between `most` and this."""
        ledger = self._store.ledger
        if ledger is None:
            return seen
        growth = {node for node, wish in (by_demand or {}).items() if wish.limited}
        awaited = self._store.awaited(seen.pool)
        again = names_of((each for each in steps.creates if each.node.name in awaited), seen.pool, seen.revision)
        awaited = self._store.awaited(seen.pool, but=again)
        ledger.decided(seen.pool, seen.pods, steps, growth.union(steps.limited), awaited)
        if not steps.limited:
            return seen
        failure = limit_reached(seen.pool, ledger.limit)
        return replace(seen, held={**seen.held, **dict.fromkeys(steps.limited, failure)})

    def _hold(
        self, pool: SessionPool, revision: str, places: Mapping[str, Place], pods: Sequence[PodView], memory: Memory
    ) -> None:
        """Takes what has happened since the last run into the pool's holds."""
        made_for = (pool.metadata.generation, revision)
        holds = memory.holds if made_for == memory.made_for else Holds()
        taken, memory.taken, memory.made_for = memory.taken, [], made_for
        memory.deleted &= {pod.uid for pod in pods}
        standing = frozenset(pod.uid for pod in pods if not pod.ended)
        if memory.standing - standing:
            holds = holds.with_room()
        memory.standing = standing
        memory.holds = holds.of(places).after_deletions(taken, self._clock(), self._pace.backoff, memory.uid)

    def _unseen(self, seen: Observation, memory: Memory) -> float:
        """The new sessions of a rollout that have to be taken in by a gateway before as many old ones go. One that does
        not say what it has holds a rollout up for a while only."""
        if self._demand is None or not isinstance(seen.target, Target):
            return 0.0
        pool, now = seen.pool, self._monotonic()
        unseen = unseen_sessions(pool, seen.revision, self._demand(pool.metadata.uid), seen.pods)
        if not math.isinf(unseen):
            memory.unknown_since = None
            return unseen
        if memory.unknown_since is None:
            memory.unknown_since = now
        if now - memory.unknown_since < self._pace.gateway:
            return unseen
        if memory.unknown_told != seen.revision:
            memory.unknown_told = seen.revision
            fields = {"namespace": pool.metadata.namespace, "pool": pool.metadata.name, "revision": seen.revision}
            log.warning("rollout goes on: no gateway says which session pods it has", extra=fields)
        return 0.0

    def _awaits_gateways(self, unseen: float, memory: Memory) -> bool:
        now = self._monotonic()
        memory.unseen_since = (memory.unseen_since or now) if unseen else None
        return memory.unseen_since is not None and now - memory.unseen_since >= self._pace.unseen

    # --- act and report ---------------------------------------------------------------------------------------------

    async def _act(self, seen: Observation, steps: Plan, memory: Memory) -> float | None:
        """Carries the plan out; returns when the rest of it is due."""
        memory.deleted |= {delete.pod.uid for delete in steps.deletes}
        goal = seen.target if isinstance(seen.target, Target) else None
        steps = replace(steps, creates=self._executor.unsent(seen.pool, seen.revision, steps.creates))
        if steps.creates and seen.revision not in memory.collected:
            memory.collected = frozenset()  # its code is about to be copied, and may be of no use soon
        refused = await self._executor.execute(seen.pool, goal, steps)
        if self._store.ledger:
            self._store.ledger.refused(seen.pool, refused, self._store.awaited(seen.pool))
        waiting = memory.holds.waiting(self._pace.backoff, memory.uid, seen.now)
        tried = {create.node.name for create in steps.creates[:CREATES_AT_ONCE]} | refused.keys()
        before, memory.holds = memory.holds, memory.holds.after_creating(tried, refused, waiting, self._clock())
        if before.refused != memory.holds.refused or len(steps.creates) > CREATES_AT_ONCE:
            return 0.0  # what is said of the nodes has changed, or the rest is due
        return _soonest(
            # One that was not ready stays if it has changed since it was seen, be it in what is of no interest here.
            self._pace.deleted if any(not delete.pod.ready for delete in steps.deletes) else None,
            # One that came and went while nobody watched is never shown.
            SHOWN_WITHIN_SECONDS if self._store.awaited(seen.pool) else None,
        )

    async def _report(self, seen: Observation, memory: Memory, decided: float) -> float | None:
        """Writes the status if it differs and the last one is long enough ago; returns when to come back for it.
        `decided` is how many seconds of processor time it took to decide before."""
        pool, now, began = seen.pool, self._monotonic(), time.thread_time()
        status = pool_status(seen)
        self._metrics.decide_seconds.observe(decided + time.thread_time() - began)
        memory.settled = not any(c.type == "Reconciling" and c.status == "True" for c in status.conditions)
        if status == pool.status:
            return None
        told = memory.progress_told if only_progress(pool.status, status) else 0
        early = memory.written_at + doubled(self._pace.status, self._pace.progress, told) - now
        if early > 0 and memory.status is not None:
            return early
        if await self._reporter.report(protocol.SESSION_POOLS, pool.metadata, pool.status, status):
            memory.status, memory.written_at, memory.written = status, now, True
            memory.progress_told = told + 1
        return None

    async def _collect_garbage(self, seen: Observation, memory: Memory) -> float | None:
        """Once a revision is rolled out, the ConfigMaps of older ones go, those of pods that are there as soon as these
        are gone. Returns when to try again."""
        goal = seen.target
        if not isinstance(goal, Target) or not memory.settled:
            return None
        in_use = frozenset({goal.revision.name, *(pod.owner.revision for pod in seen.pods)})
        if memory.collected == in_use:
            return None
        namespace = goal.service.metadata.namespace
        selector = f"{names.LABEL_SERVICE}={naming.digest(goal.service.metadata.uid)}"
        try:
            page = await self._api.list_page(protocol.CONFIG_MAPS, namespace=namespace, label_selector=selector)
            for metadata in (item["metadata"] for item in page["items"]):
                if metadata["labels"].get(names.LABEL_REVISION) not in in_use:
                    await self._api.delete(
                        protocol.CONFIG_MAPS, metadata["name"], namespace=namespace, uid=metadata["uid"]
                    )
        except KubeError as error:  # NotFound among them: somebody else was faster
            log.info("old code not collected", extra={"pool": seen.pool.metadata.name, "error": str(error)})
            return self._pace.backoff.first_seconds
        memory.collected = in_use
        return None


def _soonest(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
