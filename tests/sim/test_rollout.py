"""A pool that changes, whole: what holds at every moment of a rollout, and what its user and their tools are told."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import CONFIG_MAPS, EVENTS, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_faults import Request
from support.apiserver_objects import Json
from support.kstatus import CURRENT, FAILED, IN_PROGRESS, kstatus
from support.kubelet import Crash, Fate, NeverReady, Ready, Unschedulable
from support.simulation import NAMESPACE, PACE, Simulation
from support.witness import Witness

WORKERS = ("worker-1", "worker-2")


async def filled(sim: Simulation, **spec: Any) -> Witness:
    sim.apply(sim.service(), sim.pool(**spec))
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == CURRENT, "both are Current")
    await sim.comes_to_rest()
    return Witness(sim)


def pool(sim: Simulation) -> Json:
    return sim.server.store.get(SESSION_POOLS, "score", NAMESPACE)


def service(sim: Simulation) -> Json:
    return sim.server.store.get(WEB_SERVICES, "score", NAMESPACE)


def change_code(sim: Simulation, code: str = "x = 2") -> None:
    sim.edit_service(code={"inline": {"service.py": code}})


def rolled_out(sim: Simulation) -> bool:
    """Nothing of an older revision stays, and all that is wanted is ready."""
    revisions = {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in sim.pods()}
    counts = sim.status()["sessions"]
    return revisions == {sim.status()["revision"]} and counts["updated"] == counts["ready"] == counts["desired"]


# --- what nobody has seen yet -----------------------------------------------------------------------------------------


async def test_a_session_that_becomes_ready_while_it_is_being_deleted_as_useless_stays(sim: Simulation) -> None:
    """The first sessions of a pool whose code changes at once have no use, unless they serve before others do."""
    sim.kubelet.fate = lambda pod: NeverReady()
    sim.apply(sim.service(), sim.pool(initial=2, maximum=2))
    await sim.until(lambda: len(sim.pods()) == 4 and sim.status()["sessions"]["desired"] == 4)
    await sim.comes_to_rest()
    first = sim.uids()

    def serves(request: Request) -> None:
        """At the moment at which the first of them is to go."""
        if (request.verb, request.resource) == ("delete", PODS):
            sim.server.on_write.remove(serves)
            sim.kubelet.fate = lambda pod: Ready() if pod["metadata"]["uid"] in first else NeverReady()
            sim.kubelet.settle()

    sim.server.on_write.append(serves)
    change_code(sim)
    await sim.until(lambda: serves not in sim.server.on_write, "one is deleted")
    await sim.until(lambda: sim.status()["sessions"]["ready"] == 4)
    await sim.comes_to_rest()
    assert first <= sim.uids()
    sim.kubelet.fate = lambda pod: Ready()
    await sim.until(lambda: rolled_out(sim))


# --- what tools are told ----------------------------------------------------------------------------------------------


async def test_objects_just_made_are_in_progress_before_the_controller_has_looked(sim: Simulation) -> None:
    await sim.stop_controller()
    sim.apply(sim.service(), sim.pool())
    assert kstatus(pool(sim)) == kstatus(service(sim)) == IN_PROGRESS
    await sim.start_controller()
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == CURRENT)


async def test_a_controller_that_starts_writes_nothing_about_what_is_at_rest(sim: Simulation) -> None:
    await filled(sim)
    before = len(sim.server.writes())
    await sim.stop_controller()
    await sim.start_controller()
    await sim.comes_to_rest()
    assert len(sim.server.writes()) == before


async def test_progress_is_told_less_and_less_often_and_the_end_at_once(sim: Simulation) -> None:
    sim.pace = replace(PACE, status=0.05, progress=60.0)
    await sim.stop_controller()
    await sim.start_controller()
    ready: set[str] = set()
    sim.kubelet.fate = lambda pod: Ready() if pod["metadata"]["uid"] in ready else NeverReady()
    sim.apply(sim.service(), sim.pool(initial=20, maximum=20))
    await sim.until(lambda: len(sim.pods()) == 40)
    await sim.comes_to_rest()
    before = len(sim.server.writes(SESSION_POOLS))
    for pod in sim.pods():
        ready.add(pod["metadata"]["uid"])
        await asyncio.sleep(0.04)
    await sim.until_success()
    # in 1.6 s or more after 0.05, 0.1, 0.2, 0.4, 0.8 s, and the end; each 0.05 s it would be some 30
    assert 3 <= len(sim.server.writes(SESSION_POOLS)) - before <= 10
    assert sim.status()["sessions"]["ready"] == 40


async def test_a_service_waits_for_a_status_of_its_pool_that_was_put_off(sim: Simulation) -> None:
    sim.pace = replace(PACE, status=0.5)
    await sim.stop_controller()
    await sim.start_controller()
    witness = await filled(sim, initial=1)
    sim.edit_pool(initialPoolSize=2)
    await sim.until(lambda: sim.status()["observedGeneration"] == 2, "a status was written just now")
    revision = sim.status()["revision"]
    change_code(sim)
    witness.forget()
    await sim.until(lambda: kstatus(service(sim)) == CURRENT)
    assert sim.status()["revision"] != revision
    assert rolled_out(sim)
    assert witness.said["WebService"] == [IN_PROGRESS, CURRENT]


async def test_a_service_whose_new_code_no_pool_can_run_is_failed_and_no_more_in_progress(sim: Simulation) -> None:
    await filled(sim)
    sim.edit_service(entrypoint="", script="absent.py")
    await sim.until(lambda: kstatus(service(sim)) == FAILED)
    assert "absent.py" in next(c["message"] for c in service(sim)["status"]["conditions"] if c["type"] == "Stalled")


async def test_the_end_of_a_rollout_is_an_event(sim: Simulation) -> None:
    await filled(sim)
    change_code(sim)
    await sim.until(lambda: rolled_out(sim))
    await sim.comes_to_rest()
    told = [e["reason"] for e in sim.server.store.all(EVENTS) if e["involvedObject"]["kind"] == "SessionPool"]
    assert sorted(told) == ["RolledOut", "RollingOut", "SessionsReady"]


# --- good rollouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["Pod", "Process"])
@pytest.mark.parametrize(("initial", "maximum"), [(3, 3), (3, 8), (1, 2)])
@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (3, 0), (2, 2), (0, 3)])
async def test_at_each_moment_of_a_rollout_enough_sessions_are_ready_and_never_too_many_pods_there(
    sim: Simulation, isolation: str, initial: int, maximum: int, surge: int, unavailable: int
) -> None:
    update = {"maxSurge": surge, "maxUnavailable": unavailable}
    witness = await filled(sim, initial=initial, maximum=maximum, isolation=isolation, update=update)
    change_code(sim)
    witness.forget()
    await sim.until(lambda: kstatus(service(sim)) == CURRENT, "the service is Current")
    assert rolled_out(sim)
    assert witness.fewest_ready >= initial - unavailable
    assert witness.most_pods <= (maximum + surge if isolation == "Pod" else 1 + min(surge, 1))
    assert witness.most_open <= maximum
    assert witness.said["WebService"] == [IN_PROGRESS, CURRENT]
    assert [said for said in witness.said["SessionPool"] if said != CURRENT] in ([IN_PROGRESS], [])
    await sim.comes_to_rest()


async def test_code_that_changes_again_before_the_first_change_is_ready_makes_no_third_process_pod(
    sim: Simulation,
) -> None:
    update = {"maxSurge": 3, "maxUnavailable": 0}
    witness = await filled(sim, initial=2, maximum=4, isolation="Process", update=update)
    only(sim, sim.uids(), NeverReady())
    sim.kubelet.finish_deletions = False
    change_code(sim)
    await sim.until(lambda: len(sim.pods()) == 4, "a new pod beside the old one of each node")
    change_code(sim, "x = 3")
    await sim.until(lambda: len(sim.pods()) == 2, "those that never served leave")
    await sim.comes_to_rest()
    sim.kubelet.finish_deletions, sim.kubelet.fate = True, lambda pod: Ready()
    await sim.until(lambda: rolled_out(sim) and kstatus(pool(sim)) == CURRENT)
    assert witness.most_pods == 2


@pytest.mark.parametrize(("before", "after"), [("Pod", "Process"), ("Process", "Pod")])
async def test_a_change_of_isolation_is_a_rollout_as_well(sim: Simulation, before: str, after: str) -> None:
    witness = await filled(sim, initial=3, maximum=3, isolation=before)
    sim.edit_pool(isolation=after)
    witness.forget()
    await sim.until(lambda: rolled_out(sim) and kstatus(pool(sim)) == CURRENT)
    assert witness.fewest_ready >= 3
    assert witness.most_pods <= 3 + 1
    assert witness.most_open <= 3
    assert witness.said["SessionPool"] == [IN_PROGRESS, CURRENT]
    assert len(sim.pods(node="worker-1")) == (1 if after == "Process" else 3)


async def test_a_new_restarted_at_replaces_every_session(sim: Simulation) -> None:
    witness = await filled(sim)
    before = sim.uids()
    annotations = {names.ANNOTATION_RESTARTED_AT: "2026-11-23T12:00:00Z"}
    sim.server.store.edit(SESSION_POOLS, "score", {"metadata": {"annotations": annotations}}, NAMESPACE)
    await sim.until(lambda: before.isdisjoint(sim.uids()) and rolled_out(sim))
    await sim.until(lambda: kstatus(pool(sim)) == CURRENT)
    assert witness.fewest_ready == 2
    assert witness.said["SessionPool"] == [CURRENT, IN_PROGRESS, CURRENT]


# --- sessions that take their time to leave ---------------------------------------------------------------------------


def room_for(sim: Simulation, pods: int) -> None:
    """So many pods fit on a node; leaving ones hold their place until they are gone."""

    def fate(pod: Json) -> Fate:
        node, bound = pod["metadata"]["annotations"][names.ANNOTATION_NODE], "nodeName" in pod["spec"]
        held = sum("nodeName" in other["spec"] for other in sim.pods(node=node, alive=False))
        return Ready() if bound or held < pods else Unschedulable()

    sim.kubelet.fate = fate


@pytest.mark.parametrize("how", ["kubectl delete", "resize", "rollout"])
async def test_pods_that_leave_are_waited_for_and_the_pool_is_not_called_stalled(sim: Simulation, how: str) -> None:
    witness = await filled(sim, initial=3, maximum=3, update={"maxSurge": 1, "maxUnavailable": 3})
    sim.kubelet.finish_deletions = False
    room_for(sim, 3)
    if how == "kubectl delete":
        for pod in sim.pods():
            sim.server.store.delete(PODS, pod["metadata"]["name"], NAMESPACE)
    elif how == "resize":
        sim.edit_pool(initialPoolSize=0, maxPoolSize=0)
        await sim.until(lambda: not sim.pods())
        sim.edit_pool(initialPoolSize=3, maxPoolSize=3)
    else:
        change_code(sim)
    await sim.until(lambda: len(sim.pods()) == 2, "one surge pod a node, beside those that leave")
    await sim.comes_to_rest()
    assert len(sim.pods(alive=False)) == 2 * (3 + 1)
    assert sim.condition("Reconciling")["status"] == "True"
    sim.kubelet.finish_deletions = True
    await sim.until(lambda: rolled_out(sim) and kstatus(pool(sim)) == CURRENT)
    assert witness.most_pods == 4
    assert not [reason for type_, reason in witness.reasons if type_ == "Stalled"]


@pytest.mark.parametrize("surge", [0, 1])
async def test_idle_sessions_go_before_busy_ones(sim: Simulation, surge: int) -> None:
    """Also the very first, which goes before there is a new one. With nothing known, the highest slot would go."""
    await filled(sim, initial=2, maximum=2, update={"maxSurge": surge, "maxUnavailable": 1})
    old = sim.pods()
    busy = {pod["metadata"]["name"] for pod in old if pod["metadata"]["labels"][names.LABEL_SLOT] == "1"}
    sim.pods_say.busy = busy
    sim.kubelet.fate = lambda pod: Ready() if pod in old else NeverReady()
    change_code(sim)
    await sim.until(lambda: len(sim.pods()) == 4 + 2 * surge, "one old session of each node has gone")
    await sim.comes_to_rest()
    assert {pod["metadata"]["name"] for pod in sim.ready_pods()} == busy


async def test_a_smaller_pool_gives_up_its_idle_sessions_and_keeps_the_busy_ones(sim: Simulation) -> None:
    """With nothing known of them, the highest slots would go."""
    await filled(sim, initial=4, maximum=4)
    busy = {pod["metadata"]["name"] for pod in sim.pods() if pod["metadata"]["labels"][names.LABEL_SLOT] in ("2", "3")}
    sim.pods_say.busy = busy
    sim.edit_pool(initialPoolSize=2)
    await sim.until(lambda: len(sim.pods()) == 4, "two sessions of each node have gone")
    await sim.comes_to_rest()
    assert {pod["metadata"]["name"] for pod in sim.pods()} == busy


async def test_an_image_that_is_no_longer_named_is_left_for_the_default_one(sim: Simulation) -> None:
    await filled(sim)
    sim.edit_service(image="registry.example/mine:1")
    await sim.until(lambda: sim.status()["image"] == "registry.example/mine:1" and rolled_out(sim))
    sim.edit_service(image="")
    await sim.until(lambda: sim.status()["image"] == "session:1" and rolled_out(sim))


async def test_old_code_goes_with_the_last_session_that_has_it(sim: Simulation) -> None:
    await filled(sim)
    sim.kubelet.finish_deletions = False
    change_code(sim)
    await sim.until(lambda: rolled_out(sim) and kstatus(pool(sim)) == CURRENT)
    await sim.comes_to_rest()
    assert len(sim.server.store.all(CONFIG_MAPS)) == 2
    sim.kubelet.finish_deletions = True
    await sim.until(lambda: len(sim.server.store.all(CONFIG_MAPS)) == 1, "the old code is gone")


# --- bad rollouts -----------------------------------------------------------------------------------------------------


def only(sim: Simulation, good: set[str], others: Fate) -> None:
    sim.kubelet.fate = lambda pod: Ready() if pod["metadata"]["uid"] in good else others


async def test_applying_what_was_before_ends_a_bad_rollout_at_once(sim: Simulation) -> None:
    """Also where the default image has changed since: the sessions that serve have the image that they had."""
    witness = await filled(sim)
    good, revision = sim.uids(), sim.status()["revision"]
    await sim.stop_controller()
    sim.config = replace(sim.config, session_image="session:2")
    await sim.start_controller()
    only(sim, good, Crash("SyntaxError: invalid syntax (service.py, line 1)"))
    change_code(sim, "def")
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "RevisionFailed")
    assert sim.status()["image"] == "session:2"
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == FAILED)
    change_code(sim, "x = 1")
    await sim.until(lambda: kstatus(pool(sim)) == kstatus(service(sim)) == CURRENT)
    await sim.comes_to_rest()
    assert sim.uids() == good
    assert (sim.status()["revision"], sim.status()["image"]) == (revision, "session:1")
    assert witness.fewest_ready == 2


async def test_a_surge_session_without_room_leaves_the_old_ones_and_the_remedy_that_it_names_helps(
    sim: Simulation,
) -> None:
    witness = await filled(sim)
    good = sim.uids()
    room_for(sim, 2)
    change_code(sim)
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "SurgeUnschedulable")
    assert good <= sim.uids()
    assert kstatus(pool(sim)) == FAILED
    assert witness.fewest_ready == 2
    await sim.comes_to_rest()
    witness.forget()
    sim.edit_pool(update={"maxSurge": 0, "maxUnavailable": 1})
    await sim.until(lambda: rolled_out(sim) and kstatus(pool(sim)) == CURRENT)
    assert witness.said["SessionPool"] == [IN_PROGRESS, CURRENT]  # what was applied has not failed
    assert witness.fewest_ready == 1
