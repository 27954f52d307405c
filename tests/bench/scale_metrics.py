"""Prometheus text of two times, and what lies between them: counters by label, quantiles of histograms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

_Labels = frozenset[tuple[str, str]]


class Samples:
    def __init__(self, values: Mapping[tuple[str, _Labels], float]) -> None:
        self._values = values

    @classmethod
    def parse(cls, text: str, prefix: str) -> Samples:
        """Of the metrics whose names begin so; all that an API server has would take seconds."""
        wanted = "\n".join(line for line in text.splitlines() if prefix in line[: len(prefix) + 8])
        found = text_string_to_metric_families(wanted + "\n")
        return cls({(s.name, frozenset(s.labels.items())): s.value for family in found for s in family.samples})

    def since(self, before: Samples) -> Samples:
        """What was counted after `before`."""
        return Samples({series: value - before._values.get(series, 0.0) for series, value in self._values.items()})

    def plus(self, other: Samples) -> Samples:
        """What both have counted."""
        series = self._values.keys() | other._values.keys()
        return Samples({each: self._values.get(each, 0.0) + other._values.get(each, 0.0) for each in series})

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums by the values of these labels; without what is 0."""
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for (series, found), value in self._values.items():
            if series == name and value:
                of = dict(found)
                sums[tuple(of.get(label, "") for label in labels)] += value
        return dict(sums)

    def total(self, name: str) -> float:
        return sum(self.by(name).values())

    def quantile(self, name: str, share: float, **labels: str) -> float:
        """As Prometheus' histogram_quantile: straight lines within a bucket; what is in none has the last bound."""
        buckets: defaultdict[float, float] = defaultdict(float)
        for (series, found), value in self._values.items():
            of = dict(found)
            if series == f"{name}_bucket" and all(of.get(label) == wanted for label, wanted in labels.items()):
                buckets[float(of["le"])] += value
        if not buckets.get(math.inf):
            raise ValueError(f"{name} {labels or ''} has observed nothing")
        rank = share * buckets[math.inf]
        lower = below = 0.0
        for bound, count in sorted(buckets.items()):
            if math.isinf(bound):
                break
            if count >= rank and count > below:
                return lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return lower
