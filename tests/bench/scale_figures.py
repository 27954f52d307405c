"""What bench.scale has measured of a shape, and the figures that it makes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from bench import bars
from bench.bars import scale
from bench.compare import Comparison
from bench.figures import Figure, figure, median_of
from bench.scale_metrics import Samples
from bench.scale_objects import Shape
from bench.scale_process import writes

CONTROLLER: Final = "controller"
_API_SERVER: Final = "kube-apiserver"
_CONTROLLER_MANAGER: Final = "kube-controller"
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY"})
_LEASES: Final = "leases.coordination.k8s.io"
_KINDS: Final = frozenset({"sessionpools", "webservices"})


@dataclass(frozen=True)
class Fill:
    """From the creation of pools, or of DaemonSets, on nodes without pods."""

    created_seconds: float
    ready_seconds: float
    success_seconds: float  # until the status of each pool says so
    cpu_ms: Mapping[str, float]  # by process, a pod; less what it takes without pods in the same time
    requests: Samples  # that the API server has counted meanwhile
    metrics: Samples  # that the controller has counted meanwhile

    def creates(self, code: str = "") -> float:
        """Requests to create a pod, with this answer or with any. By whomever; besides the controller nobody creates
        pods while pools are filled."""
        counts = self.requests.by("apiserver_request_total", "resource", "subresource", "verb", "code")
        return sum(
            count for (*what, answer), count in counts.items() if what == ["pods", "", "POST"] and code in ("", answer)
        )

    @property
    def status_patches(self) -> float:
        """Changes of pools and web services, be they of the status or not: all of them are the controller's, and the
        API server's own count has those of kopf's client in it, of which there should be none."""
        counts = self.requests.by("apiserver_request_total", "resource", "subresource", "verb")
        return sum(
            count
            for (resource, subresource, verb), count in counts.items()
            if resource in _KINDS and verb in _WRITES and (verb, subresource) != ("POST", "")
        )


@dataclass(frozen=True)
class AtRest:
    """With all pods in place."""

    seconds: float
    written: Mapping[tuple[str, str], float]  # by the controller, by verb and resource
    controller_cpu: float  # CPU seconds a second
    memory_mb: float
    noticed_seconds: Sequence[float]  # of each pod that failed, until the status said so
    replaced_seconds: Sequence[float]  # of each pod that was deleted


@dataclass(frozen=True)
class Restart:
    """Of the controller, with all pods in place."""

    leads_seconds: float
    memory_mb: float  # at its most
    written: Mapping[tuple[str, str], float]


def figures(
    shape: Shape,
    comparison: Comparison | None,
    by_pools: Sequence[Fill],
    by_daemon_sets: Sequence[Fill],
    bare_ms: Sequence[float],
    rest: AtRest,
    memory_mb: float,
    restart: Restart,
) -> list[Figure]:
    return [
        *_of_filling(shape, comparison, by_pools, by_daemon_sets),
        *_of_cpu(shape, by_pools, by_daemon_sets, bare_ms),
        *_of_writes(shape, by_pools),
        *_of_reconciliations(shape, by_pools),
        *_of_rest(shape, rest),
        figure(scale(shape.name, bars.SCALE_MEMORY), memory_mb, "MB"),
        figure(scale(shape.name, "controller's memory with all pods in place"), rest.memory_mb, "MB"),
        figure(scale(shape.name, "started again, until it leads"), restart.leads_seconds, "s"),
        figure(scale(shape.name, "started again, memory at its most"), restart.memory_mb, "MB"),
        figure(scale(shape.name, "started again, writes but of the Lease"), _but_leases(restart.written), "writes"),
    ]


def _of_filling(
    shape: Shape, comparison: Comparison | None, by_pools: Sequence[Fill], by_daemon_sets: Sequence[Fill]
) -> list[Figure]:
    found = []
    if comparison:
        found += [
            median_of(scale(shape.name, bars.SCALE_FILL), comparison.ratios("daemonsets"), "x", comparison.valid),
            median_of(scale(shape.name, "pools against themselves"), comparison.control, "x"),
        ]
    else:
        ratio = _ready(by_pools) / _ready(by_daemon_sets)
        found.append(figure(scale(shape.name, bars.SCALE_FILL), ratio, "x"))
    for who, fills in (("pools", by_pools), ("DaemonSets", by_daemon_sets)):
        found += [
            median_of(scale(shape.name, f"{who}: all pods ready"), [fill.ready_seconds for fill in fills], "s"),
            median_of(scale(shape.name, f"{who}: all pods created"), [fill.created_seconds for fill in fills], "s"),
        ]
    return [
        *found,
        median_of(scale(shape.name, "pools: Success"), [fill.success_seconds for fill in by_pools], "s"),
    ]


def _of_cpu(
    shape: Shape, by_pools: Sequence[Fill], by_daemon_sets: Sequence[Fill], bare_ms: Sequence[float]
) -> list[Figure]:
    to_bare = [fill.cpu_ms[CONTROLLER] / bare for fill, bare in zip(by_pools, bare_ms, strict=True)]
    api, daemon_sets = (
        statistics.median(fill.cpu_ms[_API_SERVER] for fill in fills) for fills in (by_pools, by_daemon_sets)
    )
    return [
        _cpu(shape, bars.SCALE_CONTROLLER_CPU, by_pools, CONTROLLER),
        median_of(scale(shape.name, "a bare client's request for a pod, its CPU"), bare_ms, "ms"),
        median_of(scale(shape.name, bars.SCALE_CONTROLLER_TO_BARE), to_bare, "x"),
        _cpu(shape, "controller manager's CPU, a DaemonSet's pod filled", by_daemon_sets, _CONTROLLER_MANAGER),
        _cpu(shape, bars.SCALE_API_CPU, by_pools, _API_SERVER),
        _cpu(shape, "API server CPU, a DaemonSet's pod filled", by_daemon_sets, _API_SERVER),
        figure(scale(shape.name, bars.SCALE_API_TO_DAEMON_SETS), api / daemon_sets, "x"),
    ]


def _cpu(shape: Shape, what: str, fills: Sequence[Fill], process: str) -> Figure:
    return median_of(scale(shape.name, what), [fill.cpu_ms[process] for fill in fills], "ms")


def _of_writes(shape: Shape, fills: Sequence[Fill]) -> list[Figure]:
    def a_pod(what: str, counts: Sequence[float]) -> Figure:
        return median_of(scale(shape.name, what), [count / shape.pods for count in counts], "writes")

    sent = [writes(fill.metrics) for fill in fills]
    kinds = sorted({kind for each in sent for kind in each})
    return [
        a_pod(bars.SCALE_CREATES, [fill.creates() for fill in fills]),
        a_pod("pods created, a pod filled", [fill.creates("201") for fill in fills]),
        a_pod(bars.SCALE_STATUS, [fill.status_patches for fill in fills]),
        *(
            a_pod(
                f"its client's writes, a pod filled: {verb} {resource}",
                [each.get((verb, resource), 0.0) for each in sent],
            )
            for verb, resource in kinds
        ),
    ]


def _of_reconciliations(shape: Shape, fills: Sequence[Fill]) -> list[Figure]:
    counted = reduce(Samples.plus, (fill.metrics for fill in fills))

    def quantile(what: str, name: str, share: float, **labels: str) -> Figure:
        seconds = counted.quantile(f"sessionpools_controller_{name}_seconds", share, **labels)
        return figure(scale(shape.name, what), seconds * 1000, "ms")

    return [
        quantile(bars.SCALE_DECIDE, "decide", 0.99),
        quantile("observe and plan of one pool, p50", "decide", 0.5),
        quantile("reconciliation of one pool, API calls included, p50", "reconcile", 0.5, kind="SessionPool"),
        quantile("reconciliation of one pool, API calls included, p99", "reconcile", 0.99, kind="SessionPool"),
    ]


def _of_rest(shape: Shape, rest: AtRest) -> list[Figure]:
    noticed_ms = [seconds * 1000 for seconds in rest.noticed_seconds]
    replaced_ms = [seconds * 1000 for seconds in rest.replaced_seconds]
    return [
        figure(scale(shape.name, bars.SCALE_IDLE), _but_leases(rest.written), "writes"),
        figure(scale(shape.name, "Lease renewals"), _of_resource(rest.written, _LEASES) * 60 / rest.seconds, "1/min"),
        figure(scale(shape.name, "controller CPU while nothing changes"), rest.controller_cpu * 1000, "ms/s"),
        median_of(scale(shape.name, "the status says that a pod has failed, median"), noticed_ms, "ms"),
        figure(scale(shape.name, "the status says that a pod has failed, slowest"), max(noticed_ms), "ms"),
        median_of(scale(shape.name, "a deleted pod has another in its place, median"), replaced_ms, "ms"),
        figure(scale(shape.name, "a deleted pod has another in its place, slowest"), max(replaced_ms), "ms"),
    ]


def _ready(fills: Sequence[Fill]) -> float:
    return statistics.median(fill.ready_seconds for fill in fills)


def _of_resource(written: Mapping[tuple[str, str], float], wanted: str) -> float:
    return sum(count for (_, resource), count in written.items() if resource == wanted)


def _but_leases(written: Mapping[tuple[str, str], float]) -> float:
    return sum(written.values()) - _of_resource(written, _LEASES)
