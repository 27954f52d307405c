"""What a pool's sessions do, out of what the gateways and the session pods say of themselves. Pure.

Queued calls and waiting times are the gateways' (docs/operations/metrics.md): each counts what it has taken, so they
are added up. Which sessions are busy on which node only their pods know; of a pod that does not answer in time they
count as idle, and the gateways' number of busy ones is taken for the pool if it is higher than what the pods said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from sessionpools.api.v1alpha1 import SessionPool, State
from sessionpools.core.model import PodView, SessionReport
from sessionpools.core.sessions import ready_sessions
from sessionpools.web.models.usage import Condition, NodeUsage, PoolUsage, Wait
from sessionpools.web.poolrows import endpoint

__all__ = ["GatewayFigures", "figures", "pool_usage"]

_BUSY, _QUEUED = "sessionpools_gateway_busy", "sessionpools_gateway_queued"
_WAIT = "sessionpools_gateway_queue_seconds"


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """Of one pool, from one gateway. `buckets`: calls that waited at most so many seconds, cumulative."""

    busy: int = 0
    queued: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    buckets: Mapping[float, int] = field(default_factory=dict)


def figures(metrics: str, namespace: str, pool: str) -> GatewayFigures:
    """What a gateway's /metrics says of a pool. Raises ValueError if it is no Prometheus text."""
    wanted = {"namespace": namespace, "pool": pool}
    values = dict.fromkeys((_BUSY, _QUEUED, f"{_WAIT}_count", f"{_WAIT}_sum"), 0.0)
    buckets: dict[float, int] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name not in (_BUSY, _QUEUED, _WAIT):
            continue
        for sample in family.samples:
            if not wanted.items() <= sample.labels.items():
                continue
            if sample.name in values:
                values[sample.name] += sample.value
            elif sample.name == f"{_WAIT}_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0) + int(sample.value)
    return GatewayFigures(
        busy=int(values[_BUSY]),
        queued=int(values[_QUEUED]),
        waits=int(values[f"{_WAIT}_count"]),
        wait_seconds=values[f"{_WAIT}_sum"],
        buckets=buckets,
    )


def pool_usage(
    pool: SessionPool,
    states: Mapping[str, State],
    pods: Sequence[PodView],
    reports: Mapping[str, SessionReport],
    gateways: Sequence[GatewayFigures],
) -> PoolUsage:
    """`states` by node; `reports` by pod uid, of those that answered; `gateways`: those that answered."""
    rows = {row.name: row for row in pool.status.nodes}
    nodes = []
    for name, state in states.items():
        row = rows.get(name)
        there = [pod for pod in pods if pod.owner.node == name and not pod.ended]
        ready = [pod for pod in there if pod.ready and not pod.deleting]
        held = sum(_sessions(pool, pod, reports.get(pod.uid)) for pod in ready)
        busy = sum(reports[pod.uid].busy_sessions for pod in ready if pod.uid in reports)
        usage = NodeUsage(
            node=name,
            compute_node_endpoint=endpoint(name),
            status=state,
            desired=row.desired if row else 0,
            ready=row.ready if row else 0,
            message=row.message if row else "",
            busy=busy,
            idle=max(held - busy, 0),
            starting=sum(pod.alive and not pod.ready for pod in there),
            grown=max(held - pool.spec.initial_pool_size, 0),
        )
        nodes.append(usage)
    busy, held = sum(node.busy for node in nodes), sum(node.busy + node.idle for node in nodes)
    if gateways:
        busy = min(max(busy, sum(each.busy for each in gateways)), held)
    wait = _wait(gateways) if gateways else None
    return PoolUsage(
        name=pool.spec.service_name,
        version=pool.spec.service_version,
        status=_state(states.values()),
        initial_pool_size=pool.spec.initial_pool_size,
        max_pool_size=pool.spec.max_pool_size,
        busy=busy,
        idle=held - busy,
        starting=sum(node.starting for node in nodes),
        queued=sum(each.queued for each in gateways),
        grown=sum(node.grown for node in nodes),
        wait_seconds=wait.mean_seconds if wait else None,
        wait=wait,
        gateways=len(gateways),
        nodes=nodes,
        conditions=[
            Condition(type=each.type, status=each.status, reason=each.reason, message=each.message)
            for each in pool.status.conditions
        ],
    )


def _sessions(pool: SessionPool, pod: PodView, report: SessionReport | None) -> int:
    """Sessions of a ready pod, those grown with demand included if it says so itself."""
    return report.ready_sessions if report else ready_sessions(pool, pod, None)


def _state(states: Iterable[State]) -> State:
    found = set(states)
    if found == {State.SUCCESS}:
        return State.SUCCESS
    return State.NOT_FOUND if found <= {State.NOT_FOUND} else State.PENDING


def _wait(gateways: Sequence[GatewayFigures]) -> Wait:
    count = sum(each.waits for each in gateways)
    buckets: dict[float, int] = {}
    for each in gateways:
        for bound, calls in each.buckets.items():
            buckets[bound] = buckets.get(bound, 0) + calls
    return Wait(
        count=count,
        mean_seconds=sum(each.wait_seconds for each in gateways) / count if count else None,
        p50_seconds=_quantile(buckets, count, 0.5),
        p95_seconds=_quantile(buckets, count, 0.95),
        p99_seconds=_quantile(buckets, count, 0.99),
    )


def _quantile(buckets: Mapping[float, int], count: int, share: float) -> float | None:
    """The lowest bound within which so large a share of the calls waited."""
    bounds = (bound for bound in sorted(buckets) if count and buckets[bound] >= share * count)
    found = next(bounds, math.inf)
    return found if math.isfinite(found) else None
