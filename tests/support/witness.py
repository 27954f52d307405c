"""Looks at a simulated pool after every single change of the API server's objects, so that no moment goes unseen.

    witness = Witness(sim)
    sim.edit_service(...)
    await sim.until(...)
    assert witness.fewest_ready >= 2

What it keeps are extremes, each of the node where it was most so.
"""

import json
import math
from collections import Counter
from typing import Any

from sessionpools.api import names
from sessionpools.core.observe import pod_view
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.kstatus import kstatus
from support.open_slots import open_slots
from support.simulation import Simulation


class Witness:
    """Sees the pool and the web service `score` from now on."""

    def __init__(self, sim: Simulation) -> None:
        self._store = sim.server.store
        publish = self._store.history.publish

        def witnessed(change: Any) -> None:
            publish(change)
            self.look()

        self._store.history.publish = witnessed  # type: ignore[method-assign]
        self.forget()

    def forget(self) -> None:
        """What was so far counts no more."""
        self.fewest_ready: float = math.inf  # sessions that are ready
        self.most_pods = 0  # that hold resources, leaving ones included
        self.most_open = 0  # slots that the gateway has open
        self.reasons: list[tuple[str, str]] = []  # type and reason of each condition that was True, in order
        self.said: dict[str, list[str]] = {"SessionPool": [], "WebService": []}  # by kstatus, in order

    def look(self) -> None:
        pools = [each for each in self._store.all(SESSION_POOLS) if each["metadata"]["name"] == "score"]
        if not pools:
            return
        pods = [pod_view(body) for body in self._store.all(PODS) if names.LABEL_POOL_UID in body["metadata"]["labels"]]
        nodes = [node["metadata"]["name"] for node in self._store.all(NODES)]
        ready: Counter[str] = Counter()
        for pod in pods:
            if pod.alive and pod.ready:
                ready[pod.owner.node] += json.loads(pod.settings)["initialPoolSize"]
        self.fewest_ready = min(self.fewest_ready, *(ready[node] for node in nodes))
        self.most_pods = max([self.most_pods, *Counter(p.owner.node for p in pods if not p.ended).values()])
        self.most_open = max([self.most_open, *open_slots(self._store, pods).values()])
        for thing in (*pools, *self._store.all(WEB_SERVICES)):
            _note(self.said[thing["kind"]], kstatus(thing))
        for condition in (pools[0].get("status") or {}).get("conditions", []):
            if condition["status"] == "True":
                _note(self.reasons, (condition["type"], condition["reason"]))


def _note(told: list[Any], new: Any) -> None:
    if new not in told[-1:]:
        told.append(new)
