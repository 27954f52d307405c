"""The controller, whole, against an API server that can misbehave: one behaviour each."""

import asyncio
from dataclasses import replace

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import CONFIG_MAPS, EVENTS, NODES, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.kubelet import Crash, Evicted, ImagePullBackOff, NeverReady, Ready, Unschedulable
from support.simulation import NAMESPACE, Simulation


async def filled(sim: Simulation, **spec: object) -> None:
    sim.apply(sim.service(), sim.pool(**spec))  # type: ignore[arg-type]
    await sim.until_success()


def creates(sim: Simulation) -> list[Json]:
    return [r.body for r in sim.server.writes(PODS) if r.verb == "create" and r.status == 201]


async def test_a_pool_is_filled_with_exactly_its_initial_sessions(sim: Simulation) -> None:
    await filled(sim, initial=3, maximum=6)
    assert len(sim.pods(node="worker-1")) == len(sim.pods(node="worker-2")) == 3
    assert len(creates(sim)) == 6
    assert sim.status()["nodeCounts"] == {"total": 2, "success": 2, "pending": 0, "notFound": 0}


async def test_an_idle_controller_writes_nothing(sim: Simulation) -> None:
    await filled(sim)
    await sim.comes_to_rest()
    assert await sim.quiet(1.0) == 0


async def test_heartbeats_of_nodes_cause_no_write(sim: Simulation) -> None:
    await filled(sim)
    await sim.comes_to_rest()
    before = len(sim.server.writes())
    for beat in range(5):
        sim.server.store.edit(NODES, "worker-1", {"metadata": {"annotations": {"beat": str(beat)}}})
    assert await sim.quiet() == 0
    assert len(sim.server.writes()) == before


async def test_the_code_is_copied_to_an_immutable_config_map_of_the_service(sim: Simulation) -> None:
    await filled(sim)
    (config_map,) = sim.server.store.all(CONFIG_MAPS)
    assert config_map["immutable"] is True
    assert config_map["metadata"]["ownerReferences"][0]["kind"] == "WebService"
    assert config_map["data"]["file-0"] == "x = 1"


async def test_growing_initial_adds_sessions_and_shrinking_removes_them(sim: Simulation) -> None:
    await filled(sim, initial=1)
    first = sim.uids()
    sim.edit_pool(initialPoolSize=3)
    await sim.until(lambda: len(sim.ready_pods()) == 6)
    assert first <= sim.uids()
    sim.edit_pool(initialPoolSize=1)
    await sim.until(lambda: len(sim.pods()) == 2)
    await sim.until_success()


async def test_new_code_is_rolled_out_surge_first(sim: Simulation) -> None:
    await filled(sim, initial=2)
    fewest = 4
    sim.edit_service(code={"inline": {"service.py": "x = 2"}})

    def rolled() -> bool:
        nonlocal fewest
        fewest = min(fewest, len(sim.ready_pods()))
        revisions = {pod["metadata"]["labels"][names.LABEL_REVISION] for pod in sim.pods()}
        return revisions == {sim.status()["revision"]} and sim.status()["sessions"]["updated"] == 4

    await sim.until(rolled)
    assert fewest == 4
    assert all(len(sim.pods(node=n)) == 2 for n in ("worker-1", "worker-2"))
    await sim.until(lambda: len(sim.server.store.all(CONFIG_MAPS)) == 1, "the old revision's ConfigMap is gone")


async def test_a_revision_that_fails_to_warm_leaves_the_old_sessions_and_is_left_by_the_next(sim: Simulation) -> None:
    await filled(sim, initial=2)
    old = sim.uids()
    sim.kubelet.fate = lambda pod: (
        Ready() if pod["metadata"]["uid"] in old else Crash("ImportError: no foo (import service)")
    )
    sim.edit_service(code={"inline": {"service.py": "import foo"}})
    await sim.until(lambda: len(sim.pods()) == 6, "one surge pod a node")
    await asyncio.sleep(0.2)
    assert old <= {pod["metadata"]["uid"] for pod in sim.ready_pods()}
    assert len(sim.pods()) == 6
    sim.kubelet.fate = lambda pod: Ready()
    sim.edit_service(code={"inline": {"service.py": "x = 3"}})
    await sim.until(lambda: sim.status()["sessions"]["updated"] == 4)


async def test_a_lost_pod_is_replaced(sim: Simulation) -> None:
    await filled(sim)
    victim = sim.pods()[0]["metadata"]["name"]
    sim.server.store.delete(PODS, victim, NAMESPACE, grace=0)
    await sim.until(lambda: len(sim.ready_pods()) == 4)


