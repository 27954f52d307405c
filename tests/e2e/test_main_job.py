"""Apply a SessionPool, get warmed sessions on every compute node; change it, delete it."""

import json

import yaml

from support.cluster import apply, get, kubectl, wait_for
from support.pools import POOLS, SERVICES, WORKERS, PodProxy, publish, session_pool, web_service
from support.tools import ROOT


def test_the_diabetes_example_is_warm_on_every_worker_and_answers(restricted: str, proxy: PodProxy) -> None:
    service = yaml.safe_load((ROOT / "manifests/examples/diabetes/webservice.yaml").read_text())
    del service["metadata"]["namespace"]
    pool = publish(
        restricted,
        service,
        session_pool("diabetes", 3, 6, serviceName="DiabetesScore", serviceVersion="v1.0.0"),
    )
    status = pool.until_success(300)
    assert [(n["name"], n["state"], n["ready"]) for n in status["nodes"]] == [(w, "Success", 3) for w in WORKERS]
    assert status["sessions"] == {"desired": 6, "ready": 6, "updated": 6, "old": 0}
    answers = {
        json.dumps(proxy.call(pod, {"age": 59, "sex": 2, "bmi": 32.1, "bp": 101}).body["outputParameters"])
        for pod in pool.pods()
    }
    assert len(answers) == 1
    assert json.loads(answers.pop())["score"] > 0
    table = kubectl("get", POOLS, "-n", restricted).stdout.splitlines()
    assert table[0].split() == ["NAME", "SERVICE", "VERSION", "STATE", "READY", "DESIRED", "AGE"]
    assert table[1].split()[:6] == ["diabetes", "DiabetesScore", "v1.0.0", "Success", "6", "6"]
    shown = wait_for(
        lambda: get(SERVICES, "diabetes", restricted)["status"].get("inputs"), 30, "the service shows its signature"
    )
    assert [(p["name"], p["type"]) for p in shown][:2] == [("age", "numeric"), ("sex", "integer")]
    kubectl("wait", "--for=condition=Ready", f"{POOLS}/diabetes", "-n", restricted, "--timeout=10s")
    kubectl("wait", "--for=condition=Ready", f"{SERVICES}/diabetes", "-n", restricted, "--timeout=30s")
    kubectl("delete", POOLS, "diabetes", "-n", restricted, "--cascade=foreground", "--timeout=60s")
    assert pool.pods() == []


DOUBLE_AND_WAIT = "import time\n\n\ndef predict(x: float) -> float:\n    time.sleep(x - 1)\n    return 2 * x\n"


class TestOnePoolsLife:
    """In the order of the tests: one pool, changed again and again."""

    def test_it_grows(self, restricted: str) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 1, 4))
        pool.until_success()
        first = {pod["metadata"]["uid"] for pod in pool.pods()}
        pool.patch(initialPoolSize=2)
        pool.until_success()
        assert all(len(pool.ready_pods(worker)) == 2 for worker in WORKERS)
        assert first <= {pod["metadata"]["uid"] for pod in pool.pods()}

    def test_it_rolls_out_new_code_and_never_has_fewer_sessions(self, restricted: str, proxy: PodProxy) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 2, 4))
        before = pool.until_success()["revision"]
        code = "def predict(x: float) -> float:\n    return 3 * x\n"
        apply(web_service("life", code), namespace=restricted)
        fewest = 4

        def rolled_out() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(pool.ready_pods()))
            status = pool.status()
            return bool(status["revision"] != before and status["sessions"]["updated"] == 4 and len(pool.pods()) == 4)

        wait_for(rolled_out, 120, "every session has the new revision")
        assert fewest == 4
        assert {proxy.call(pod, {"x": 2}).body["outputParameters"]["answer"] for pod in pool.ready_pods()} == {6.0}

    def test_it_takes_over_timeouts_without_a_restart(self, restricted: str, proxy: PodProxy) -> None:
        pool = publish(restricted, web_service("life", DOUBLE_AND_WAIT), session_pool("life", 1, 4))
        pool.until_success()
        uids = {pod["metadata"]["uid"] for pod in pool.pods()}
        pool.patch(requestTimeoutSeconds=2)
        pod = pool.pods()[0]
        wait_for(
            lambda: proxy.control(pod)["settings"]["requestTimeoutSeconds"] == 2,
            120,
            "the session pod has the new timeout",
        )
        assert {p["metadata"]["uid"] for p in pool.pods()} == uids

    def test_it_shrinks(self, restricted: str) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 1, 4, idleTimeoutSeconds=5))
        pool.until_success()
        wait_for(lambda: len(pool.pods()) == 2, 60, "one session a worker")

    def test_what_is_above_a_lowered_maximum_goes_at_once(self, restricted: str) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 3, 3))
        pool.until_success()
        pool.patch(initialPoolSize=1, maxPoolSize=1)
        wait_for(lambda: len(pool.pods()) == 2, 60, "one session a worker")

    def test_it_is_not_found_when_its_service_is_deleted_and_heals_when_it_is_back(self, restricted: str) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 1, 4))
        pool.until_success()
        kubectl("delete", SERVICES, "life", "-n", restricted)
        assert pool.until_stalled("ServiceNotFound")["state"] in ("Pending", "NotFound")
        wait_for(lambda: pool.status()["state"] == "NotFound" and not pool.pods(), 60, "the sessions have ended")
        apply(web_service("life"), namespace=restricted)
        pool.until_success()

    def test_deleting_it_leaves_nothing(self, restricted: str) -> None:
        pool = publish(restricted, web_service("life"), session_pool("life", 1, 4))
        pool.until_success()
        kubectl("delete", POOLS, "life", "-n", restricted)
        wait_for(lambda: not pool.pods(), 30, "the session pods are gone")


