"""docs/operations/metrics.md and what the pods expose name the same metrics."""

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from sessionpools.controller.metrics import Metrics
from sessionpools.gateway.demand import DemandSource, PoolGauges
from sessionpools.gateway.requests import OTHER_OUTCOMES, OUTCOMES, RequestMetrics
from sessionpools.session import control

DOCS = Path(__file__).parents[3] / "docs" / "operations" / "metrics.md"


def section(title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def documented(title: str) -> set[tuple[str, str]]:
    """Name and type, from the tables."""
    return set(re.findall(r"^\| `(sessionpools_\w+)` \| (\w+) \|", section(title), re.MULTILINE))


def exposed(text: bytes) -> set[tuple[str, str]]:
    found = re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE)
    return {(name, kind) for name, kind in found if not name.endswith("_created")}


async def nothing(_: Iterable[str]) -> list[str]:
    return []


def test_the_gateways_metrics_are_documented() -> None:
    registry = CollectorRegistry()
    registry.register(PoolGauges(DemandSource(nothing, dict), dict))
    assert documented("Gateway") == exposed(RequestMetrics().render() + generate_latest(registry))


def test_the_controllers_metrics_are_documented() -> None:
    metrics = Metrics()
    metrics.watch(list, lambda: 0)
    assert documented("Controller") == exposed(generate_latest(metrics.registry))


def test_the_session_pods_metrics_are_documented() -> None:
    assert documented("Session pods") == exposed(control.metrics({"ready": 1, "sessions": []}, [], {}, 0))


def test_every_outcome_of_a_request_is_documented() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section("Gateway"), re.MULTILINE)) == set(OUTCOMES + OTHER_OUTCOMES)