async def test_a_pod_that_the_watch_showed_before_its_creation_was_answered_is_replaced_as_soon(
    sim: Simulation,
) -> None:
    sim.server.delay("create", PODS, 0.3)
    await filled(sim)
    await sim.until(lambda: all(request.status for request in sim.server.writes(PODS)), "all were answered")
    await sim.comes_to_rest()
    sim.server.store.delete(PODS, sim.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    await sim.until(lambda: len(sim.ready_pods()) == 4)


async def test_a_pod_deleted_while_the_watch_was_down_is_noticed(sim: Simulation) -> None:
    await filled(sim)
    sim.server.pause_watches()
    sim.server.store.delete(PODS, sim.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    sim.server.resume_watches(lost=True)
    await sim.until(lambda: len(sim.ready_pods()) == 4)


async def test_a_pool_deleted_while_the_watch_was_down_is_not_refilled(sim: Simulation) -> None:
    await filled(sim)
    made = len(creates(sim))
    sim.server.pause_watches()
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    sim.server.resume_watches(lost=True)
    await sim.until(lambda: not sim.pods(alive=False) and sim.app and len(sim.app.store.pools) == 0)
    await sim.comes_to_rest()
    assert len(creates(sim)) == made


async def test_deleting_a_pool_leaves_no_session_even_with_the_controller_away(sim: Simulation) -> None:
    await filled(sim)
    await sim.stop_controller()
    sim.server.store.delete(SESSION_POOLS, "score", NAMESPACE)
    await sim.until(lambda: not sim.pods(alive=False))


async def test_deleting_the_service_retires_its_sessions_and_publishing_it_heals_the_pool(sim: Simulation) -> None:
    await filled(sim)
    sim.server.store.delete(WEB_SERVICES, "score", NAMESPACE)
    await sim.until(lambda: sim.status()["state"] == "NotFound" and not sim.pods(alive=False))
    assert sim.condition("Stalled")["reason"] == "ServiceNotFound"
    sim.apply(sim.service())
    await sim.until_success()
    assert sim.condition("Stalled")["status"] == "False"


async def test_a_node_that_joins_is_filled_and_one_that_leaves_disappears(sim: Simulation) -> None:
    await filled(sim)
    sim.add_node("worker-3")
    await sim.until(lambda: len(sim.ready_pods()) == 6)
    sim.server.store.delete(NODES, "worker-3")
    await sim.until(lambda: len(sim.status()["nodes"]) == 2 and not sim.pods(node="worker-3", alive=False))


async def test_a_lost_node_is_reported_and_not_churned_and_used_when_it_returns(
    sim: Simulation,
) -> None:
    await filled(sim)
    uids = sim.uids()
    sim.kubelet.lose_node("worker-1")
    await sim.until(lambda: sim.status()["nodes"][0]["state"] == "Pending")
    assert sim.status()["nodes"][0]["message"].startswith("NodeNotReady")
    assert sim.condition("Ready")["status"] == "True"
    await asyncio.sleep(0.2)
    assert sim.uids() == uids
    sim.kubelet.return_node("worker-1")
    await sim.until_success()
    assert sim.uids() == uids


@pytest.mark.parametrize(
    ("fate", "reason", "words"),
    [
        (Crash("ImportError: no foo (import service)\ntrace"), "SessionFailed", "ImportError: no foo"),
        (Crash("StartTimeout: init took longer than 600 s"), "StartTimeout", "init"),
        (ImagePullBackOff(), "ImagePullBackOff", "missing:latest"),
        (Unschedulable(), "Unschedulable", "Insufficient memory"),
    ],
)
async def test_a_session_that_can_not_start_is_held_and_said_once(
    sim: Simulation, fate: Crash | ImagePullBackOff | Unschedulable, reason: str, words: str
) -> None:
    sim.kubelet.fate = lambda pod: fate
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: sim.condition("Stalled").get("reason") == reason)
    assert words in sim.status()["nodes"][0]["message"]
    assert words in sim.condition("Ready")["message"]
    await asyncio.sleep(0.5)
    assert len(creates(sim)) == 4
    warnings = [e for e in sim.server.store.all(EVENTS) if e["type"] == "Warning"]
    assert [(e["reason"], e.get("count", 1)) for e in warnings] == [(reason, 1)]


async def test_an_evicted_pod_holds_its_slot_until_its_back_off_is_over(sim: Simulation) -> None:
    await filled(sim, initial=1)
    sim.kubelet.fate = lambda pod: Evicted()
    await sim.until(lambda: all(pod["status"].get("phase") == "Failed" for pod in sim.pods()))
    await asyncio.sleep(0.3)
    assert len(creates(sim)) == 2


async def test_a_running_phase_is_shown_while_it_is_long(sim: Simulation) -> None:
    sim.kubelet.fate = lambda pod: NeverReady()
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until(lambda: "init for more than 5 s" in sim.status().get("nodes", [{}])[0].get("message", ""))


async def test_a_refused_pod_is_reported_and_tried_again(sim: Simulation) -> None:
    sim.server.fail("create", PODS, 403, times=2, reason="Forbidden", message="exceeded quota: sessions")
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "QuotaExceeded")
    assert "exceeded quota" in sim.status()["nodes"][0]["message"]
    await sim.until_success()


