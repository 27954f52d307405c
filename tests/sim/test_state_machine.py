"""Random lives of one pool: what users do, what clusters do, and what goes wrong, in any order.

`support.invariants` judges every single change and every write. Wherever it all comes to rest, the status is what
`pool_status` makes of the API server's objects, whatever state they are in. Once the cluster is well again the pool is
as its spec says, kstatus calls it Current, no Event was written twice, and a controller that starts writes nothing.

The lives of a usual run are the same each time. With `SIMULATION_LIVES` and `SIMULATION_STEPS` they are others, and as
many as that says (docs/development.md).
"""

import asyncio
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition
from hypothesis.stateful import rule as uncounted_rule

from sessionpools.api import names
from sessionpools.core.observe import node_view
from sessionpools.kube.protocol import EVENTS, NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.invariants import WATCHES, Invariants
from support.kstatus import CURRENT, FAILED, kstatus
from support.kubelet import Crash, Evicted, Fate, ImagePullBackOff, NeverReady, OOMKilled, Ready, Unschedulable
from support.simulation import NAMESPACE, Simulation
from support.tally import TALLY
from support.truth import may_be, pool_of, status_by_truth, unlike_the_spec

T = TypeVar("T")

LIVES = int(os.environ.get("SIMULATION_LIVES", "16"))
STEPS = int(os.environ.get("SIMULATION_STEPS", "30"))
TIMEOUT_SECONDS = 300 + 15 * LIVES

NODE_NAMES = ("worker-1", "worker-2", "worker-3")
A_NODE = st.sampled_from(NODE_NAMES)
FATES = (
    Ready(), NeverReady(), Crash("ImportError: x (import service)"), OOMKilled(), ImagePullBackOff(), Unschedulable(),
)  # fmt: skip
BETWEEN_STEPS_SECONDS = (0.0, 0.01, 0.03, 0.25)  # in turn: at once, in the middle of its work, and when all is done
DISK = {"disk": "ssd"}
TAINT = {"key": "gpu", "value": "yes"}


