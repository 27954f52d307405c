"""The controller with hundreds of nodes and thousands of session pods, on the simulated nodes of tests/cluster/kwok-up.

Three shapes: many pools (10 on 100 nodes, a session each), many nodes (one pool on 1,000) and many sessions (50 pools,
each on 20 nodes of its own, 10 sessions a node: 10,000). In each, pools are filled from nothing; beside them the
DaemonSet controller fills as many pods of the same template. Then, with all pods in place: what the controller takes
and writes while nothing changes, how soon it says of a pod that it has failed and replaces one that is gone, and how
it starts again.

The controller is a process of this machine, the cluster's control plane runs in containers of it, so that both share
its processors. docs/benchmarks.md describes the method.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bench import bare_creates, bars, scale_figures
from bench.compare import Comparison, interleaved
from bench.figures import Figure, progress
from bench.scale_cluster import (
    CLUSTER,
    CONTEXT,
    DAEMON_SETS,
    Fleet,
    Pod,
    api_requests,
    control_plane_cpu,
    install_crds,
)
from bench.scale_figures import CONTROLLER, AtRest, Fill
from bench.scale_objects import SELECTOR_ALL, Shape, daemon_sets, pool, pools, web_services
from bench.scale_pods import answering
from bench.scale_process import Controller, controller, kubeconfig, writes
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES, Json, Resource
from support.cluster import temporary_namespace
from support.pools import web_service

_ZONE: Final = "topology.kubernetes.io/zone"  # of 100 simulated nodes
_GROUP: Final = "group"  # of 20 simulated nodes
# Ten times what a control plane on two busy processors takes; then something is wrong.
_DEADLINE_SECONDS: Final = 120.0
_DEADLINE_SECONDS_A_POD: Final = 0.2
_SETTLE_SECONDS: Final = 5.0  # what a fill has left, Events and the garbage collector's work, is done in
_LAST_WORDS_SECONDS: Final = 15.0  # after Success: signatures are asked for, old code is collected


def measure_pools(quick: bool) -> list[Figure]:
    selector, nodes = ({_GROUP: "group-0"}, 20) if quick else ({_ZONE: "zone-0"}, 100)
    return _measure(Shape(bars.SCALE_POOLS, (selector,) * 10, nodes, 1, 1 if quick else 5), quick)


def measure_nodes(quick: bool) -> list[Figure]:
    selector, nodes = ({_ZONE: "zone-0"}, 100) if quick else (SELECTOR_ALL, 1000)
    return _measure(Shape(bars.SCALE_NODES, (selector,), nodes, 1, 1 if quick else 5), quick)


def measure_sessions(quick: bool) -> list[Figure]:
    selectors = tuple({_GROUP: f"group-{number}"} for number in range(5 if quick else 50))
    return _measure(Shape(bars.SCALE_SESSIONS, selectors, 20, 10, 0), quick)


@dataclass
class _Bench:
    """One shape in a namespace of its own, with one controller."""

    shape: Shape
    runner: asyncio.Runner
    fleet: Fleet
    controller: Controller
    base: Mapping[str, float] = field(default_factory=dict)  # CPU seconds a second of each process, without pods
    template: Json = field(default_factory=dict)  # a session pod
    by_pools: list[Fill] = field(default_factory=list)
    by_daemon_sets: list[Fill] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)  # before each fill by pools

    @property
    def deadline(self) -> float:
        return _DEADLINE_SECONDS + self.shape.pods * _DEADLINE_SECONDS_A_POD

    def prepare(self, seconds: float) -> None:
        """Publishes the web services, fills one pod as a template, and measures what the empty cluster takes."""
        for selector in {tuple(selector.items()): selector for selector in self.shape.selectors}.values():
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            found = self.runner.run(self.fleet.nodes(labels))
            if found != self.shape.nodes:
                wanted = f"not {self.shape.nodes}: run tests/cluster/kwok-up {CLUSTER} 1000"
                raise RuntimeError(f"{found} nodes have the labels {labels}, {wanted}")
        self.runner.run(self.fleet.create(WEB_SERVICES, [*web_services(self.shape), web_service("template")]))
        one = [pool("template", 1, {"kubernetes.io/hostname": "kwok-0"})]
        self.runner.run(self.fleet.fill(SESSION_POOLS, one, 1, self.deadline))
        self.template = self.runner.run(self.fleet.a_pod())
        self.runner.run(self.fleet.empty(SESSION_POOLS, one, self.deadline))
        time.sleep(_SETTLE_SECONDS)
        before = self._cpu()
        time.sleep(seconds)
        self.base = {name: used / seconds for name, used in _difference(before, self._cpu()).items()}
        progress(f"{self.shape.name}: without pods, CPU seconds a second: {_shown(self.base)}")

    def fill_pools(self) -> float:
        """Until all session pods are ready; seconds. They stay."""
        self.bare_ms.append(self.runner.run(bare_creates.cpu_ms(CONTEXT, self.template)))
        progress(f"{self.shape.name}: a bare client's request for a pod: CPU ms: {self.bare_ms[-1]:.2f}")
        time.sleep(_SETTLE_SECONDS)
        fill = self._fill(SESSION_POOLS, pools(self.shape))
        self.by_pools.append(fill)
        return fill.ready_seconds

    def pools_block(self) -> float:
        seconds = self.fill_pools()
        self.empty(SESSION_POOLS, pools(self.shape))
        return seconds

    def daemon_sets_block(self) -> float:
        objects = daemon_sets(self.shape, self.template)
        fill = self._fill(DAEMON_SETS, objects)
        self.by_daemon_sets.append(fill)
        self.empty(DAEMON_SETS, objects)
        return fill.ready_seconds

    def empty(self, resource: Resource, objects: Sequence[Json]) -> None:
        began = time.monotonic()
        self.runner.run(self.fleet.empty(resource, objects, self.deadline))
        progress(f"{self.shape.name}: all pods are gone after {time.monotonic() - began:.1f} s")
        time.sleep(_SETTLE_SECONDS)

    def at_rest(self, seconds: float, ends: int) -> AtRest:
        """With all pods in place: the writes of so many seconds; then, of as many pods as `ends` each, the time until
        the status says that one has failed, and until one that was deleted is replaced."""
        time.sleep(_LAST_WORDS_SECONDS)
        before, cpu_before = self.controller.metrics(), self._cpu()
        time.sleep(seconds)
        cpu = _difference(cpu_before, self._cpu())
        written = writes(self.controller.metrics().since(before))
        memory, _ = self.controller.memory_mb()
        progress(f"{self.shape.name}: at rest for {seconds:g} s: {_shown_writes(written)}; {memory:.0f} MB")
        noticed = self._one_after_the_other(ends, self.fleet.noticed)
        progress(f"{self.shape.name}: a failed pod is in the status after {min(noticed):.3f} to {max(noticed):.3f} s")
        replaced = self._one_after_the_other(ends, self.fleet.replaced)
        progress(f"{self.shape.name}: deleted pods are replaced after {min(replaced):.3f} to {max(replaced):.3f} s")
        return AtRest(seconds, written, cpu[CONTROLLER] / seconds, memory, noticed, replaced)

    def _one_after_the_other(self, ends: int, end: Callable[[Pod, float], Coroutine[Any, Any, float]]) -> list[float]:
        """What `end` says of each of so many pods, in seconds; before the next one all pools are as they were."""
        pods = list(self.fleet.pods)
        found = []
        for pod in pods[:: max(len(pods) // ends, 1)][:ends]:
            found.append(self.runner.run(end(pod, self.deadline)))
            self.runner.run(self.fleet.until_all_ready(self.shape.pods, self.deadline))
            self.runner.run(self.fleet.until_success(self.deadline))
            time.sleep(1)
        return found

    def _fill(self, resource: Resource, objects: Sequence[Json]) -> Fill:
        by_pools = resource == SESSION_POOLS
        # The API server's own figures cost it some processor time to tell, so they are asked for outside.
        requests, metrics = api_requests(), self.controller.metrics()
        cpu, began = self._cpu(), time.monotonic()
        created, ready = self.runner.run(self.fleet.fill(resource, objects, self.shape.pods, self.deadline))
        if by_pools:
            self.runner.run(self.fleet.until_success(self.deadline))
        success = time.monotonic() - began
        time.sleep(_SETTLE_SECONDS)
        used, seconds = _difference(cpu, self._cpu()), time.monotonic() - began
        fill = Fill(
            created_seconds=created,
            ready_seconds=ready,
            success_seconds=success,
            cpu_ms={name: (each - self.base[name] * seconds) * 1000 / self.shape.pods for name, each in used.items()},
            requests=api_requests().since(requests),
            metrics=self.controller.metrics().since(metrics),
        )
        who = f"{self.shape.name}: {'pools' if by_pools else 'DaemonSets'}"
        progress(f"{who}: {self.shape.pods} pods are created after {created:.1f} s, ready after {ready:.1f} s")
        progress(f"{who}: CPU ms a pod: {_shown(fill.cpu_ms)}")
        if by_pools:
            progress(f"{who}: Success after {success:.1f} s; {_shown_writes(writes(fill.metrics))}")
        return fill

    def _cpu(self) -> dict[str, float]:
        return control_plane_cpu() | {CONTROLLER: self.controller.cpu_seconds()}


def _measure(shape: Shape, quick: bool) -> list[Figure]:
    progress(f"{shape.name}: {shape}")
    install_crds()
    with (
        temporary_namespace("scale", context=CONTEXT) as namespace,
        kubeconfig(CONTEXT) as config,
        answering() as pods_port,
        _fleet(namespace) as (runner, fleet),
    ):
        runner.run(fleet.alone())
        with controller(config, namespace, pods_port) as process:
            bench = _Bench(shape, runner, fleet, process)
            bench.prepare(10 if quick else 30)
            comparison = _compare(bench)
            bench.fill_pools()  # these pods stay
            rest = bench.at_rest(15 if quick else 60, 3 if quick else 20)
            most = process.memory_mb()[1]
        with controller(config, namespace, pods_port) as again:
            progress(f"{shape.name}: started again, it leads after {again.started_seconds:.1f} s")
            time.sleep(_LAST_WORDS_SECONDS)
            restart = scale_figures.Restart(again.started_seconds, again.memory_mb()[1], writes(again.metrics()))
        # Without a controller: what owns the pods is gone, and so are they.
        bench.empty(SESSION_POOLS, pools(shape))
    return scale_figures.figures(
        shape, comparison, bench.by_pools, bench.by_daemon_sets, bench.bare_ms, rest, most, restart
    )


def _compare(bench: _Bench) -> Comparison | None:
    """The pairs of the shape; without pairs the DaemonSets alone, which then say nothing about a ratio's spread."""
    shape = bench.shape
    if not shape.pairs:
        bench.daemon_sets_block()
        return None
    blocks = {"pools": bench.pools_block, "daemonsets": bench.daemon_sets_block}
    return interleaved(blocks, shape.pairs, lambda done: progress(f"{shape.name}: pair {done} of {shape.pairs}"))


@contextmanager
def _fleet(namespace: str) -> Iterator[tuple[asyncio.Runner, Fleet]]:
    with asyncio.Runner() as runner:
        fleet = runner.run(Fleet.open(namespace))
        try:
            yield runner, fleet
        finally:
            runner.run(fleet.close())


def _difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items()}


def _shown(by_process: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in by_process.items())


def _shown_writes(found: Mapping[tuple[str, str], float]) -> str:
    shown = ", ".join(f"{count:g} {verb} {resource}" for (verb, resource), count in sorted(found.items()))
    return f"its client's writes: {shown or 'none'}"
