"""What bench.scale puts on simulated nodes: pools with their web services, and DaemonSets of the same pods."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sessionpools.kube.protocol import Json
from support.pools import session_pool, web_service

SELECTOR_ALL: Final = {"type": "kwok"}
_TOLERATION: Final = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
# What the API server and the scheduler have added to a pod, or what its pool has that a DaemonSet adds itself.
_NOT_OF_A_TEMPLATE: Final = frozenset({"affinity", "nodeName", "preemptionPolicy", "priority", "serviceAccount"})
_LABEL: Final = "bench"


@dataclass(frozen=True)
class Shape:
    """So many pools, each with so many sessions on each node that its selector names."""

    name: str
    selectors: tuple[Mapping[str, str], ...]  # of each pool
    nodes: int  # that each of them selects
    sessions: int
    pairs: int  # of fills by pools and by DaemonSets; 0: the DaemonSets once, and the pools once

    @property
    def pods(self) -> int:
        return len(self.selectors) * self.nodes * self.sessions

    def __str__(self) -> str:
        return f"{len(self.selectors)} pools x {self.nodes} nodes x {self.sessions} sessions = {self.pods} session pods"


def web_services(shape: Shape) -> list[Json]:
    return [web_service(f"pool-{number}") for number in range(len(shape.selectors))]


def pools(shape: Shape) -> list[Json]:
    return [pool(f"pool-{number}", shape.sessions, selector) for number, selector in enumerate(shape.selectors)]


def pool(name: str, sessions: int, selector: Mapping[str, str]) -> Json:
    placement = {"nodeSelector": selector, "tolerations": [_TOLERATION]}
    return session_pool(name, sessions, sessions, isolation="Pod", placement=placement)


def daemon_sets(shape: Shape, pod: Json) -> list[Json]:
    """As many DaemonSets as give the same nodes the same number of pods like `pod`."""
    return [
        _daemon_set(f"set-{number}-{session}", selector, pod)
        for number, selector in enumerate(shape.selectors)
        for session in range(shape.sessions)
    ]


def _daemon_set(name: str, selector: Mapping[str, str], pod: Json) -> Json:
    metadata, spec = pod["metadata"], pod["spec"]
    # Under other names: those would make these pods the controller's.
    labels = {key.replace("sessionpools.dev/", "bench.sessionpools.dev/"): v for key, v in metadata["labels"].items()}
    template = {
        "metadata": {"labels": {**labels, _LABEL: name}, "annotations": metadata["annotations"]},
        "spec": {
            **{key: value for key, value in spec.items() if key not in _NOT_OF_A_TEMPLATE},
            "nodeSelector": dict(selector),
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {_LABEL: name}}, "template": template},
    }
