"""What fails, is said, is not churned, and is well again within a bound once its cause is gone: docs/concepts.md, "Well
again after", without the kubelet's and the scheduler's own back-offs, which tests/e2e/test_failures.py has.
"""

import asyncio
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from sessionpools.api import names
from sessionpools.controller import reconcile, store
from sessionpools.controller.execute import CREATES_AT_ONCE
from sessionpools.controller.memory import Pace
from sessionpools.core import plan
from sessionpools.core.backoff import Backoff
from sessionpools.kube.protocol import CONFIG_MAPS, EVENTS, NODES, PODS, SESSION_POOLS
from support.apiserver_faults import Request
from support.apiserver_objects import Json
from support.kubelet import (
    Crash,
    CreateContainerConfigError,
    Evicted,
    Fate,
    ImagePullBackOff,
    NeverReady,
    OOMKilled,
    Ready,
    Unschedulable,
)
from support.simulation import NAMESPACE, PACE, Simulation

WORKERS = ("worker-1", "worker-2")
# What a change takes until it is in the status: some 50 ms here, on a machine that does other things as well.
AT_ONCE_SECONDS = 2.0


def creations(sim: Simulation) -> list[Any]:
    """Session pods that the controller asked for, refused ones included."""
    return [request for request in sim.server.writes(PODS) if request.verb == "create"]


def warnings(sim: Simulation) -> dict[str, int]:
    return {e["reason"]: e.get("count", 1) for e in sim.server.store.all(EVENTS) if e["type"] == "Warning"}


def stalled(sim: Simulation, name: str = "score") -> str:
    """The reason; "" if it is not."""
    condition = sim.condition("Stalled", name)
    return str(condition["reason"]) if condition.get("status") == "True" else ""


async def well_again(sim: Simulation, seconds: float, name: str = "score") -> float:
    """Waits for Success of a pool that is not Stalled; returns the seconds that it took."""
    began = time.monotonic()
    await sim.until(
        lambda: sim.status(name).get("state") == "Success" and not stalled(sim, name), "it is well again", seconds
    )
    return time.monotonic() - began


# --- at the same revision, in the same pods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (Crash("OSError: the database does not answer (init)"), "SessionFailed"),
        (Crash("StartTimeout: init took longer than 600 s"), "StartTimeout"),
        (OOMKilled(), "OOMKilled"),
        (ImagePullBackOff(), "ImagePullBackOff"),
        (CreateContainerConfigError(), "CreateContainerConfigError"),
        (Unschedulable(), "Unschedulable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_once_its_cause_is_gone_the_pool_is_well_again_with_the_pods_that_were_held(
    sim: Simulation, fate: Fate, reason: str
) -> None:
    sim.kubelet.fate = lambda pod: fate
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: stalled(sim) == reason)
    await sim.comes_to_rest()
    held = sim.uids()
    assert (len(creations(sim)), warnings(sim)) == (4, {reason: 1})
    sim.kubelet.fate = lambda pod: Ready()
    await well_again(sim, AT_ONCE_SECONDS)
    assert sim.uids() == held
    assert warnings(sim) == {reason: 1}


async def test_a_session_that_starts_slowly_is_no_failure(sim: Simulation) -> None:
    sim.kubelet.fate = lambda pod: NeverReady()
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until(lambda: "init for more than" in sim.status().get("nodes", [{}])[0].get("message", ""))
    assert stalled(sim) == ""
    sim.kubelet.fate = lambda pod: Ready()
    await well_again(sim, AT_ONCE_SECONDS)


async def test_repaired_code_replaces_the_sessions_that_can_not_start_at_once(sim: Simulation) -> None:
    sim.kubelet.fate = lambda pod: Crash("ImportError: no foo (import service)")
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: stalled(sim) == "SessionFailed")
    broken = sim.uids()
    sim.kubelet.fate = lambda pod: Crash("ImportError: no foo") if pod["metadata"]["uid"] in broken else Ready()
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})
    await well_again(sim, AT_ONCE_SECONDS)
    assert not broken & sim.uids()