def test_a_process_pool_has_one_pod_per_node_and_takes_over_new_sizes(restricted: str, proxy: PodProxy) -> None:
    pool = publish(restricted, web_service("forked"), session_pool("forked", 3, 6, isolation="Process"))
    status = pool.until_success()
    assert status["sessions"] == {"desired": 6, "ready": 6, "updated": 6, "old": 0}
    assert all(len(pool.pods(worker)) == 1 for worker in WORKERS)
    pod = pool.pods()[0]
    container = pod["spec"]["containers"][0]
    assert container["resources"]["requests"]["memory"] == "96Mi"
    uids = {p["metadata"]["uid"] for p in pool.pods()}
    for slot in range(3):
        assert proxy.call(pod, {"x": 4}, port=9000 + slot).body["outputParameters"] == {"answer": 8.0}
    # socket activation: the slot above initial has no session until a call comes
    assert [s["state"] for s in proxy.control(pod)["sessions"]][3:] == ["empty"] * 3
    assert proxy.call(pod, {"x": 4}, port=9003).body["success"]
    pool.patch(initialPoolSize=5)
    wait_for(lambda: pool.status()["sessions"]["ready"] >= 10, 150, "five sessions a node")
    assert {p["metadata"]["uid"] for p in pool.pods()} == uids


def test_a_service_that_starts_threads_is_not_forked_and_says_so(restricted: str) -> None:
    code = (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9999,), name='poller', daemon=True).start()\n"
        "def predict(x: float) -> float:\n    return x\n"
    )
    pool = publish(restricted, web_service("threaded", code), session_pool("threaded", 1, 2, isolation="Process"))
    pool.until_success()
    found = wait_for(lambda: pool.condition("NotForkSafe"), 30, "the condition NotForkSafe")
    assert (found["status"], "poller" in found["message"]) == ("True", True)


def test_without_a_warm_up_input_the_pool_says_so(restricted: str) -> None:
    pool = publish(restricted, web_service("cold", warmup=None), session_pool("cold"))
    pool.until_success()
    found = wait_for(lambda: pool.condition("Warmed").get("reason") == "NoInput", 30, "Warmed=False/NoInput")
    assert found


def test_code_in_a_config_map_is_served_and_a_change_is_rolled_out(restricted: str, proxy: PodProxy) -> None:
    def config_map(factor: int) -> dict[str, object]:
        code = f"def predict(x: float) -> float:\n    return {factor} * x\n"
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"service.py": code}}

    service = web_service("mapped")
    service["spec"]["code"] = {"configMap": {"name": "code"}}
    pool = publish(restricted, service, session_pool("mapped"))
    assert "'code'" in pool.until_stalled("ConfigMapNotFound", 30)["nodes"][0]["message"]
    apply(config_map(2), namespace=restricted)
    first = pool.until_success()["revision"]
    apply(config_map(5), namespace=restricted)
    wait_for(lambda: pool.status()["revision"] != first, 30, "the change is seen")
    pool.until_success()
    assert proxy.call(pool.pods()[0], {"x": 2}).body["outputParameters"] == {"answer": 10.0}


def test_code_in_the_image_is_served(restricted: str, proxy: PodProxy) -> None:
    """The default image has no service; the standard library has functions that can be called as they are."""
    service = web_service("builtin")
    service["spec"]["code"] = {"imagePath": "/usr/lib/python3.11"}
    service["spec"]["entrypoint"] = "colorsys:rgb_to_hls"
    service["spec"]["warmup"] = {"r": 0.1, "g": 0.2, "b": 0.3}
    pool = publish(restricted, service, session_pool("builtin"))
    pool.until_success()
    answer = proxy.call(pool.pods()[0], {"r": 0.1, "g": 0.2, "b": 0.3})
    assert answer.body["success"], answer


def test_twins_in_upper_and_lower_case_are_two_services(restricted: str, proxy: PodProxy) -> None:
    pools = []
    for name, factor in (("Twin", 2), ("twin", 3)):
        code = f"def predict(x: float) -> float:\n    return {factor} * x\n"
        service = web_service(f"{'upper' if name[0] == 'T' else 'lower'}-twin", code, name=name)
        object_name = service["metadata"]["name"]
        pools.append(publish(restricted, service, session_pool(object_name, serviceName=name)))
    for pool, factor in zip(pools, (2, 3), strict=True):
        pool.until_success()
        assert proxy.call(pool.pods()[0], {"x": 1}).body["outputParameters"] == {"answer": float(factor)}


def test_a_name_of_128_characters_with_dots_and_letters_of_other_scripts_is_served(restricted: str) -> None:
    name = ("Größe.模型-" * 16)[:128]
    pool = publish(restricted, web_service("long", name=name), session_pool("long", serviceName=name))
    pool.until_success()


def test_a_session_pod_has_no_rights_to_speak_of(restricted: str) -> None:
    pool = publish(restricted, web_service("plain"), session_pool("plain"))
    pool.until_success()
    pod = pool.pods()[0]
    name = pod["metadata"]["name"]
    probe = (
        "import os; print(os.getuid(), os.path.exists('/var/run/secrets/kubernetes.io'), os.access('/etc', os.W_OK))"
    )
    out = kubectl("exec", "-n", restricted, name, "--", "python3", "-c", probe).stdout.split()
    assert int(out[0]) > 0
    assert out[1:] == ["False", "False"]
