"""What a controller should say and have done, worked out from the API server's objects alone."""

import time
from collections import Counter
from collections.abc import Iterable

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool, SessionPoolStatus, WebService
from sessionpools.core.observe import node_view, pod_view
from sessionpools.core.placement import Place, place
from sessionpools.core.plan import pods_wanted
from sessionpools.core.status import Observation, pool_status
from sessionpools.core.target import target
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.simulation import NAMESPACE, Simulation


def pool_of(sim: Simulation, name: str = "score") -> SessionPool:
    return SessionPool.model_validate(sim.server.store.get(SESSION_POOLS, name, NAMESPACE))


def places(sim: Simulation, pool: SessionPool) -> dict[str, Place]:
    nodes = (node_view(body) for body in sim.server.store.all(NODES))
    return {node.name: place(pool.spec.placement, node) for node in nodes}


async def status_by_truth(sim: Simulation, name: str = "score") -> SessionPoolStatus:
    """The status that the pool should have now; where nothing has changed for a while, it should be the one it has. The
    controller's own decisions make it: that they are right is for `support.oracle` to say, which knows no messages."""
    store = sim.server.store
    pool = pool_of(sim, name)
    pods = [pod_view(body) for body in store.all(PODS, NAMESPACE)]
    pods = [pod for pod in pods if pod.owner.pool_uid == pool.metadata.uid]
    holding = {pod.owner.node for pod in pods}
    services = [WebService.model_validate(body) for body in store.all(WEB_SERVICES)]
    return pool_status(
        Observation(
            pool=pool,
            target=target(pool, [pool], services, None, sim.config.session_image, pods),
            places={name: p for name, p in places(sim, pool).items() if p.compute_node or name in holding},
            pods=pods,
            reports=await sim.pods_say.reports([pod for pod in pods if pod.started]),
            left={pod.owner.node for pod in pods if pod.deleting and not pod.ended},
            now=time.time(),
        )
    )


def unlike_the_spec(sim: Simulation, name: str = "score") -> list[str]:
    """What is not as the spec says, on a cluster whose nodes are well; nothing: all is."""
    pool = pool_of(sim, name)
    there = {node: p for node, p in places(sim, pool).items() if p.compute_node}
    wanted = pods_wanted(pool)
    sessions = pool.spec.initial_pool_size if wanted else 0
    held = Counter(_node(pod) for pod in _of(name, sim.pods(alive=False)))
    ready = Counter(_node(pod) for pod in _of(name, sim.ready_pods()))
    status = sim.status(name)
    found = [
        f"{name} has {held[node]} pods on {node}, {ready[node]} of them ready, and not {wanted}"
        for node in there.keys() | held.keys()
        if not held[node] == ready[node] == (wanted if node in there else 0)
    ]
    expected = {
        "state": "Success" if there else "NotFound",
        "ready": sessions * len(there),
        "updated": sessions * len(there),
        "desired": pool.spec.initial_pool_size * len(there),
        "total": len(there),
        "observedGeneration": pool.metadata.generation,
    }
    said = {**status, **status.get("sessions", {}), **status.get("nodeCounts", {})}
    found += [f"status of {name}: {field} is {said.get(field)!r}, not {value!r}" for field, value in expected.items()
              if said.get(field) != value]  # fmt: skip
    isolations = {pod["metadata"]["annotations"][names.ANNOTATION_ISOLATION] for pod in _of(name, sim.pods())}
    if not isolations <= {str(pool.spec.isolation)}:
        found.append(f"pods of {name} have isolation {isolations}")
    return found


def may_be(spec: Json) -> bool:
    """Whether the API server accepts these sizes (the rules of the SessionPool's CRD)."""
    update = {"maxSurge": 1, "maxUnavailable": 0, **spec.get("update", {})}
    process = spec.get("isolation") == Isolation.PROCESS
    return (
        spec["initialPoolSize"] <= spec["maxPoolSize"]
        and sum(update.values()) > 0
        and not (process and not update["maxSurge"] and update["maxUnavailable"] < spec["initialPoolSize"])
    )


def _of(pool: str, pods: Iterable[Json]) -> list[Json]:
    return [pod for pod in pods if pod["metadata"]["labels"].get(names.LABEL_POOL) == pool]


def _node(pod: Json) -> str:
    return str(pod["metadata"]["annotations"][names.ANNOTATION_NODE])
