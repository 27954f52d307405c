"""Pools of several namespaces that share nodes: the limit of sessions on a node, and controllers that serve a list of
namespaces only.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from sessionpools.api import names
from sessionpools.core.model import PodView, SessionReport
from sessionpools.kube.protocol import NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_faults import Request
from support.apiserver_objects import Json
from support.demand_world import Gateway
from support.node_limit import beyond_the_limit
from support.seed import SEED
from support.simulation import NAMESPACE, Simulation

OTHER = "other"
NODE = "worker-1"


class Tenants(Simulation):
    """The pools `first` (in one namespace) and `second` (in another) on the same node."""

    def limited_to(self, sessions: int) -> None:
        self.config = replace(self.config, max_sessions_per_node=sessions)

    def publish(
        self, name: str, namespace: str = NAMESPACE, initial: int = 2, maximum: int = 4, **spec: object
    ) -> None:
        pool = self.pool(name, service=name, initial=initial, maximum=maximum, **spec)
        self.apply(self.service(name, service=name), pool, namespace=namespace)

    def sessions(self, name: str) -> int:
        """Session pods of the pool, leaving ones included."""
        return _of(name, self.server.store.all(PODS))

    def ready(self, name: str) -> int:
        return _of(name, self.ready_pods())

    @contextlib.asynccontextmanager
    async def pods_silent(self) -> AsyncIterator[asyncio.Event]:
        """Session pods answer afterwards only; the event says that they were asked."""
        answer, asked, done = self.pods_say.reports, asyncio.Event(), asyncio.Event()

        async def reports(pods: Iterable[PodView]) -> dict[str, SessionReport]:
            asked.set()
            await done.wait()
            return await answer(pods)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.pods_say, "reports", reports)
            yield asked
            done.set()

    def row(self, name: str) -> Json:
        rows = self.status(name).get("nodes") or [{}]
        return dict(rows[0])

    async def until_held(self, name: str, reason: str = "NodeLimitReached") -> None:
        await self.until(lambda: self.condition("Stalled", name).get("reason") == reason, f"{name} is held")


def _of(name: str, pods: Iterable[Json]) -> int:
    return sum(pod["metadata"]["labels"].get(names.LABEL_POOL) == name for pod in pods)


@pytest.fixture
async def sim() -> AsyncIterator[Tenants]:
    tenants = Tenants()
    tenants.limited_to(3)
    async with tenants:
        tenants.add_node(NODE)
        yield tenants


async def test_a_pool_that_finds_no_place_is_held_and_filled_once_another_namespaces_pool_goes(sim: Tenants) -> None:
    sim.publish("first")
    await sim.until_success("first")
    sim.publish("second", OTHER)
    await sim.until_held("second")
    await sim.until(lambda: (sim.sessions("first"), sim.sessions("second")) == (2, 1))
    assert sim.row("second")["state"] == "Pending"
    assert sim.row("second")["message"].startswith("NodeLimitReached: no more than 3 sessions")
    assert sim.condition("Ready", "second")["reason"] == "NodeLimitReached"
    await sim.comes_to_rest()
    sim.server.store.delete(SESSION_POOLS, "first", NAMESPACE)
    await sim.until_success("second")
    assert sim.condition("Stalled", "second")["status"] == "False"


async def test_pools_that_come_at_the_same_moment_have_no_more_than_the_limit_between_them(sim: Tenants) -> None:
    most = 0

    def count(_: object) -> None:
        nonlocal most
        most = max(most, len(list(sim.server.store.all(PODS))))

    sim.server.on_write.append(count)
    for number in range(6):
        sim.publish(f"pool-{number}", f"team-{number}", initial=1)
    await sim.until(lambda: len(sim.ready_pods()) == 3)
    await sim.comes_to_rest()
    assert (most, len(sim.ready_pods())) == (3, 3)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_pools_of_many_namespaces_do_no_session_is_made_beyond_the_limit_and_all_that_fit_are(
    seed: int,
) -> None:
    rng, limit = random.Random(f"{SEED} {seed}"), 8
    sim = Tenants()
    sim.limited_to(limit)
    beyond = beyond_the_limit(sim.server, limit)
    async with sim:
        sim.add_node(NODE)
        there: dict[str, str] = {}
        for step in range(40):
            act = rng.choice(["publish", "publish", "resize", "resize", "restart", "delete", "kill"])
            if act == "publish" and len(there) < 5:
                name, namespace = f"pool-{step}", f"team-{step % 3}"
                isolation = rng.choice(["Pod", "Pod", "Process"])
                sim.publish(name, namespace, rng.randint(0, 3), rng.randint(3, 5), isolation=isolation)
                there[name] = namespace
            elif act == "resize" and there:
                name = rng.choice(list(there))
                sizes = {"initialPoolSize": rng.randint(0, 3), "maxPoolSize": rng.randint(3, 6)}
                sim.edit_pool(name, namespace=there[name], **sizes)
            elif act == "restart" and there:
                name = rng.choice(list(there))
                code = {"inline": {"service.py": f"x = {step}"}}
                sim.server.store.edit(WEB_SERVICES, name, {"spec": {"code": code}}, there[name])
            elif act == "delete" and there:
                name = rng.choice(list(there))
                sim.server.store.delete(SESSION_POOLS, name, there.pop(name))
            elif act == "kill" and (pods := sim.pods()):
                victim = rng.choice(pods)["metadata"]
                sim.server.store.delete(PODS, victim["name"], victim["namespace"])
            await asyncio.sleep(rng.choice([0, 0.01, 0.05]))
        assert not beyond
        for name in list(there)[2:]:
            sim.server.store.delete(SESSION_POOLS, name, there.pop(name))
        for name, namespace in there.items():
            sim.edit_pool(name, namespace=namespace, initialPoolSize=1, maxPoolSize=3)
        for name in there:  # with their surge they fit
            await sim.until_success(name)
        assert not beyond


async def test_a_limit_that_is_lowered_ends_no_session_and_lets_none_be_added(sim: Tenants) -> None:
    sim.publish("first", initial=3)
    await sim.until_success("first")
    sim.limited_to(1)
    await sim.restart_controller()
    await sim.comes_to_rest()
    assert sim.sessions("first") == 3
    assert sim.status("first")["state"] == "Success"
    victim = sim.pods()[0]["metadata"]
    sim.server.store.delete(PODS, victim["name"], victim["namespace"])
    await sim.until_held("first")
    assert sim.sessions("first") == 2


async def test_a_rollout_that_has_no_place_for_its_surge_says_so_and_goes_on_without_surge(sim: Tenants) -> None:
    sim.publish("first", initial=3)
    await sim.until_success("first")
    await sim.comes_to_rest()
    old = {pod["metadata"]["uid"] for pod in sim.pods()}
    sim.edit_service("first", code={"inline": {"service.py": "x = 2"}})
    await sim.until_held("first", "SurgeUnschedulable")
    assert "set update.maxSurge 0 and update.maxUnavailable 1" in sim.condition("Stalled", "first")["message"]
    assert {pod["metadata"]["uid"] for pod in sim.ready_pods()} == old
    sim.edit_pool("first", update={"maxSurge": 0, "maxUnavailable": 1})
    await sim.until(lambda: sim.status("first")["sessions"]["updated"] == 3)
    await sim.until_success("first")
    assert not old & {pod["metadata"]["uid"] for pod in sim.pods()}


async def test_a_process_pod_needs_places_for_all_its_slots(sim: Tenants) -> None:
    sim.publish("first", initial=1, maximum=1)
    await sim.until_success("first")
    sim.publish("second", OTHER, isolation="Process", initial=1, maximum=3)
    await sim.until_held("second")
    assert sim.sessions("second") == 0
    sim.edit_pool("second", namespace=OTHER, maxPoolSize=2)
    await sim.until_success("second")
    sim.edit_pool("second", namespace=OTHER, maxPoolSize=3)
    await sim.until_held("second")
    (pod,) = [pod for pod in sim.pods() if pod["metadata"]["namespace"] == OTHER]
    assert '"maxPoolSize":2' in pod["metadata"]["annotations"][names.ANNOTATION_SETTINGS]


async def test_a_pool_without_a_web_service_keeps_no_places(sim: Tenants) -> None:
    sim.apply(sim.pool("empty", service="Empty", initial=3))
    await sim.until(lambda: sim.condition("Stalled", "empty").get("reason") == "ServiceNotFound")
    sim.publish("first", initial=3)
    await sim.until_success("first")


async def test_a_pool_that_is_deleted_while_it_is_looked_at_leaves_its_places_to_others(sim: Tenants) -> None:
    sim.publish("first")
    await sim.until_success("first")
    await sim.comes_to_rest()
    async with sim.pods_silent() as asked:
        sim.edit_pool("first", initialPoolSize=3)
        await asyncio.wait_for(asked.wait(), 5)
        sim.server.store.delete(SESSION_POOLS, "first", NAMESPACE)
        await sim.until(lambda: sim.app and not len(sim.app.store.pools), "it is seen to be deleted")
    sim.publish("second", OTHER, initial=3)
    await sim.until_success("second")


async def test_what_was_created_beside_something_refused_has_its_place_before_the_watch_shows_it(sim: Tenants) -> None:
    sim.limited_to(4)
    await sim.restart_controller()
    sim.publish("first", update={"maxSurge": 2, "maxUnavailable": 0})
    await sim.until_success("first")
    await sim.comes_to_rest()
    created = 0

    def meet(request: Request) -> None:
        nonlocal created
        created += request.resource is PODS and request.verb == "create"
        if created == 1 and request.resource is PODS:
            sim.publish("second", OTHER)
        elif created == 2 and request.resource is PODS:
            sim.server.fail("create", PODS, 403, reason="Forbidden", message="exceeded quota: pods")

    sim.server.on_write.append(meet)
    sim.server.delay("create", PODS, 0.5, times=1, before=True)
    sim.edit_service("first", code={"inline": {"service.py": "x = 2"}})
    await sim.until_held("second")
    sim.server.pause_watches()  # of the two new sessions one is made, unseen, and one refused
    await sim.until(lambda: created >= 3, "places have become free")
    await sim.quiet()
    assert len(sim.pods(alive=False)) == 4
    sim.server.resume_watches()


@contextlib.asynccontextmanager
async def with_gateway() -> AsyncIterator[tuple[Tenants, Gateway]]:
    """A node for four sessions, and a gateway that says what is asked of pools."""
    async with Gateway() as gateway:
        sim = Tenants()
        sim.limited_to(4)
        labels = {"app": "gateway"}
        sim.config = replace(
            sim.config, pod_namespace="home", gateway_selector="app=gateway", gateway_port=gateway.port
        )
        async with sim:
            sim.add_node(NODE)
            body = {"metadata": {"name": "gateway", "labels": labels}, "spec": {"containers": [{"name": "agent"}]}}
            sim.server.store.create(PODS, {"apiVersion": "v1", "kind": "Pod", **body}, "home")
            sim.server.store.edit(PODS, "gateway", {"status": {"podIP": "127.0.0.1"}}, "home")
            yield sim, gateway


async def ask(sim: Tenants, gateway: Gateway, name: str, busy: int, queued: int) -> None:
    """So many calls are in sessions of the pool and so many wait, and none of others."""
    of = {pool["metadata"]["name"]: pool["metadata"]["uid"] for pool in sim.server.store.all(SESSION_POOLS)}
    gateway.calls = dict.fromkeys(of.values(), (0, 0)) | {of[name]: (busy, queued)}
    await gateway.source.poll()


async def test_growth_waits_for_places_and_goes_on_when_another_pool_gives_them_up() -> None:
    async with with_gateway() as (sim, gateway):
        for name, namespace in (("first", NAMESPACE), ("second", OTHER)):
            sim.publish(name, namespace, initial=1, maximum=4)
            await sim.until_success(name)
        await ask(sim, gateway, "first", 1, 5)
        await sim.until(lambda: sim.ready("first") == 3, "it grows to what the other's initial session leaves")
        await sim.comes_to_rest()
        assert (sim.ready("first"), sim.status("first")["state"]) == (3, "Success")
        sim.server.store.delete(SESSION_POOLS, "second", OTHER)
        await sim.until(lambda: sim.ready("first") == 4, "it grows into the places of the pool that has gone")


async def test_growth_takes_places_that_become_free_while_session_pods_are_asked() -> None:
    async with with_gateway() as (sim, gateway):
        for name, namespace in (("first", NAMESPACE), ("second", OTHER)):
            sim.publish(name, namespace)
            await sim.until_success(name)
        await sim.comes_to_rest()
        async with sim.pods_silent() as asked:
            await ask(sim, gateway, "first", 2, 5)
            await asyncio.wait_for(asked.wait(), 5)
            sim.server.store.delete(SESSION_POOLS, "second", OTHER)
            await sim.until(lambda: sim.app and len(sim.app.store.pods) == 2, "it is seen to have gone")
        await sim.until(lambda: sim.ready("first") == 4, "it has the places that were free before it waited for them")


async def test_a_controller_of_some_namespaces_serves_these_and_leaves_all_others_as_they_are() -> None:
    sim = Tenants(namespaces=(NAMESPACE, OTHER))
    async with sim:
        sim.add_node(NODE)
        for name, namespace in (("first", NAMESPACE), ("second", OTHER), ("third", "foreign")):
            sim.publish(name, namespace)
        await sim.until_success("first")
        await sim.until_success("second")
        await sim.comes_to_rest()
        assert sim.sessions("third") == 0
        assert sim.status("third") == {"observedGeneration": -1}  # nobody has looked at it
        asked = [request for request in sim.server.requests if request.resource is not NODES]
        assert {request.namespace for request in asked} == {NAMESPACE, OTHER}


async def test_in_a_list_of_namespaces_a_pool_is_forgotten_when_it_is_deleted_while_no_controller_looks() -> None:
    sim = Tenants(namespaces=(NAMESPACE,))
    async with sim:
        sim.add_node(NODE)
        sim.publish("first")
        await sim.until_success("first")
        await sim.stop_controller()
        sim.server.store.delete(SESSION_POOLS, "first", NAMESPACE)
        sim.server.store.delete(WEB_SERVICES, "first", NAMESPACE)
        await sim.start_controller()
        await sim.until(lambda: not sim.server.store.all(PODS), "its sessions are gone")
        assert await sim.quiet() == 0


async def test_a_namespace_that_another_release_serves_is_left_as_it_is() -> None:
    sim = Tenants()
    sim.config = replace(sim.config, ignored_namespaces=(OTHER,))
    async with sim:
        sim.add_node(NODE)
        sim.publish("first")
        sim.publish("second", OTHER)
        await sim.until_success("first")
        sim.edit_pool("second", namespace=OTHER, initialPoolSize=1)
        await sim.comes_to_rest()
        assert sim.sessions("second") == 0
        assert not [request for request in sim.server.writes() if request.namespace == OTHER]


async def test_of_named_nodes_nothing_is_read_and_pools_are_filled_there_and_nowhere_else() -> None:
    sim = Tenants(namespaces=(NAMESPACE,))
    sim.config = replace(sim.config, nodes=(NODE,), max_sessions_per_node=2)
    async with sim:
        for name in (NODE, "worker-2"):
            sim.add_node(name)
        sim.publish("first")
        await sim.until_success("first")
        assert len(sim.pods(node=NODE)) == len(sim.pods()) == 2
        assert not [request for request in sim.server.requests if request.resource is NODES]
        sim.edit_pool("first", initialPoolSize=3)
        await sim.until_held("first")


async def test_sessions_go_on_when_a_controller_of_named_nodes_starts_again() -> None:
    sim = Tenants(namespaces=(NAMESPACE,))
    sim.config = replace(sim.config, nodes=(NODE,))
    async with sim:
        sim.add_node(NODE)
        sim.publish("first")
        await sim.until_success("first")
        before = {pod["metadata"]["uid"] for pod in sim.pods()}
        await sim.restart_controller()
        await sim.comes_to_rest()
        assert {pod["metadata"]["uid"] for pod in sim.pods(alive=False)} == before
