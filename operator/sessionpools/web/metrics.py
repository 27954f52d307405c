"""The web API's own figures: requests by route. Served at /metrics of port 12804 beside the process's."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

__all__ = ["Metrics"]

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "sessionpools_web_requests",
            "Requests by route and status; of paths that there are not, route is empty.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "sessionpools_web_request_seconds",
            "From a request's head to the end of its answer.",
            ["method", "route"],
            registry=self.registry,
        )

    def count(self, method: str, route: Any, status: int, seconds: float) -> None:
        """`status` 0: nothing was answered, as the caller had gone."""
        path = str(getattr(route, "path", ""))  # the template: callers choose paths, and must not make series
        known = method if method in _METHODS else "other"
        self._requests.labels(known, path, status).inc()
        self._seconds.labels(known, path).observe(seconds)