# --- refused ----------------------------------------------------------------------------------------------------------


def refuse(sim: Simulation, message: str) -> None:
    sim.server.fail("create", PODS, 403, times=10**9, reason="Forbidden", message=f'pods "a" is forbidden: {message}')


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0", "QuotaExceeded"),
        ("error looking up service account demo/nobody", "PodRefused"),
        ('violates PodSecurity "restricted:latest"', "PodRefused"),
    ],
)
async def test_a_refused_pod_is_tried_less_and_less_often_and_the_pool_well_after_the_next_attempt(
    sim: Simulation, message: str, reason: str
) -> None:
    refuse(sim, message)
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: stalled(sim) == reason)
    await asyncio.sleep(3.0)
    times = [request.time for request in creations(sim)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) <= 8, "of four pods that are wanted one is tried: after 0.1, 0.2, 0.4, 0.8 s"
    assert gaps[-1] > 2 * gaps[0]
    assert warnings(sim) == {reason: 1}
    sim.server.heal()
    await well_again(sim, PACE.backoff.at_most_seconds * 1.5 + AT_ONCE_SECONDS)
    assert len(sim.pods()) == 4


async def test_one_attempt_speaks_for_all_nodes_however_many_there_are(sim: Simulation) -> None:
    sim.pace = slow_pace()
    await restarted(sim)
    for number in range(2 * CREATES_AT_ONCE):
        sim.add_node(f"node-{number}")
    refuse(sim, "exceeded quota: pods")
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until(lambda: stalled(sim) == "QuotaExceeded")
    assert (await sim.quiet(), len(creations(sim))) == (0, 1)


async def test_a_change_of_the_pool_is_tried_at_once_whatever_was_refused_before(sim: Simulation) -> None:
    sim.pace = slow_pace()
    await restarted(sim)
    refuse(sim, "error looking up service account demo/nobody")
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: stalled(sim) == "PodRefused")
    sim.server.heal()
    sim.edit_pool(initialPoolSize=1)
    await well_again(sim, AT_ONCE_SECONDS)