@pytest.mark.parametrize("status", [0, 429, 500])
async def test_an_answer_that_is_lost_makes_no_session_too_many(sim: Simulation, status: int) -> None:
    sim.server.fail("create", PODS, status, times=3, after=True)
    await filled(sim, initial=3)
    await asyncio.sleep(0.2)
    assert len(sim.pods()) == 6


async def test_a_lagging_watch_makes_no_session_too_many(sim: Simulation) -> None:
    sim.apply(sim.service())
    sim.server.pause_watches()
    sim.apply(sim.pool(initial=3))
    sim.server.resume_watches()
    await sim.until(lambda: len(sim.pods()) == 6)
    sim.server.pause_watches()
    assert sim.app is not None
    for key in sim.app.store.all_keys():
        sim.app.enqueue(key)
    await asyncio.sleep(0.2)
    assert len(sim.pods(alive=False)) == 6
    sim.server.resume_watches()
    await sim.until_success()


async def test_a_controller_that_crashes_while_it_fills_goes_on_where_it_was(sim: Simulation) -> None:
    sim.server.delay("create", PODS, 0.05)
    sim.apply(sim.service(), sim.pool(initial=4))
    await sim.until(lambda: len(sim.pods()) >= 2)
    await sim.stop_controller()
    await sim.start_controller()
    await sim.until_success()
    assert len(sim.pods(alive=False)) == 8


async def test_an_api_server_that_is_away_is_waited_for(sim: Simulation) -> None:
    await filled(sim)
    await sim.server.stop()
    sim.server.store.delete(PODS, sim.pods()[0]["metadata"]["name"], NAMESPACE, grace=0)
    await asyncio.sleep(0.3)
    await sim.server.start()
    await sim.until(lambda: len(sim.ready_pods()) == 4, seconds=20)


async def test_a_new_process_size_is_an_annotation_and_no_restart(sim: Simulation) -> None:
    await filled(sim, initial=2, maximum=4, isolation="Process")
    uids = sim.uids()
    assert len(uids) == 2
    sim.edit_pool(initialPoolSize=3, maxPoolSize=8)
    await sim.until(lambda: sim.status()["sessions"] == {"desired": 6, "ready": 6, "updated": 6, "old": 0})
    assert sim.uids() == uids


async def test_code_in_a_config_map_is_read_and_a_change_is_a_new_revision(sim: Simulation) -> None:
    store = sim.server.store
    sim.apply(sim.service(code=""), sim.pool(initial=1))
    store.edit(WEB_SERVICES, "score", {"spec": {"code": {"inline": None, "configMap": {"name": "code"}}}}, NAMESPACE)
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "ConfigMapNotFound")
    body = {"metadata": {"name": "code", "namespace": NAMESPACE}, "data": {"service.py": "x = 1"}}
    store.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap"} | body, NAMESPACE)
    await sim.until(lambda: sim.status().get("sessions", {}).get("updated") == 2)
    first = sim.status()["revision"]
    store.edit(CONFIG_MAPS, "code", {"data": {"service.py": "x = 2"}}, NAMESPACE)
    await sim.until(lambda: sim.status()["revision"] != first and sim.status()["sessions"]["updated"] == 2)
    store.delete(CONFIG_MAPS, "code", NAMESPACE)
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "ConfigMapNotFound")
    assert len(sim.ready_pods()) == 2


async def test_upper_and_lower_case_twins_are_two_services(sim: Simulation) -> None:
    sim.apply(
        sim.service("a", service="Score"), sim.pool("a", service="Score", initial=1),
        sim.service("b", service="score"), sim.pool("b", service="score", initial=1),
    )  # fmt: skip
    await sim.until_success("a")
    await sim.until_success("b")
    assert len(sim.pods()) == 4


async def test_the_service_shows_its_pool_and_the_running_signature(sim: Simulation) -> None:
    await filled(sim)

    def status() -> Json:
        found: Json = sim.server.store.all(WEB_SERVICES)[0].get("status") or {}
        return found

    await sim.until(lambda: status().get("inputs"))
    assert status()["pool"] == "dedicated"
    assert status()["revision"] == sim.status()["revision"]
    assert status()["inputs"] == [{"name": "bmi", "type": "numeric", "required": True}]


