"""Random lives of one pool: spec changes, nodes, pods' fates, lost watches, API faults, crashes, two leaders at once.

Whatever happens, no slot has two live pods and no node more than was planned; when events stop, the pool is as its spec
says, the status says what is observed, and nothing is written any more.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sessionpools.api import names
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.kubelet import Crash, ImagePullBackOff, NeverReady, Ready, Unschedulable
from support.simulation import NAMESPACE, Simulation

T = TypeVar("T")

NODE_NAMES = ("worker-1", "worker-2", "worker-3")
FATES = (Ready(), NeverReady(), Crash("ImportError: x (import service)"), ImagePullBackOff(), Unschedulable())
MAXIMUM = 4
SURGE = 1


class PoolLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sim = Simulation()
        self.initial = 1
        self.most_planned = 1  # the largest initialPoolSize since the pool was last at rest
        self.code = 0
        self.mixed = False  # one pod for all has stood beside single ones, or will
        self.fate: Any = Ready()
        self.lost: set[str] = set()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(initial=st.integers(0, 3), isolation=st.sampled_from(["Pod", "Process"]))
    def begin(self, initial: int, isolation: str) -> None:
        self.initial = self.most_planned = initial
        self.isolation = isolation
        self.do(self.sim.__aenter__())
        self.sim.kubelet.fate = lambda pod: self.fate
        self.sim.add_node("worker-1")
        self.sim.apply(self.sim.service(), self.sim.pool(initial=initial, maximum=MAXIMUM, isolation=isolation))

    # --- what users do ------------------------------------------------------------------------------------------------

    @rule(initial=st.integers(0, 4))
    def resize(self, initial: int) -> None:
        if self.pool_exists():
            self.initial = initial
            self.most_planned = max(self.most_planned, initial)
            self.sim.edit_pool(initialPoolSize=initial)

    @rule(isolation=st.sampled_from(["Pod", "Process"]))
    def change_isolation(self, isolation: str) -> None:
        if self.pool_exists():
            self.mixed = self.mixed or isolation != self.isolation
            self.isolation = isolation
            self.sim.edit_pool(isolation=isolation)

    @rule()
    def change_code(self) -> None:
        self.code += 1
        if self.service_exists():
            self.sim.edit_service(code={"inline": {"service.py": f"x = {self.code}"}})

    @precondition(lambda self: self.service_exists())
    @rule()
    def unpublish(self) -> None:
        self.sim.server.store.delete(WEB_SERVICES, "score", NAMESPACE)

    @precondition(lambda self: not self.service_exists())
    @rule()
    def publish(self) -> None:
        self.sim.apply(self.sim.service(code=f"x = {self.code}"))

    @rule()
    def delete_and_recreate_the_pool(self) -> None:
        self.sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
        self.sim.apply(self.sim.pool(initial=self.initial, maximum=MAXIMUM, isolation=self.isolation))

    # --- what the cluster does ----------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NODE_NAMES))
    def add_or_remove_a_node(self, name: str) -> None:
        if self.node_exists(name):
            self.sim.server.store.delete(NODES, name)
            self.lost.discard(name)
        else:
            self.sim.add_node(name)

    @rule(name=st.sampled_from(NODE_NAMES))
    def lose_or_return_a_node(self, name: str) -> None:
        if not self.node_exists(name):
            return
        if name in self.lost:
            self.sim.kubelet.return_node(name)
            self.lost.discard(name)
        else:
            self.sim.kubelet.lose_node(name)
            self.lost.add(name)

    @rule(choice=st.integers(0, 20), grace=st.booleans())
    def delete_a_pod(self, choice: int, grace: bool) -> None:
        pods = self.sim.pods()
        if pods:
            victim = pods[choice % len(pods)]["metadata"]
            self.sim.server.store.delete(PODS, victim["name"], NAMESPACE, grace=None if grace else 0)

    @rule(fate=st.sampled_from(FATES))
    def decide_what_becomes_of_pods(self, fate: Any) -> None:
        self.fate = fate

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    @rule(status=st.sampled_from([0, 409, 429, 500]), times=st.integers(1, 4), after=st.booleans())
    def fail_the_next_writes(self, status: int, times: int, after: bool) -> None:
        verb = random.Random(times).choice(["create", "delete", "patch", "*"])
        self.sim.server.fail(verb, None, status, times=times, after=after)

    @rule(lost=st.booleans())
    def resume_watches(self, lost: bool) -> None:
        self.sim.server.resume_watches(lost=lost)

    @rule()
    def pause_watches(self) -> None:
        self.sim.server.pause_watches()

    @rule()
    def drop_watches(self) -> None:
        self.sim.server.drop_watches()

    @rule()
    def replay_old_events(self) -> None:
        self.sim.server.replay(PODS, 3)

    @rule()
    def crash_the_controller(self) -> None:
        self.sim.server.resume_watches()  # one that starts needs its first lists and no more
        self.do(self.sim.stop_controller())
        self.do(self.sim.start_controller())

    @rule(milliseconds=st.integers(1, 200))
    def another_controller_leads_as_well(self, milliseconds: int) -> None:
        self.do(self.sim.second_controller(milliseconds / 1000))

    @rule(milliseconds=st.integers(1, 80))
    def let_time_pass(self, milliseconds: int) -> None:
        self.do(asyncio.sleep(milliseconds / 1000))

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_slot_has_two_live_pods(self) -> None:
        held = Counter(
            (
                pod["metadata"]["labels"][names.LABEL_POOL_UID],
                pod["metadata"]["annotations"][names.ANNOTATION_NODE_UID],
                pod["metadata"]["labels"][names.LABEL_REVISION],
                pod["metadata"]["labels"][names.LABEL_SLOT],
            )
            for pod in self.sim.pods()
        )
        assert all(count == 1 for count in held.values()), held

    @invariant()
    def no_node_has_more_than_was_planned(self) -> None:
        if self.mixed:
            return
        planned = max(self.most_planned, 1 if self.sim_isolation_is_process() else 0)
        uids = {pool["metadata"]["uid"] for pool in self.sim.server.store.all(SESSION_POOLS)}
        held = Counter(
            pod["metadata"]["annotations"][names.ANNOTATION_NODE_UID]
            for pod in self.sim.pods()
            if pod["metadata"]["labels"][names.LABEL_POOL_UID] in uids
        )
        assert all(count <= planned + SURGE for count in held.values()), held

    @invariant()
    def no_node_holds_more_than_maximum_and_surge_even_while_pods_leave(self) -> None:
        uids = {pool["metadata"]["uid"] for pool in self.sim.server.store.all(SESSION_POOLS)}
        held = Counter(
            (pod["metadata"]["labels"][names.LABEL_POOL_UID], pod["metadata"]["annotations"][names.ANNOTATION_NODE_UID])
            for pod in self.sim.pods(alive=False)
            if pod["metadata"]["labels"][names.LABEL_POOL_UID] in uids
        )
        assert all(count <= MAXIMUM + SURGE for count in held.values()), held

    def teardown(self) -> None:
        if not hasattr(self, "isolation"):
            self.loop.close()
            return
        try:
            self.do(self.settles())
        finally:
            self.do(self.sim.__aexit__(None, None, None))
            self.loop.close()

    async def settles(self) -> None:
        sim = self.sim
        sim.server.heal()
        self.fate = Ready()
        for name in self.lost:
            sim.kubelet.return_node(name)
        if not self.service_exists():
            self.publish()
        await sim.until(self.as_the_spec_says, "the pool is as its spec says", seconds=30)
        await sim.comes_to_rest()

    def as_the_spec_says(self) -> bool:
        nodes = [node["metadata"]["name"] for node in self.sim.server.store.all(NODES)]
        wanted = 1 if self.sim_isolation_is_process() else self.initial
        per_node = Counter(pod["metadata"]["annotations"][names.ANNOTATION_NODE] for pod in self.sim.pods(alive=False))
        status = self.sim.status()
        return (
            all(per_node.get(name, 0) == wanted for name in nodes)
            and set(per_node) <= set(nodes)
            and len(self.sim.ready_pods()) == wanted * len(nodes)
            and status.get("state") == ("Success" if nodes else "NotFound")
            and status["sessions"]["ready"] == status["sessions"]["updated"] == self.initial * len(nodes)
            and status["nodeCounts"]["total"] == len(nodes)
        )

    def sim_isolation_is_process(self) -> bool:
        return getattr(self, "isolation", "Pod") == "Process"

    def node_exists(self, name: str) -> bool:
        return any(node["metadata"]["name"] == name for node in self.sim.server.store.all(NODES))

    def service_exists(self) -> bool:
        return bool(self.sim.server.store.all(WEB_SERVICES))

    def pool_exists(self) -> bool:
        return bool(self.sim.server.store.all(SESSION_POOLS))


TestPoolLife = PoolLife.TestCase
TestPoolLife.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