async def test_a_pod_that_goes_makes_room_in_a_quota_at_once(sim: Simulation) -> None:
    sim.pace = slow_pace()
    await restarted(sim)
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until_success()
    refuse(sim, "exceeded quota: few")
    sim.edit_pool(initialPoolSize=3)
    await sim.until(lambda: stalled(sim) == "QuotaExceeded")
    sim.server.heal()
    sim.server.store.delete(PODS, sim.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    await well_again(sim, AT_ONCE_SECONDS)


async def test_a_terminating_namespace_is_said_and_asked_for_nothing_more(sim: Simulation) -> None:
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until_success()
    for resource in (PODS, CONFIG_MAPS):
        message = f"unable to create new content in namespace {NAMESPACE} because it is being terminated"
        sim.server.fail("create", resource, 403, times=10**9, reason="Forbidden", message=message)
    for pod in sim.pods():
        sim.server.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
    await sim.until(lambda: stalled(sim) == "NamespaceTerminating")
    await sim.comes_to_rest()
    before = len(sim.server.writes())
    await asyncio.sleep(PACE.backoff.at_most_seconds * 2)
    assert len(sim.server.writes()) == before
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    await sim.comes_to_rest()
    assert sim.pods(alive=False) == []


# --- deleted by somebody else, evicted -------------------------------------------------------------------------------


async def test_pods_that_somebody_else_deletes_again_and_again_are_made_less_and_less_often(sim: Simulation) -> None:
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until_success()

    async def cleaner() -> None:
        while True:
            for pod in sim.pods(node="worker-1"):
                sim.server.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
            await asyncio.sleep(0.01)

    made = len(creations(sim))
    cleaning = asyncio.create_task(cleaner())
    await sim.until(lambda: "PodsDeleted" in sim.status()["nodes"][0]["message"])
    await asyncio.sleep(3.0)
    cleaning.cancel()
    assert len(creations(sim)) - made <= 10, "one at once, then after 0.1, 0.2, 0.4, 0.8, 1, 1... s"
    assert len(sim.pods(node="worker-2")) == 1
    await well_again(sim, PACE.backoff.at_most_seconds * 1.5 + AT_ONCE_SECONDS)


async def test_a_pod_that_is_deleted_once_and_a_node_that_is_swept_once_are_filled_at_once(sim: Simulation) -> None:
    sim.pace = slow_pace()
    await restarted(sim)
    sim.apply(sim.service(), sim.pool(initial=3))
    await sim.until_success()
    before = sim.uids()
    await asyncio.sleep(1.1)  # creation times have whole seconds: younger ones may be those that replace others
    for pod in sim.pods(node="worker-1"):
        sim.server.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
    sim.server.store.delete(PODS, sim.pods(node="worker-2")[0]["metadata"]["name"], NAMESPACE, grace=0)
    await sim.until(lambda: len(sim.uids() - before) == 4 and len(sim.ready_pods()) == 6, seconds=AT_ONCE_SECONDS)


async def test_what_the_controller_deletes_itself_holds_nothing(sim: Simulation) -> None:
    sim.pace = slow_pace()
    await restarted(sim)
    sim.apply(sim.service(), sim.pool(initial=1))
    for number in range(5):
        await sim.until_success()
        sim.edit_service(code={"inline": {"service.py": f"x = {number + 2}"}})
        sim.edit_pool(initialPoolSize=1 + number % 2)
        await sim.until(partial(settled, sim, 2 * (1 + number % 2)), f"change {number} is done")


def settled(sim: Simulation, pods: int) -> bool:
    counts = sim.status()["sessions"]
    return bool(counts["updated"] == pods == len(sim.pods()) and sim.condition("Reconciling")["status"] == "False")


async def test_a_pod_that_came_and_went_while_nobody_watched_is_made_anew(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (store, reconcile):
        monkeypatch.setattr(module, "SHOWN_WITHIN_SECONDS", 0.3)

    def blind(request: Request) -> None:
        if request.verb == "create" and request.resource is PODS and len(creations(sim)) == 1:
            sim.server.pause_watches()

    sim.server.on_write.append(blind)
    on_one = {"nodeSelector": {"kubernetes.io/hostname": WORKERS[0]}}  # no other pod's events are a reason to look
    sim.apply(sim.service(), sim.pool(initial=1, placement=on_one))
    await sim.until(lambda: sim.server.store.all(PODS))
    for pod in sim.pods():
        sim.server.store.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace=0)
    await sim.quiet(0.1)
    sim.server.resume_watches(lost=True)
    await sim.until_success()


async def test_a_large_pool_is_filled_with_a_watch_that_says_nothing_and_asked_for_once(sim: Simulation) -> None:
    def blind(request: Request) -> None:
        if request.verb == "create" and request.resource is PODS:
            sim.server.pause_watches()

    sim.server.on_write.append(blind)
    sim.apply(sim.service(), sim.pool(initial=CREATES_AT_ONCE, maximum=CREATES_AT_ONCE))
    await sim.until(lambda: len(sim.server.store.all(PODS)) == 2 * CREATES_AT_ONCE)
    assert (await sim.quiet(), len(creations(sim))) == (0, 2 * CREATES_AT_ONCE)
    sim.server.resume_watches()
    await sim.until_success()


async def test_an_evicted_pod_is_replaced_after_its_back_off(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_REPLACE_FIRST", Backoff(3.0, 3.0))  # from its creation on: this kubelet says no more
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until_success()
    evicted = sim.uids()
    sim.kubelet.fate = lambda pod: Evicted() if pod["metadata"]["uid"] in evicted else Ready()
    await sim.until(lambda: stalled(sim) == "Evicted")
    assert sim.uids() == evicted
    await well_again(sim, 3.0 * 1.5 + AT_ONCE_SECONDS)
    assert not evicted & sim.uids()


async def test_a_node_under_pressure_gets_no_session_until_it_is_over_and_the_others_serve(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_REPLACE_FIRST", Backoff(0.1, 0.1))
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until_success()
    pressed = {pod["metadata"]["uid"] for pod in sim.pods(node="worker-1")}
    taint = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": [taint]}})
    one = min(pressed)
    sim.kubelet.fate = lambda pod: Evicted() if pod["metadata"]["uid"] == one else Ready()
    made = len(creations(sim))
    await sim.until(lambda: row(sim, "worker-1")["message"].startswith("NodePressure"))
    await sim.comes_to_rest()
    assert (row(sim, "worker-1")["ready"], row(sim, "worker-2")["state"]) == (1, "Success")
    assert (stalled(sim), sim.condition("Ready")["reason"]) == ("Evicted", "Evicted")
    assert warnings(sim) == {"Evicted": 1}
    assert len(creations(sim)) == made
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": None}})
    await sim.until(lambda: len(sim.ready_pods()) == 4, seconds=1.0 + AT_ONCE_SECONDS)
    await well_again(sim, AT_ONCE_SECONDS)
    assert warnings(sim) == {"Evicted": 1}


async def test_a_pool_that_lacks_sessions_because_of_a_nodes_pressure_is_stalled_for_that_and_no_rollout_failed(
    sim: Simulation,
) -> None:
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until_success()
    taint = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": [taint]}})
    await sim.comes_to_rest()
    sim.server.store.delete(PODS, sim.pods(node="worker-1")[0]["metadata"]["name"], NAMESPACE)
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})
    await sim.until(lambda: stalled(sim) == "NodePressure")
    await sim.until(lambda: sim.status()["sessions"]["updated"] == 2, "the other node has the new revision")
    await sim.comes_to_rest()
    assert (stalled(sim), sim.condition("Ready")["reason"]) == ("NodePressure", "NodePressure")
    assert "node worker-1: NodePressure: the node has the taint" in sim.condition("Stalled")["message"]
    assert warnings(sim) == {"NodePressure": 1}
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": None}})
    await sim.until(lambda: sim.status()["sessions"]["updated"] == 4)
    await well_again(sim, AT_ONCE_SECONDS)


async def test_a_new_session_that_was_made_just_before_its_node_came_under_pressure_waits_for_that_and_not_for_room(
    sim: Simulation,
) -> None:
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until_success()
    old = sim.uids()

    def no_room_on_worker_1(pod: Json) -> Fate:
        here = pod["metadata"]["annotations"][names.ANNOTATION_NODE] == "worker-1"
        return Unschedulable() if here and pod["metadata"]["uid"] not in old else Ready()

    sim.kubelet.fate = no_room_on_worker_1
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})
    sim.server.store.delete(PODS, sim.pods(node="worker-1")[0]["metadata"]["name"], NAMESPACE)
    await sim.until(lambda: stalled(sim) == "SurgeUnschedulable")
    taint = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": [taint]}})
    await sim.until(lambda: stalled(sim) == "NodePressure")
    await sim.comes_to_rest()
    assert (stalled(sim), sim.condition("Ready")["reason"]) == ("NodePressure", "NodePressure")
    sim.kubelet.fate = lambda pod: Ready()
    sim.server.store.edit(NODES, "worker-1", {"spec": {"taints": None}})
    await sim.until(lambda: sim.status()["sessions"]["updated"] == 4)
    await well_again(sim, AT_ONCE_SECONDS)


def row(sim: Simulation, node: str) -> Json:
    found: Json = next(each for each in sim.status()["nodes"] if each["name"] == node)
    return found


def slow_pace(**fields: float) -> Pace:
    """With back-offs in which a test would not wait."""
    return replace(PACE, backoff=Backoff(60.0, 60.0), **fields)


async def restarted(sim: Simulation) -> None:
    await sim.stop_controller()
    await sim.start_controller()
