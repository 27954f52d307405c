"""Random lives of one pool: what users do, what clusters do, and what goes wrong, in any order.

`support.invariants` judges every single change and every write. Wherever it all comes to rest, the status is what
`pool_status` makes of the API server's objects, whatever state they are in. Once the cluster is well again the pool is
as its spec says, kstatus calls it Current, no Event was written twice, and a controller that starts writes nothing.

The lives of a usual run are the same each time; with `SIMULATION_SEED` those that follow from it, with
`SIMULATION_LIVES` and `SIMULATION_STEPS` others, and as many as that says (docs/development.md).
"""

import asyncio
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from sessionpools.api import names
from sessionpools.core.observe import node_view
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.kubelet import Crash, Evicted, Fate, ImagePullBackOff, NeverReady, OOMKilled, Ready, Unschedulable
from support.life import DISK, OTHER, POOL, Life, in_rough_lives, rule, where, with_a_gateway
from support.seed import LIVES, SEED, STEPS, is_long
from support.simulation import NAMESPACE
from support.truth import may_be

TIMEOUT_SECONDS = 300 + 15 * LIVES

NODE_NAMES = ("worker-1", "worker-2", "worker-3")
A_NODE = st.sampled_from(NODE_NAMES)
FATES = (
    Ready(), NeverReady(), Crash("ImportError: x (import service)"), OOMKilled(), ImagePullBackOff(), Unschedulable(),
)  # fmt: skip
TAINT = {"key": "gpu", "value": "yes"}


