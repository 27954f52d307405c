"""What the random lives of tests/sim/test_state_machine.py have in common: how one begins, how it ends, what must be so
then, and what there is to do something with. The rules themselves are there.
"""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition
from hypothesis.stateful import rule as uncounted_rule

from sessionpools.kube.protocol import EVENTS, NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.demand_world import HOME, DemandWorld, Gateway
from support.invariants import WATCHES, Invariants
from support.kstatus import CURRENT, FAILED, kstatus
from support.kubelet import Fate, Ready
from support.node_limit import beyond_the_limit
from support.simulation import NAMESPACE
from support.tally import TALLY
from support.truth import pool_of, status_by_truth, unlike_the_spec

T = TypeVar("T")

BETWEEN_STEPS_SECONDS = (0.0, 0.01, 0.03, 0.25)  # in turn: at once, in the middle of its work, and when all is done
DISK = {"disk": "ssd"}
POOL, OTHER = "score", "other"  # the second one has the same nodes, and shares what limit they have


def rule(**values: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule whose steps are counted, and followed by a while that the controller has."""

    def counted(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def step(self: "Life", **given: Any) -> None:
            TALLY.step(function.__name__)
            function(self, **given)
            self.steps += 1
            if self.begun:
                self.do(asyncio.sleep(BETWEEN_STEPS_SECONDS[self.steps % len(BETWEEN_STEPS_SECONDS)]))

        return uncounted_rule(**values)(step)  # type: ignore[no-untyped-call]

    return counted


def where(holds: Callable[[Any], object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of a rule whose step is none while that does not hold. It is no precondition: those must follow from the steps
    before alone, and not from how long things took."""

    def guarded(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def step(self: "Life", **given: Any) -> None:
            if holds(self):
                function(self, **given)

        return step

    return guarded


# While watches fail nothing can be said of how few sessions may be left: calm lives are those in which that is judged.
in_rough_lives = precondition(lambda self: not self.calm)
with_a_gateway = precondition(lambda self: self.has_gateway)


class OnlyGateway(Gateway):
    """Of a simulation whose pools come and go: it has all that there are, and calls for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = (0, 0)  # busy and queued calls of POOL
        self.there: Callable[[], Iterable[Json]] = tuple

    async def _ask(self, commands: Iterable[str]) -> list[str]:
        of = {pool["metadata"]["uid"]: pool["metadata"]["name"] for pool in self.there()}
        self.calls = {uid: self.asked if name == POOL else (0, 0) for uid, name in of.items()}
        return await super()._ask(commands)


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.gateway = OnlyGateway()
        self.sim = DemandWorld(self.gateway)
        self.store = self.sim.server.store
        self.gateway.there = self.pools
        self.polls: asyncio.Task[None] | None = None
        self.code = 0
        self.restarts = 0
        self.begun = self.calm = self.has_gateway = False
        self.limit = 0
        self.beyond: list[str] = []
        self.steps = 0
        self.fate: Fate = Ready()
        self.fates: dict[str, Fate] = {}  # of pods that have one of their own, by uid
        self.spec: Json = {}  # of the pool, also while it is not there

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def start(
        self, initial: int, isolation: str, calm: bool, has_gateway: bool, limit: int, asked: tuple[int, int]
    ) -> None:
        """`limit`: of the sessions of both pools on a node; 0: none. `asked`: busy and queued calls of the pool."""
        self.calm, self.has_gateway, self.limit = calm, has_gateway, limit
        self.gateway.asked = asked
        self.judged = Invariants(self.sim, watches=WATCHES + has_gateway)
        self.sim.config = replace(self.sim.config, max_sessions_per_node=limit)
        if limit and calm:  # whoever leads knows of every write that is on its way
            self.beyond = beyond_the_limit(self.sim.server, limit)
        self.do(self._begin())
        self.begun = True
        self.sim.kubelet.fate = self._fate
        self.sim.add_node("worker-1", labels=DISK)
        # Sessions may say from one moment to the next that they have rested for long. They are asked again when a
        # second has made it possible, and not after the five minutes of a usual pool.
        self.spec = self.sim.pool(initial=initial, maximum=4, isolation=isolation, idleTimeoutSeconds=1)["spec"]
        self.publish_it()
        self.make_the_pool()
        self.sim.apply(self.sim.service(OTHER, service="Other"))
        self.sim.apply(self.sim.pool(OTHER, service="Other", initial=1, maximum=2))
        TALLY.add("lives of a pool")

    async def _begin(self) -> None:
        if self.has_gateway:
            await self.gateway.__aenter__()
            self.sim.hear_the_gateway()
            self.polls = asyncio.create_task(self.gateway.source.run())
        await self.sim.__aenter__()
        if self.has_gateway:
            self.sim.activate()

    def _fate(self, pod: Json) -> Fate:
        if pod["metadata"]["namespace"] == HOME:
            return Ready()
        return self.fates.get(pod["metadata"]["uid"], self.fate)

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_broken(self) -> None:
        if self.begun:
            assert not self.judged.broken, "\n".join(self.judged.broken)
            assert not self.beyond, "\n".join(self.beyond)

    def teardown(self) -> None:
        try:
            if self.begun:
                self.do(self._comes_to_its_end())
        finally:
            if self.begun:
                self.do(self._close())
            self.runner.close()

    async def _close(self) -> None:
        await self.sim.__aexit__(None, None, None)
        if self.polls:
            self.polls.cancel()
            await asyncio.gather(self.polls, return_exceptions=True)
            await self.gateway.__aexit__(None, None, None)

    async def _comes_to_its_end(self) -> None:
        sim = self.sim
        sim.server.heal()
        watches = WATCHES + self.has_gateway
        await sim.until(lambda: sim.server.watches == watches, "one controller watches, and no other", seconds=30)
        await self.status_is_true()
        await self._make_the_cluster_well()
        try:
            await sim.until(lambda: not self._unlike_the_spec(), seconds=30)
        except AssertionError:
            pytest.fail("\n".join(["not as the spec says:", *self._unlike_the_spec()]))
        await self.status_is_true()
        for name in (POOL, OTHER):
            nodes = sim.status(name)["nodeCounts"]["total"]
            things = [each for each in (*self.pools(), *self.services()) if each["metadata"]["name"] == name]
            assert {kstatus(thing) for thing in things} == {CURRENT if nodes else FAILED}
        before = len(sim.server.writes())
        await sim.restart_controller()
        await sim.comes_to_rest(for_seconds=0.2)
        assert sim.server.writes()[before:] == []
        self._no_event_was_written_twice()
        self.nothing_is_broken()

    def _unlike_the_spec(self) -> list[str]:
        return [*unlike_the_spec(self.sim, POOL), *unlike_the_spec(self.sim, OTHER)]

    async def status_is_true(self) -> None:
        """Once all is at rest; what failed comes again after a back-off, which is no rest. `comes_to_rest` asks the
        oracle; that no word of it is late is another question, which a limit of sessions leaves open."""
        end = time.monotonic() + 30
        while True:
            await self.sim.comes_to_rest(within_seconds=20)
            late = [] if self.limit else [name for name in (POOL, OTHER) if not await self._says_all(name)]
            if not late:
                TALLY.add("looks at a status at rest")
                return
            if time.monotonic() > end:
                name = late[0]
                assert pool_of(self.sim, name).status == await status_by_truth(self.sim, name)

    async def _says_all(self, name: str) -> bool:
        if not any(pool["metadata"]["name"] == name for pool in self.pools()):
            return True
        return pool_of(self.sim, name).status == await status_by_truth(self.sim, name)

    async def _make_the_cluster_well(self) -> None:
        """Nobody is in the way any more, and what has ended is cleared away; the pool stays what its spec says."""
        self.fate, self.sim.kubelet.finish_deletions = Ready(), True
        self.fates.clear()
        for node in self.store.all(NODES):
            self.sim.kubelet.return_node(node["metadata"]["name"])
            self.store.edit(NODES, node["metadata"]["name"], {"spec": {"unschedulable": None, "taints": None}})
        for pod in self.sim.sessions(alive=False):
            if pod["status"].get("phase") == "Failed":
                self.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
        if not self.service_is_there():
            self.publish_it()
        await self.sim.until(lambda: not any("deletionTimestamp" in p["metadata"] for p in self.pools()), "it is gone")
        if not self.pool_is_there():
            self.make_the_pool()
        await self._nothing_is_asked()
        if self.limit:
            self.nothing_is_broken()
            self.beyond = []  # from here on there is no limit to be beyond of
            self.sim.config, self.limit = replace(self.sim.config, max_sessions_per_node=0), 0
            await self.sim.restart_controller()

    async def _nothing_is_asked(self) -> None:
        """Of any session, for so long that those beyond initialPoolSize retire."""
        self.sim.idle_pods.busy.clear()
        self.sim.idle_pods.idle_seconds = 1e6
        self.gateway.asked, self.gateway.away = (0, 0), False
        if self.has_gateway:
            self.bring_the_gateway_back()
            await self.gateway.source.poll()

    def _no_event_was_written_twice(self) -> None:
        """Within the five minutes that no life takes."""
        done = [each for each in self.sim.server.writes(EVENTS) if each.status in (200, 201)]
        written = Counter(each.name or each.body["metadata"]["name"] for each in done)
        assert all(count == 1 for count in written.values()), written

    # --- what there is ------------------------------------------------------------------------------------------------

    def pools(self) -> list[Json]:
        return self.store.all(SESSION_POOLS)

    def services(self) -> list[Json]:
        return self.store.all(WEB_SERVICES)

    def pool_is_there(self) -> bool:
        return any(pool["metadata"]["name"] == POOL for pool in self.pools())

    def service_is_there(self) -> bool:
        return any(service["metadata"]["name"] == POOL for service in self.services())

    def node(self, name: str) -> Json | None:
        return next((node for node in self.store.all(NODES) if node["metadata"]["name"] == name), None)

    def chosen(self, choice: int) -> list[Json]:
        """One of the session pods that are not leaving, or none."""
        pods = self.sim.sessions()
        return [pods[choice % len(pods)]] if pods else []

    def publish_it(self) -> None:
        self.sim.apply(self.sim.service(code=f"x = {self.code}"))

    def make_the_pool(self) -> None:
        self.sim.apply({**self.sim.pool(), "spec": self.spec})

    def bring_the_gateway_back(self) -> None:
        """If its node has gone, or it was sent away."""
        if not self.sim.server.store.all(PODS, HOME):
            self.sim.activate()