async def test_a_status_that_can_not_be_written_is_no_reason_not_to_act(sim: Simulation) -> None:
    sim.server.fail("patch", SESSION_POOLS, 500, times=3)
    sim.apply(sim.service(), sim.pool(initial=2))
    await sim.until(lambda: len(sim.ready_pods()) == 4)
    await sim.until_success()


async def test_a_large_fill_stops_where_the_pool_is_changed(sim: Simulation) -> None:
    sim.server.delay("create", PODS, 0.2)
    sim.apply(sim.service(), sim.pool(initial=200, maximum=200))
    await sim.until(lambda: len(creates(sim)) >= 16)
    sim.edit_pool(initialPoolSize=1)
    await sim.until(lambda: len(sim.pods()) == 2, seconds=30)
    assert len(creates(sim)) < 200


async def test_a_pod_with_stolen_labels_is_neither_counted_nor_touched(sim: Simulation) -> None:
    await filled(sim)
    stolen = sim.pods()[0]
    metadata = {key: stolen["metadata"][key] for key in ("labels", "annotations")} | {"name": "intruder"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "c"}]}}
    for namespace in (NAMESPACE, "elsewhere"):
        sim.server.store.create(PODS, body | {"metadata": metadata | {"namespace": namespace}}, namespace)
    sim.edit_pool(initialPoolSize=1)
    await sim.until(lambda: sim.status()["observedGeneration"] == 2 and len(sim.pods()) == 2 + 2, "it has shrunk")
    await sim.comes_to_rest()
    assert sim.status()["sessions"]["ready"] == 2
    assert len([p for p in sim.server.store.all(PODS) if p["metadata"]["name"] == "intruder"]) == 2


async def test_a_revision_that_fails_is_said_while_the_old_sessions_serve(sim: Simulation) -> None:
    await filled(sim, initial=1)
    old = sim.uids()
    sim.kubelet.fate = lambda pod: (
        Ready() if pod["metadata"]["uid"] in old else Crash("SyntaxError: invalid syntax (service.py, line 1)")
    )
    sim.edit_service(code={"inline": {"service.py": "def"}})
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "RevisionFailed")
    assert sim.condition("Ready")["status"] == "True"
    assert "SyntaxError" in sim.status()["nodes"][0]["message"]


async def test_a_config_map_that_is_refused_is_said(sim: Simulation) -> None:
    sim.server.fail("create", CONFIG_MAPS, 403, times=2, reason="Forbidden", message="exceeded quota: configs")
    sim.apply(sim.service(), sim.pool(initial=1))
    await sim.until(lambda: sim.condition("Stalled").get("reason") == "ConfigMapRefused")
    await sim.until_success()


async def test_status_of_a_later_version_does_not_hide_an_object(sim: Simulation) -> None:
    await filled(sim)
    uids = sim.uids()
    sim.server.store.edit(WEB_SERVICES, "score", {"status": {"pool": "of-a-later-version"}}, NAMESPACE)
    await sim.stop_controller()
    await sim.start_controller()
    await sim.comes_to_rest()
    assert sim.uids() == uids


async def test_one_more_ready_session_is_said_soon_where_many_start_and_the_last_one_at_once(sim: Simulation) -> None:
    await sim.stop_controller()
    sim.pace = replace(sim.pace, a_start=0.1, progress=1.0, starting=60.0)
    await sim.start_controller()
    ready: set[str] = set()
    sim.kubelet.fate = lambda pod: Ready() if pod["metadata"]["name"] in ready else NeverReady()
    sim.apply(sim.service(), sim.pool(initial=10, maximum=10, isolation="Pod"))
    await sim.until(lambda: len(sim.pods()) == 20)
    await asyncio.sleep(1.2)  # what was still to be said of the creations is
    first, second, *_ = sorted(pod["metadata"]["name"] for pod in sim.pods())
    ready.add(first)
    await sim.until(lambda: len(sim.ready_pods()) == 1)
    await asyncio.sleep(0.3)
    assert sim.status()["sessions"]["ready"] == 0
    await sim.until(lambda: sim.status()["sessions"]["ready"] == 1, seconds=1.5)
    # what does not come to life is seen to at once all the same
    sim.server.store.delete(PODS, second, NAMESPACE, grace=0)
    await sim.until(lambda: len(sim.pods()) == 20, seconds=0.5)
    names = sorted(pod["metadata"]["name"] for pod in sim.pods())
    ready.update(names[1:])
    await sim.until(lambda: len(sim.ready_pods()) == 19)
    await asyncio.sleep(1.2)
    ready.update(names)
    await sim.until(lambda: sim.condition("Ready")["status"] == "True", seconds=0.5)
