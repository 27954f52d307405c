"""Two controllers, of which one works: the whole of both, against an API server that can misbehave.

The lease is as short as a machine that is busy with other tests allows; all waits are on conditions. That only the
leader writes is judged by the API server's record: at each write, its sender held the Lease.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prometheus_client import generate_latest

from sessionpools.api import names
from sessionpools.controller import leader
from sessionpools.controller.app import App
from sessionpools.controller.config import Config
from sessionpools.kube import reflector
from sessionpools.kube.lease import Election
from sessionpools.kube.protocol import LEASES, NODES, PODS, SESSION_POOLS
from support.apiserver import WRITES
from support.invariants import Invariants
from support.simulation import NAMESPACE, PACE, SimulatedPods, Simulation

HOME, LEASE = "session-pools", "session-pools-controller"
LEASE_SECONDS, RENEW_SECONDS, LOOK_SECONDS = 2.0, 0.3, 0.1
SLOW_SECONDS = 1.0  # production's lease has calls of 3 s at most


@dataclass
class Controller:
    name: str
    app: App
    election: Election
    running: asyncio.Task[None]

    @property
    def leads(self) -> bool:
        return self.election.leading

    async def stop(self) -> None:
        """As SIGTERM does it."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


class World(Simulation):
    """Begins without a controller."""

    def __init__(self) -> None:
        super().__init__()
        self.controllers: list[Controller] = []

    async def start_controller(self) -> None:
        return

    async def stop_controller(self) -> None:
        for each in self.controllers:
            await each.stop()

    async def begin(self, name: str, **connection: float) -> Controller:
        """A controller, whose clients call themselves `NAME-work` and `NAME-lease`."""
        config = Config(session_image="session:1", pod_name=name, pod_namespace=HOME, lease=LEASE)
        election = leader.election(await self.server.connect(component=f"{name}-lease"), config)
        api = await self.server.connect(component=f"{name}-work", may_write=lambda: election.leading, **connection)
        app = App(api, config, election=election, pod_client=SimulatedPods(), min_interval=0.005, pace=PACE)
        made = Controller(name, app, election, asyncio.create_task(app.run()))
        self.controllers.append(made)
        return made

    async def begin_both(self) -> tuple[Controller, Controller]:
        """The first leads, and the second is ready to."""
        first = await self.begin("a")
        await self.until(lambda: first.leads, "the first leads")
        second = await self.begin("b")
        await self.until(lambda: second.election.holder == "a", "the second has seen who leads")
        return first, second

    async def crash(self, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends without a word to the API server."""

        async def nothing() -> None:
            return

        monkeypatch.setattr(controller.election, "_release", nothing)
        await controller.stop()

    async def resize(self, initial: int, seconds: float = 10.0) -> None:
        self.edit_pool(initialPoolSize=initial)
        await self.until(lambda: len(self.ready_pods()) == 2 * initial, f"{initial} sessions a node", seconds)

    def assert_only_the_leader_wrote(self) -> None:
        holder = ""
        for request in self.server.requests:
            if request.verb not in WRITES:
                continue
            if request.resource != LEASES:
                assert request.user_agent.startswith(f"{holder}-work/"), f"while {holder!r} led: {request}"
            elif request.status in (200, 201):
                holder = request.body["spec"]["holderIdentity"]

    def assert_no_slot_has_two_pods(self) -> None:
        slots = Counter(
            (pod["metadata"]["annotations"][names.ANNOTATION_NODE], pod["metadata"]["labels"][names.LABEL_SLOT])
            for pod in self.pods()
        )
        assert set(slots.values()) <= {1}, slots


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(leader, "LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr(leader, "RENEW_SECONDS", RENEW_SECONDS)
    monkeypatch.setattr(leader, "LOOK_SECONDS", LOOK_SECONDS)
    async with of_two_nodes() as made:
        yield made


@pytest.fixture
async def as_it_is_in_production() -> AsyncIterator[World]:
    """With the lease that it has there."""
    async with of_two_nodes() as made:
        yield made


@contextlib.asynccontextmanager
async def of_two_nodes() -> AsyncIterator[World]:
    async with World() as made:
        made.add_node("worker-1")
        made.add_node("worker-2")
        made.apply(made.service(), made.pool(initial=2, maximum=6))
        yield made


# --- one works --------------------------------------------------------------------------------------------------------


async def test_of_two_controllers_one_works_and_the_other_only_watches(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    await world.resize(3)
    await world.until(lambda: first.app.term and first.app.term.queue.idle)
    await world.until(lambda: len(list(second.app.store.pods.values())) == 6, "the second knows as much")
    assert second.app.term is None
    creates = [request for request in world.server.writes(PODS) if request.verb == "create"]
    assert len(creates) == 6
    world.assert_only_the_leader_wrote()


async def test_the_gauges_of_pools_are_the_leaders_alone(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    leads, stands_by = (generate_latest(each.app.metrics.registry).decode() for each in (first, second))
    for name in ("sessionpools_sessions", "sessionpools_nodes", "sessionpools_pool_ready"):
        assert f"\n{name}{{" in leads
        assert f"\n{name}{{" not in stands_by
    assert "\nsessionpools_controller_leading 1.0" in leads
    assert "\nsessionpools_controller_leading 0.0" in stands_by


async def test_while_nothing_changes_the_renewals_of_the_lease_are_all_that_is_written(world: World) -> None:
    await world.begin_both()
    await world.until_success()
    await world.until(lambda: len(world.server.writes(LEASES)) >= 1)
    rested = False
    while not rested:  # the test's own limit of time ends it
        before, renewals = len(world.server.writes()), len(world.server.writes(LEASES))
        await world.until(lambda renewals=renewals: len(world.server.writes(LEASES)) >= renewals + 3)  # type: ignore[misc]
        rested = len(world.server.writes()) == before


async def test_who_does_not_know_the_cluster_yet_does_not_lead(world: World) -> None:
    world.server.fail("list", NODES, 500, times=float("inf"), by="a-work")
    first = await world.begin("a")
    second = await world.begin("b")
    await world.until(lambda: second.leads, "the second leads")
    await world.until_success()
    assert not first.leads
    assert not [request for request in world.server.requests if request.user_agent.startswith("a-lease")]


# --- another takes over -----------------------------------------------------------------------------------------------


async def test_a_leader_that_stops_is_succeeded_at_once(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    await first.stop()
    stopped = time.monotonic()
    await world.until(lambda: second.leads, "the second leads")
    assert time.monotonic() - stopped < LEASE_SECONDS / 2
    await world.resize(3)
    world.assert_only_the_leader_wrote()


async def test_a_leader_that_crashes_is_succeeded_when_its_lease_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    await world.crash(first, monkeypatch)
    crashed = time.monotonic()
    world.edit_pool(initialPoolSize=3)
    await world.until(lambda: len(world.ready_pods()) == 6, "the second does what was asked for meanwhile")
    assert second.leads
    assert time.monotonic() - crashed < LEASE_SECONDS + LOOK_SECONDS + 1.5
    world.assert_only_the_leader_wrote()


def test_a_crash_is_noticed_within_fifteen_seconds() -> None:
    # the last renewal may have been seen a moment before the crash, and its expiry is seen at the next look
    assert leader.LEASE_SECONDS + leader.LOOK_SECONDS < 15
    assert leader.LOOK_SECONDS <= 1


async def test_a_fill_that_a_crash_cut_off_is_finished_by_the_successor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.delay("create", PODS, 0.1)
    first, _ = await world.begin_both()
    await world.until(lambda: world.pods(), "a first session pod")
    await world.crash(first, monkeypatch)
    await world.until_success()
    assert len(world.pods()) == 4
    world.assert_no_slot_has_two_pods()


async def test_a_leader_whose_lease_can_not_be_renewed_stops_writing_before_another_begins(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    world.server.fail("*", LEASES, 500, times=float("inf"), by="a-lease")
    size = 2
    while not second.leads:  # the test's own limit of time ends it
        size = 5 - size
        world.edit_pool(initialPoolSize=size)
        await asyncio.sleep(0.02)
    by_first = [request for request in world.server.writes() if request.user_agent.startswith("a-work")]
    stopped, began = (
        by_first[-1].time,
        next(
            request.time
            for request in world.server.writes(LEASES)
            if request.body["spec"]["holderIdentity"] == "b" and request.status == 200
        ),
    )
    assert began - stopped > LEASE_SECONDS / 6  # of the third that there should be, on a busy machine
    assert first.app.term is None
    await world.resize(3)
    world.assert_only_the_leader_wrote()


async def test_who_led_before_leads_again_and_believes_nothing_of_what_it_remembers(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    before = first.app.term
    world.server.fail("*", LEASES, 500, times=float("inf"), by="a-lease")
    await world.until(lambda: second.leads, "the second leads")
    await world.resize(3)
    world.server.heal()
    await second.stop()
    await world.until(lambda: first.leads, "the first leads again")
    assert first.app.term not in (before, None)
    await world.resize(1)
    await world.until_success()
    world.assert_only_the_leader_wrote()


# --- two for a moment -------------------------------------------------------------------------------------------------


async def test_writes_of_a_leader_that_froze_which_arrive_late_make_no_session_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.delay("create", PODS, LEASE_SECONDS + 1.5, by="a-work", before=True)
    first, second = await world.begin_both()
    await world.until(lambda: world.server.writes(PODS), "its writes are on their way")
    await world.crash(first, monkeypatch)
    most = 0
    while any(request.status == 0 for request in world.server.writes(PODS)):  # the test's own limit of time ends it
        most = max(
            [most, *Counter(pod["metadata"]["annotations"][names.ANNOTATION_NODE] for pod in world.pods()).values()]
        )
        world.assert_no_slot_has_two_pods()
        await asyncio.sleep(0.005)
    assert second.leads
    await world.until_success()
    assert most == 2
    late = [request for request in world.server.writes(PODS) if request.user_agent.startswith("a-work")]
    assert {request.status for request in late} == {409}  # the second had done it


async def test_a_session_that_arrives_late_for_a_pool_that_was_made_smaller_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.delay("create", PODS, LEASE_SECONDS + 1.5, by="a-work", before=True)
    first, second = await world.begin_both()
    await world.until(lambda: len(world.server.writes(PODS)) >= 1, "its writes are on their way")
    await world.crash(first, monkeypatch)
    world.edit_pool(initialPoolSize=0)
    await world.until(lambda: second.leads, "the second leads")
    await world.until(
        lambda: all(request.status for request in world.server.writes(PODS)) and not world.pods(alive=False),
        "nothing is left of what arrived late",
    )
    assert next(request.status for request in world.server.writes(PODS) if request.verb == "create") == 201


# --- what is known stays true -----------------------------------------------------------------------------------------


async def test_a_watch_that_says_nothing_more_is_begun_again(world: World) -> None:
    alone = await world.begin("a", watch_silence_seconds=0.5)
    await world.until_success()
    world.server.mute_watches()
    world.server.store.delete(PODS, world.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    world.edit_pool(initialPoolSize=3)
    await world.until(lambda: len(world.ready_pods()) == 6, "it was noticed")
    assert alone.leads


async def test_a_change_that_no_watch_told_of_is_found_by_listing_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(reflector, "RELIST_SECONDS", (1.5, 2.0))
    await world.begin("a")
    await world.until_success()
    world.server.mute_watches(bookmarks=True)
    world.server.store.delete(PODS, world.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    world.server.store.edit(SESSION_POOLS, "score", {"spec": {"initialPoolSize": 3}}, NAMESPACE)
    await world.until(lambda: len(world.ready_pods()) == 6, "it was noticed")


async def test_an_api_server_that_fails_for_long_is_waited_for_by_both(world: World) -> None:
    first, second = await world.begin_both()
    await world.until_success()
    for status in (500, 403, 429):
        world.server.fail("*", None, status, times=float("inf"), retry_after=0.2)
        world.server.drop_watches()
        await world.until(lambda: first.app.term is None and second.app.term is None, "nobody leads")
        assert not first.leads and not second.leads
        world.edit_pool(initialPoolSize=5 - len(world.pods()) // 2)
        world.server.heal()
        await world.until(lambda: first.leads or second.leads, "one leads")
        wanted = world.server.store.all(SESSION_POOLS)[0]["spec"]["initialPoolSize"]
        await world.until(lambda wanted=wanted: len(world.ready_pods()) == 2 * wanted, "it works", seconds=40)  # type: ignore[misc]
    assert not first.running.done() and not second.running.done()
    world.assert_only_the_leader_wrote()


async def test_an_api_server_that_takes_a_second_for_each_answer_is_worked_with_as_any_other(
    as_it_is_in_production: World,
) -> None:
    """The leader stays, as its renewals are awaited for longer than that, and no pod is asked for twice."""
    world = as_it_is_in_production
    world.server.delay("*", None, SLOW_SECONDS)
    invariants = Invariants(world, lag_seconds=4 * SLOW_SECONDS)
    first = await world.begin("a")
    await world.until_success(seconds=60)
    second = await world.begin("b")
    world.edit_pool(update={"maxSurge": 3})
    await world.resize(3, seconds=60)
    world.edit_service(code={"inline": {"service.py": "x = 2"}})
    rolled = "every session has the new code, and the pool says so"
    await world.until(lambda: world.status()["sessions"]["updated"] == 6 and len(world.pods()) == 6, rolled, 60)
    await world.resize(1, seconds=60)
    assert (first.leads, second.leads) == (True, False)
    taken = {request.body["spec"]["holderIdentity"] for request in world.server.writes(LEASES)}
    assert taken == {"a"}
    world.assert_only_the_leader_wrote()
    assert not invariants.broken
    created = [request for request in world.server.writes(PODS) if request.verb == "create"]
    assert {request.status for request in created} == {201}
    assert len(created) == 4 + 2 + 6