def rule(**values: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule whose steps are counted, and followed by a while that the controller has."""

    def counted(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def step(self: "PoolLife", **given: Any) -> None:
            TALLY.step(function.__name__)
            function(self, **given)
            self.steps += 1
            if self.begun:
                self.do(asyncio.sleep(BETWEEN_STEPS_SECONDS[self.steps % len(BETWEEN_STEPS_SECONDS)]))

        return uncounted_rule(**values)(step)  # type: ignore[no-untyped-call]

    return counted


# While watches fail nothing can be said of how few sessions may be left: calm lives are those in which that is judged.
in_rough_lives = precondition(lambda self: not self.calm)


class PoolLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sim = Simulation()
        self.store = self.sim.server.store
        self.judged = Invariants(self.sim)
        self.code = 0
        self.restarts = 0
        self.begun = self.calm = False
        self.steps = 0
        self.fate: Fate = Ready()
        self.fates: dict[str, Fate] = {}  # of pods that have one of their own, by uid
        self.spec: Json = {}  # of the pool, also while it is not there

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(initial=st.integers(0, 3), isolation=st.sampled_from(["Pod", "Process"]), calm=st.booleans())
    def begin(self, initial: int, isolation: str, calm: bool) -> None:
        self.do(self.sim.__aenter__())
        self.begun, self.calm = True, calm
        self.sim.kubelet.fate = lambda pod: self.fates.get(pod["metadata"]["uid"], self.fate)
        self.sim.add_node("worker-1", labels=DISK)
        self.spec = self.sim.pool(initial=initial, maximum=4, isolation=isolation)["spec"]
        self._publish()
        self._make_the_pool()
        TALLY.add("lives of a pool")

    # --- what users do ------------------------------------------------------------------------------------------------

    @rule(initial=st.integers(0, 4), spare=st.integers(0, 3))
    def resize(self, initial: int, spare: int) -> None:
        self._edit(initialPoolSize=initial, maxPoolSize=initial + spare)

    @rule(surge=st.integers(0, 2), unavailable=st.integers(0, 4))
    def change_update(self, surge: int, unavailable: int) -> None:
        self._edit(update={"maxSurge": surge, "maxUnavailable": unavailable})

    @rule(isolation=st.sampled_from(["Pod", "Process"]))
    def change_isolation(self, isolation: str) -> None:
        self._edit(isolation=isolation)

    @rule(select=st.booleans(), tolerate=st.booleans())
    def change_placement(self, select: bool, tolerate: bool) -> None:
        tolerations = [{"key": TAINT["key"], "operator": "Exists"}] if tolerate else []
        self._edit(placement={"nodeSelector": DISK if select else {}, "tolerations": tolerations})

    @rule(seconds=st.sampled_from([1, 60, 600]))
    def change_timeouts(self, seconds: int) -> None:
        self._edit(requestTimeoutSeconds=seconds, drainTimeoutSeconds=seconds)

    @rule()
    def change_code(self) -> None:
        self.code += 1
        if self._services():
            self.sim.edit_service(code={"inline": {"service.py": f"x = {self.code}"}})

    @precondition(lambda self: self._services() and self.code)
    @rule()
    def change_code_back(self) -> None:
        self.code -= 1
        self.sim.edit_service(code={"inline": {"service.py": f"x = {self.code}"}})

    @precondition(lambda self: self._pools())
    @rule()
    def restart_every_session(self) -> None:
        self.restarts += 1
        annotations = {names.ANNOTATION_RESTARTED_AT: str(self.restarts)}
        self.store.edit(SESSION_POOLS, "score", {"metadata": {"annotations": annotations}}, NAMESPACE)

    @precondition(lambda self: self._services())
    @rule()
    def unpublish(self) -> None:
        self.store.delete(WEB_SERVICES, "score", NAMESPACE)

    @precondition(lambda self: not self._services())
    @rule()
    def publish(self) -> None:
        self._publish()

    @precondition(lambda self: self._pools())
    @rule(foreground=st.booleans())
    def delete_the_pool(self, foreground: bool) -> None:
        self.store.delete(SESSION_POOLS, "score", NAMESPACE, propagation="Foreground" if foreground else "Background")

    @precondition(lambda self: not self._pools())
    @rule()
    def make_the_pool_anew(self) -> None:
        self._make_the_pool()

    # --- what the cluster does ----------------------------------------------------------------------------------------

    @rule(name=A_NODE, labelled=st.booleans())
    def add_a_node_or_replace_it_under_its_name(self, name: str, labelled: bool) -> None:
        if self._node(name):
            self.store.delete(NODES, name)
        self.sim.add_node(name, labels=DISK if labelled else {})

    @rule(name=A_NODE)
    def remove_a_node(self, name: str) -> None:
        if self._node(name):
            self.store.delete(NODES, name)

    @rule(name=A_NODE)
    def lose_or_return_a_node(self, name: str) -> None:
        node = self._node(name)
        if node and node_view(node).ready:
            self.sim.kubelet.lose_node(name)
        elif node:
            self.sim.kubelet.return_node(name)

    @rule(name=A_NODE, cordoned=st.booleans())
    def cordon_or_uncordon_a_node(self, name: str, cordoned: bool) -> None:
        if self._node(name):
            self.store.edit(NODES, name, {"spec": {"unschedulable": cordoned or None}})

    @rule(name=A_NODE, effects=st.sampled_from([[], ["NoSchedule"], ["NoExecute"], ["PreferNoSchedule"]]))
    def taint_a_node(self, name: str, effects: list[str]) -> None:
        if node := self._node(name):
            others = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != TAINT["key"]]
            taints = [*others, *({**TAINT, "effect": effect} for effect in effects)]
            self.store.edit(NODES, name, {"spec": {"taints": taints}})

    @rule(name=A_NODE, labelled=st.booleans())
    def relabel_a_node(self, name: str, labelled: bool) -> None:
        if self._node(name):
            self.store.edit(NODES, name, {"metadata": {"labels": {"disk": "ssd" if labelled else None}}})

    @rule(choice=st.integers(0, 20), grace=st.booleans())
    def delete_a_pod(self, choice: int, grace: bool) -> None:
        for victim in self._chosen(choice):
            name = victim["metadata"]["name"]
            self.store.delete(PODS, name, NAMESPACE, grace=None if grace else 0)

    @rule(fate=st.sampled_from(FATES))
    def decide_what_becomes_of_pods(self, fate: Fate) -> None:
        self.fate = fate
        self.fates.clear()

    @rule(choice=st.integers(0, 20), fate=st.sampled_from((*FATES, Evicted())))
    def decide_what_becomes_of_one_pod(self, choice: int, fate: Fate) -> None:
        for pod in self._chosen(choice):
            self.fates[pod["metadata"]["uid"]] = fate

    @rule(choice=st.integers(0, 20))
    def make_a_pod_busy_or_idle(self, choice: int) -> None:
        self.sim.pods_say.busy ^= {pod["metadata"]["name"] for pod in self._chosen(choice)}

    @rule(finish=st.booleans())
    def let_pods_that_leave_take_their_time(self, finish: bool) -> None:
        self.sim.kubelet.finish_deletions = finish

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    @in_rough_lives
    @rule(
        verb=st.sampled_from(["create", "delete", "patch", "*"]),
        status=st.sampled_from([0, 403, 409, 429, 500]),
        times=st.integers(1, 4),
        after=st.booleans(),
    )
    def fail_the_next_requests(self, verb: str, status: int, times: int, after: bool) -> None:
        self.sim.server.fail(verb, None, status, times=times, after=after, retry_after=0.1)

    @in_rough_lives
    @rule(milliseconds=st.integers(1, 80), before=st.booleans())
    def slow_the_next_requests(self, milliseconds: int, before: bool) -> None:
        self.sim.server.delay("*", None, milliseconds / 1000, times=5, before=before)

    @in_rough_lives
    @rule(lost=st.booleans())
    def resume_watches(self, lost: bool) -> None:
        self.sim.server.resume_watches(lost=lost)

    @in_rough_lives
    @rule()
    def pause_watches(self) -> None:
        self.sim.server.pause_watches()

    @in_rough_lives
    @rule()
    def freeze_lists_and_watches(self) -> None:
        self.sim.server.freeze()

    @in_rough_lives
    @rule()
    def drop_watches(self) -> None:
        self.sim.server.drop_watches()

    @in_rough_lives
    @rule()
    def replay_old_events(self) -> None:
        self.sim.server.replay(PODS, 3)

    @in_rough_lives
    @rule()
    def restart_the_controller(self) -> None:
        self.do(self.sim.restart_controller())

    @in_rough_lives
    @rule(number=st.integers(1, 6), when=st.sampled_from(["before", "after"]))
    def crash_at_a_write(self, number: int, when: Any) -> None:
        self.sim.server.at_write(number, when, self.sim.crash_controller)

    @in_rough_lives
    @rule(milliseconds=st.integers(1, 200))
    def another_controller_leads_as_well(self, milliseconds: int) -> None:
        self.do(self.sim.second_controller(milliseconds / 1000))

    @rule(milliseconds=st.sampled_from([10, 80, 400]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.do(asyncio.sleep(milliseconds / 1000))

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_broken(self) -> None:
        assert not self.judged.broken

    def teardown(self) -> None:
        try:
            if self.begun:
                self.do(self._comes_to_its_end())
        finally:
            if self.begun:
                self.do(self.sim.__aexit__(None, None, None))
            self.loop.close()

    async def _comes_to_its_end(self) -> None:
        sim = self.sim
        sim.server.heal()
        await sim.until(lambda: sim.server.watches == WATCHES, "one controller watches, and no other", seconds=30)
        await self._status_is_true()
        await self._make_the_cluster_well()
        try:
            await sim.until(lambda: not unlike_the_spec(sim), seconds=30)
        except AssertionError:
            pytest.fail("\n".join(["not as the spec says:", *unlike_the_spec(sim)]))
        await self._status_is_true()
        nodes = sim.status()["nodeCounts"]["total"]
        things = [*self._pools(), *self._services()]
        assert {kstatus(thing) for thing in things} == {CURRENT if nodes else FAILED}
        before = len(sim.server.writes())
        await sim.restart_controller()
        await sim.comes_to_rest(for_seconds=0.2)
        assert sim.server.writes()[before:] == []
        self._no_event_was_written_twice()
        assert not self.judged.broken

    async def _status_is_true(self) -> None:
        """Once all is at rest; what failed comes again after a back-off, which is no rest."""
        end = time.monotonic() + 30
        while True:
            await self.sim.comes_to_rest(within_seconds=20)
            pools = self._pools()
            if not pools or pool_of(self.sim).status == await status_by_truth(self.sim):
                return
            if time.monotonic() > end:
                assert pool_of(self.sim).status == await status_by_truth(self.sim)

    async def _make_the_cluster_well(self) -> None:
        """Nobody is in the way any more, and what has ended is cleared away; the pool stays what its spec says."""
        self.fate, self.sim.kubelet.finish_deletions = Ready(), True
        self.fates.clear()
        for node in self.store.all(NODES):
            self.sim.kubelet.return_node(node["metadata"]["name"])
            self.store.edit(NODES, node["metadata"]["name"], {"spec": {"unschedulable": None, "taints": None}})
        for pod in self.store.all(PODS):
            if pod["status"].get("phase") == "Failed":
                self.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
        if not self._services():
            self._publish()
        await self.sim.until(lambda: not any("deletionTimestamp" in p["metadata"] for p in self._pools()), "it is gone")
        if not self._pools():
            self._make_the_pool()

    def _no_event_was_written_twice(self) -> None:
        """Within the five minutes that no life takes."""
        done = [each for each in self.sim.server.writes(EVENTS) if each.status in (200, 201)]
        written = Counter(each.name or each.body["metadata"]["name"] for each in done)
        assert all(count == 1 for count in written.values()), written

    # --- what there is ------------------------------------------------------------------------------------------------

    def _pools(self) -> list[Json]:
        return self.store.all(SESSION_POOLS)

    def _services(self) -> list[Json]:
        return self.store.all(WEB_SERVICES)

    def _node(self, name: str) -> Json | None:
        return next((node for node in self.store.all(NODES) if node["metadata"]["name"] == name), None)

    def _chosen(self, choice: int) -> list[Json]:
        """One of the pods that are not leaving, or none."""
        pods = self.sim.pods()
        return [pods[choice % len(pods)]] if pods else []

    def _publish(self) -> None:
        self.sim.apply(self.sim.service(code=f"x = {self.code}"))

    def _make_the_pool(self) -> None:
        self.sim.apply({**self.sim.pool(), "spec": self.spec})

    def _edit(self, **fields: Any) -> None:
        """As far as the API server would accept it."""
        spec = {**self.spec, **fields}
        if may_be(spec):
            self.spec = spec
            for pool in self._pools():
                self.store.update(SESSION_POOLS, "score", {**pool, "spec": spec}, NAMESPACE)


TestPoolLife = pytest.mark.timeout(TIMEOUT_SECONDS)(PoolLife.TestCase)
TestPoolLife.settings = settings(
    max_examples=LIVES,
    derandomize="SIMULATION_LIVES" not in os.environ,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # lives depend on time, and do not shrink
)
