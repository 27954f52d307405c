"""reconcile(key) for pools: observe, decide (core), write the status, carry out the plan.

The status is written before the plan is carried out, as it says what was observed and not what was intended.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sessionpools.api import names
from sessionpools.api.v1alpha1 import SessionPool, SessionPoolStatus
from sessionpools.controller.config import Config
from sessionpools.controller.execute import Executor
from sessionpools.controller.inquiry import Inquiry
from sessionpools.controller.podclient import PodClient
from sessionpools.controller.report import Reporter
from sessionpools.controller.store import Key, Store
from sessionpools.core import naming
from sessionpools.core.model import Failure
from sessionpools.core.placement import Place, place
from sessionpools.core.plan import plan
from sessionpools.core.revision import CodeFiles
from sessionpools.core.status import Observation, pool_status
from sessionpools.core.target import Blocked, CodeProblem, Target, needs_config_map, service_of, target
from sessionpools.kube import protocol
from sessionpools.kube.code import read_code
from sessionpools.kube.protocol import KubeApi, NotFound

__all__ = ["Pace", "PoolReconciler"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are done that no event asks for; seconds. Simulations go faster."""

    status: float = 1.0  # between two status writes of a pool, at least
    config_map: float = 5.0  # users' ConfigMaps are read, not watched: that would take every ConfigMap there is
    starting: float = 3.0  # starting pods are asked for their phase
    refused: float = 15.0  # a pod that the API server refused is tried again
    written: float = 5.0  # the watch shows a status that was written within this time


@dataclass(slots=True)
class _Memory:
    """What is remembered of a pool between two runs; all of it can be lost."""

    uid: str
    inquiry: Inquiry = field(default_factory=Inquiry)
    refused: dict[str, Failure] = field(default_factory=dict)
    refused_at: float = 0.0
    status: SessionPoolStatus | None = None  # as last written, until the watch shows it
    written_at: float = -1e9


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
    ) -> None:
        self._api = api
        self._store = store
        self._pod_client = pod_client
        self._reporter = reporter
        self._config = config
        self._pace = pace
        self._clock = clock
        self._executor = Executor(api, store, config.pull_policy)
        self._memory: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Returns the seconds after which the pool has to be looked at again, or None."""
        found = self._store.pool(key)
        if found is None:
            self._memory.pop(key, None)
            return None
        memory = self._memory_of(key, found)
        pool = self._with_latest_status(found, memory)
        now = self._clock()
        goal = await self._target(pool)
        seen, ask_again = await self._observe(pool, goal, memory, now)
        after = await self._report(seen, memory, now)
        steps = plan(pool, goal, seen.places, seen.pods, seen.reports, now)
        held = memory.refused_at + self._pace.refused - now
        if memory.refused and held > 0:
            await self._executor.execute(pool, None, replace(steps, creates=()))
        else:
            refused = await self._executor.execute(pool, goal if isinstance(goal, Target) else None, steps)
            after = 0.0 if refused != memory.refused else after  # the status says it at once
            memory.refused, memory.refused_at, held = refused, now, self._pace.refused
        return _soonest(
            after,
            steps.look_again_seconds,
            held if memory.refused else None,
            self._pace.config_map if self._code_config_map(pool) else None,
            ask_again,
        )

    def _memory_of(self, key: Key, pool: SessionPool) -> _Memory:
        memory = self._memory.get(key)
        if memory is None or memory.uid != pool.metadata.uid:
            memory = self._memory[key] = _Memory(pool.metadata.uid)
        return memory

    # --- observe ----------------------------------------------------------------------------------------------------

    def _with_latest_status(self, pool: SessionPool, memory: _Memory) -> SessionPool:
        """The pool with the status that was written last, while the watch has not shown it yet."""
        if memory.status is None or self._clock() - memory.written_at > self._pace.written:
            return pool
        return pool.model_copy(update={"status": memory.status})

    async def _target(self, pool: SessionPool) -> Target | Blocked:
        namespace = pool.metadata.namespace
        services = self._store.services_in(namespace)
        name = self._code_config_map(pool)
        code = await self._config_map_code(name, namespace) if name else None
        return target(pool, self._store.pools_in(namespace), services, code, self._config.session_image)

    def _code_config_map(self, pool: SessionPool) -> str:
        return needs_config_map(service_of(pool, self._store.services_in(pool.metadata.namespace)))

    async def _config_map_code(self, name: str, namespace: str) -> CodeFiles | CodeProblem:
        try:
            return read_code(await self._api.get(protocol.CONFIG_MAPS, name, namespace=namespace))
        except NotFound:
            message = f"the code's ConfigMap {name!r} does not exist in namespace {namespace!r}; create it"
            return CodeProblem("ConfigMapNotFound", message)

    async def _observe(
        self, pool: SessionPool, goal: Target | Blocked, memory: _Memory, now: float
    ) -> tuple[Observation, float | None]:
        """What there is, and in how many seconds a session pod should be asked again."""
        pods = self._store.pods_of(pool)
        holding = {pod.owner.node for pod in pods}
        all_places = (place(pool.spec.placement, node) for node in self._store.nodes.values())
        places: dict[str, Place] = {p.node.name: p for p in all_places if p.compute_node or p.node.name in holding}
        revision = goal.revision.name if isinstance(goal, Target) else ""
        again = await memory.inquiry.ask(self._pod_client, pool, revision, pods, now, self._pace.starting)
        return Observation(pool, goal, places, pods, dict(memory.inquiry.reports), dict(memory.refused)), again

    # --- report -----------------------------------------------------------------------------------------------------

    async def _report(self, seen: Observation, memory: _Memory, now: float) -> float | None:
        """Writes the status if it differs, at most once a second; returns when to come back for it."""
        pool = seen.pool
        status = pool_status(seen, datetime.fromtimestamp(int(now), UTC))
        if status == pool.status:
            return None
        early = memory.written_at + self._pace.status - now
        if early > 0 and memory.status is not None:
            return early
        if not await self._reporter.report(protocol.SESSION_POOLS, pool.metadata, pool.status, status):
            return None
        memory.status, memory.written_at = status, now
        await self._collect_garbage(seen, status)
        return None

    async def _collect_garbage(self, seen: Observation, status: SessionPoolStatus) -> None:
        """Once a rollout is over, the ConfigMaps of older revisions go; those of running pods stay."""
        goal, before = seen.target, {c.type: c for c in seen.pool.status.conditions}
        was = before.get("Reconciling")
        now = next((c for c in status.conditions if c.type == "Reconciling"), None)
        finished = was is not None and was.status == "True" and now is not None and now.status == "False"
        if not (finished and isinstance(goal, Target)):
            return
        namespace = goal.service.metadata.namespace
        in_use = {goal.revision.name, *(pod.owner.revision for pod in seen.pods)}
        selector = f"{names.LABEL_SERVICE}={naming.digest(goal.service.metadata.uid)}"
        page = await self._api.list_page(protocol.CONFIG_MAPS, namespace=namespace, label_selector=selector)
        for item in page["items"]:
            metadata = item["metadata"]
            if metadata["labels"].get(names.LABEL_REVISION) not in in_use:
                try:
                    await self._api.delete(
                        protocol.CONFIG_MAPS, metadata["name"], namespace=namespace, uid=metadata["uid"]
                    )
                except NotFound:
                    continue


def _soonest(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
