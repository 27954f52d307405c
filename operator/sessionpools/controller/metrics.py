"""The controller's Prometheus metrics. Gauges are made from the store when scraped: nothing to keep in step."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sessionpools.api.v1alpha1 import SessionPool
from sessionpools.kube.protocol import Resource

__all__ = ["Metrics"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Nothing is waited for in it, so it is short; finer around the 50 ms that it may take (docs/benchmarks.md).
_DECIDE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """One registry per controller, so that several can live in one process (the simulation's)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "sessionpools_controller_reconcile_seconds",
            "Duration of a reconciliation, API calls included.",
            ["kind"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self.decide_seconds = Histogram(
            "sessionpools_controller_decide_seconds",
            "Processor time of a SessionPool's reconciliation that observes and decides.",
            registry=self.registry,
            buckets=_DECIDE_BUCKETS,
        )
        self.reconcile_errors = Counter(
            "sessionpools_controller_reconcile_errors_total",
            "Reconciliations that failed and come back after a back-off.",
            ["kind"],
            registry=self.registry,
        )
        pods = ["namespace", "pool", "why"]
        self.pods_created = Counter(
            "sessionpools_session_pods_created_total",
            "Session pods created: Initial, Rollout (a new revision) or Demand (growth above initialPoolSize).",
            pods,
            registry=self.registry,
        )
        self.pods_deleted = Counter(
            "sessionpools_session_pods_deleted_total",
            "Session pods deleted by the controller; Idle: retired after idleTimeoutSeconds.",
            pods,
            registry=self.registry,
        )
        self._api_seconds = Histogram(
            "sessionpools_controller_api_seconds",
            "Duration of calls to the API server; status 0: no answer.",
            ["verb", "resource", "status"],
            registry=self.registry,
            buckets=_BUCKETS,
        )

    def watch(
        self,
        pools: Callable[[], Iterable[SessionPool]],
        queue_length: Callable[[], int],
        gateways: Callable[[], int] = lambda: 0,
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        """Shows gauges of these pools, this queue, so many gateways and whether it leads from now on."""
        self.registry.register(_Gauges(pools, queue_length, gateways, leading))

    def forget(self, namespace: str, pool: str) -> None:
        """The pool is no more: nor are its series."""
        for counter in (self.pods_created, self.pods_deleted):
            counter.remove_by_labels({"namespace": namespace, "pool": pool})

    def api_call(self, verb: str, resource: Resource, status: int, seconds: float) -> None:
        """kube.client calls this after each call."""
        self._api_seconds.labels(verb, str(resource), str(status)).observe(seconds)


class _Gauges(Collector):
    def __init__(
        self,
        pools: Callable[[], Iterable[SessionPool]],
        queue_length: Callable[[], int],
        gateways: Callable[[], int],
        leading: Callable[[], bool],
    ) -> None:
        self._pools = pools
        self._queue_length = queue_length
        self._gateways = gateways
        self._leading = leading

    def collect(self) -> Iterable[GaugeMetricFamily]:
        of_pool = ["namespace", "pool"]
        sessions = GaugeMetricFamily(
            "sessionpools_sessions", "Sessions of a pool, by state.", labels=[*of_pool, "state"]
        )
        nodes = GaugeMetricFamily(
            "sessionpools_nodes", "Compute nodes of a pool, by state.", labels=[*of_pool, "state"]
        )
        ready = GaugeMetricFamily("sessionpools_pool_ready", "1 if the pool's Ready condition is True.", labels=of_pool)
        for pool in self._pools():
            labels, status = [pool.metadata.namespace, pool.metadata.name], pool.status
            for state, count in status.sessions:
                sessions.add_metric([*labels, state], count)
            counts = status.node_counts
            for state, count in (
                ("Success", counts.success),
                ("Pending", counts.pending),
                ("NotFound", counts.not_found),
            ):
                nodes.add_metric([*labels, state], count)
            ready.add_metric(labels, any(c.type == "Ready" and c.status == "True" for c in status.conditions))
        length = GaugeMetricFamily("sessionpools_controller_queue_length", "Keys that wait to be reconciled.")
        length.add_metric([], self._queue_length())
        gateways = GaugeMetricFamily(
            "sessionpools_controller_gateways", "Gateway pods that say what is asked of pools."
        )
        gateways.add_metric([], self._gateways())
        leading = GaugeMetricFamily("sessionpools_controller_leading", "1 if this controller leads, 0 if it stands by.")
        leading.add_metric([], self._leading())
        yield from (sessions, nodes, ready, length, gateways, leading)