class PoolLife(Life):
    @initialize(
        initial=st.integers(0, 3),
        isolation=st.sampled_from(["Pod", "Process"]),
        calm=st.booleans(),
        has_gateway=st.booleans(),
        limit=st.sampled_from([0, 6]),
        asked=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    )
    def begin(self, **how: Any) -> None:
        self.start(**how)

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
        if self.service_is_there():
            self.sim.edit_service(code={"inline": {"service.py": f"x = {self.code}"}})

    @rule()
    @where(lambda self: self.service_is_there() and self.code)
    def change_code_back(self) -> None:
        self.code -= 1
        self.sim.edit_service(code={"inline": {"service.py": f"x = {self.code}"}})

    @rule()
    @where(lambda self: self.pool_is_there())
    def restart_every_session(self) -> None:
        self.restarts += 1
        annotations = {names.ANNOTATION_RESTARTED_AT: str(self.restarts)}
        self.store.edit(SESSION_POOLS, "score", {"metadata": {"annotations": annotations}}, NAMESPACE)

    @rule()
    @where(lambda self: self.service_is_there())
    def unpublish(self) -> None:
        self.store.delete(WEB_SERVICES, "score", NAMESPACE)

    @rule()
    @where(lambda self: not self.service_is_there())
    def publish(self) -> None:
        self.publish_it()

    @rule(foreground=st.booleans())
    @where(lambda self: self.pool_is_there())
    def delete_the_pool(self, foreground: bool) -> None:
        self.store.delete(SESSION_POOLS, "score", NAMESPACE, propagation="Foreground" if foreground else "Background")

    @rule()
    @where(lambda self: not self.pool_is_there())
    def make_the_pool_anew(self) -> None:
        self.make_the_pool()

    @rule(initial=st.integers(0, 2), spare=st.integers(0, 2))
    def resize_the_other_pool(self, initial: int, spare: int) -> None:
        self.sim.edit_pool(OTHER, initialPoolSize=initial, maxPoolSize=initial + spare)

    @rule(number=st.integers(0, 3))
    def change_the_code_of_the_other_pool(self, number: int) -> None:
        self.sim.edit_service(OTHER, code={"inline": {"service.py": f"y = {number}"}})

    # --- what callers do ----------------------------------------------------------------------------------------------

    @with_a_gateway
    @rule(busy=st.integers(0, 6), queued=st.integers(0, 6))
    def calls_come(self, busy: int, queued: int) -> None:
        self.gateway.asked = (busy, queued)

    @rule(choice=st.integers(0, 20))
    def make_a_pod_busy_or_idle(self, choice: int) -> None:
        self.sim.idle_pods.busy ^= {pod["metadata"]["name"] for pod in self.chosen(choice)}
        self.judged.look_who_is_busy()

    @with_a_gateway
    @rule(idle=st.booleans())
    def sessions_rest_for_long_or_not(self, idle: bool) -> None:
        self.sim.idle_pods.idle_seconds = 1e6 if idle else 0.0

    # --- what the cluster does ----------------------------------------------------------------------------------------

    @rule(name=A_NODE, labelled=st.booleans())
    def add_a_node_or_replace_it_under_its_name(self, name: str, labelled: bool) -> None:
        if self.node(name):
            self.store.delete(NODES, name)
        self.sim.add_node(name, labels=DISK if labelled else {})

    @rule(name=A_NODE)
    def remove_a_node(self, name: str) -> None:
        if self.node(name):
            self.store.delete(NODES, name)

    @rule(name=A_NODE)
    def lose_or_return_a_node(self, name: str) -> None:
        node = self.node(name)
        if node and node_view(node).ready:
            self.sim.kubelet.lose_node(name)
        elif node:
            self.sim.kubelet.return_node(name)

    @rule(name=A_NODE, cordoned=st.booleans())
    def cordon_or_uncordon_a_node(self, name: str, cordoned: bool) -> None:
        if self.node(name):
            self.store.edit(NODES, name, {"spec": {"unschedulable": cordoned or None}})

    @rule(name=A_NODE, effects=st.sampled_from([[], ["NoSchedule"], ["NoExecute"], ["PreferNoSchedule"]]))
    def taint_a_node(self, name: str, effects: list[str]) -> None:
        if node := self.node(name):
            others = [taint for taint in node["spec"].get("taints") or [] if taint["key"] != TAINT["key"]]
            taints = [*others, *({**TAINT, "effect": effect} for effect in effects)]
            self.store.edit(NODES, name, {"spec": {"taints": taints}})

    @rule(name=A_NODE, labelled=st.booleans())
    def relabel_a_node(self, name: str, labelled: bool) -> None:
        if self.node(name):
            self.store.edit(NODES, name, {"metadata": {"labels": {"disk": "ssd" if labelled else None}}})

    @rule(choice=st.integers(0, 20), grace=st.booleans())
    def delete_a_pod(self, choice: int, grace: bool) -> None:
        for victim in self.chosen(choice):
            name = victim["metadata"]["name"]
            self.store.delete(PODS, name, NAMESPACE, grace=None if grace else 0)

    @rule(fate=st.sampled_from(FATES))
    def decide_what_becomes_of_pods(self, fate: Fate) -> None:
        self.fate = fate
        self.fates.clear()

    @rule(choice=st.integers(0, 20), fate=st.sampled_from((*FATES, Evicted())))
    def decide_what_becomes_of_one_pod(self, choice: int, fate: Fate) -> None:
        for pod in self.chosen(choice):
            self.fates[pod["metadata"]["uid"]] = fate

    @rule(finish=st.booleans())
    def let_pods_that_leave_take_their_time(self, finish: bool) -> None:
        self.sim.kubelet.finish_deletions = finish

    @with_a_gateway
    @rule(away=st.booleans())
    def the_gateway_knows_nothing_or_comes_back(self, away: bool) -> None:
        self.gateway.away = away
        self.bring_the_gateway_back()

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

    @rule()
    @where(lambda self: self.sim.server.is_heard)
    def look_at_the_status_once_all_is_at_rest(self) -> None:
        self.do(self.status_is_true())

    def _edit(self, **fields: Any) -> None:
        """As far as the API server would accept it."""
        spec = {**self.spec, **fields}
        if may_be(spec):
            self.spec = spec
            for pool in self.pools():
                if pool["metadata"]["name"] == POOL:
                    self.store.update(SESSION_POOLS, POOL, {**pool, "spec": spec}, NAMESPACE)


if SEED is not None:
    hypothesis.seed(SEED)(PoolLife)
TestPoolLife = pytest.mark.timeout(TIMEOUT_SECONDS)(PoolLife.TestCase)
TestPoolLife.settings = settings(
    max_examples=LIVES,
    derandomize=not is_long and SEED is None,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # lives depend on time, and do not shrink
)
