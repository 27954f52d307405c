"""Pools that can not start slow no other one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from itertools import cycle
from statistics import median

from sessionpools.api import names
from sessionpools.core.backoff import Backoff
from sessionpools.core.model import PodView, SessionReport
from support.kubelet import Crash, Fate, ImagePullBackOff, NeverReady, Ready, Unschedulable
from support.simulation import PACE, SimulatedPods, Simulation

WORKERS = ("worker-1", "worker-2")
BAD_POOLS = 30
PAIRS = 11


class SilentPods(SimulatedPods):
    """The pods that are not ready take a second, and say nothing."""

    async def reports(self, pods: Iterable[PodView]) -> dict[str, SessionReport]:
        asked = list(pods)
        if not all(pod.ready for pod in asked):
            await asyncio.sleep(1.0)
            asked = [pod for pod in asked if pod.ready]
        return await super().reports(asked)


async def test_thirty_pools_that_can_not_start_slow_another_no_more_than_thirty_that_can() -> None:
    """In turn, as a machine that does other things as well does not do as many at each time."""
    bad: list[Fate] = [
        NeverReady(),
        Crash("ImportError: no foo"),
        NeverReady(),
        ImagePullBackOff(),
        NeverReady(),
        Unschedulable(),
    ]
    async with thirty_pools([Ready()]) as well, thirty_pools(bad) as ill:
        pairs = [
            (await seconds_to_fill(well, f"good-{number}"), await seconds_to_fill(ill, f"good-{number}"))
            for number in range(PAIRS)
        ]
    assert median(beside_ill / beside_well for beside_well, beside_ill in pairs) <= 1.5, pairs


@contextlib.asynccontextmanager
async def thirty_pools(fates: list[Fate]) -> AsyncIterator[Simulation]:
    """Whose pods have these fates."""
    async with Simulation() as sim:
        sim.pods_say = SilentPods()
        # As in production: else the inquiries of a minute come in a second. Nothing is tried again.
        sim.pace = replace(PACE, starting=3.0, backoff=Backoff(60.0, 60.0))
        await sim.restart_controller()
        for worker in WORKERS:
            sim.add_node(worker)
        by_pool = dict(zip((f"bad-{number}" for number in range(BAD_POOLS)), cycle(fates), strict=False))
        sim.kubelet.fate = lambda pod: by_pool.get(pod["metadata"]["labels"][names.LABEL_POOL], Ready())
        for name in by_pool:
            sim.apply(sim.service(name, service=name), sim.pool(name, service=name, initial=2))
        await sim.until(lambda: len(sim.pods()) == 4 * BAD_POOLS, "their pods are there", 30)
        yield sim


async def seconds_to_fill(sim: Simulation, name: str) -> float:
    began = time.monotonic()
    sim.apply(sim.service(name, service=name), sim.pool(name, service=name, initial=20, maximum=20))
    await sim.until(lambda: sim.status(name).get("state") == "Success", f"{name} is filled", 30)
    return time.monotonic() - began
