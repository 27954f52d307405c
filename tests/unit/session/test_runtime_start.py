"""Becoming ready, and what a pod says when it cannot. Real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.runtime_pod import alive, eventually, failed
from unit.session.conftest import StartPod

PLAIN = """
    import os
    def predict(x: float = 0.0):
        return os.getpid()
"""


# --- ready ------------------------------------------------------------------------------------------------------------


def test_ready_means_that_every_initial_session_has_answered_the_warm_up(start_pod: StartPod, tmp_path: Path) -> None:
    note = tmp_path / "note"
    pod = start_pod(
        """
        import os
        def predict(note: str):
            open(note, "a").write(f"{os.getpid()}\\n")
        """,
        settings={"initialPoolSize": 3, "maxPoolSize": 4},
        warmup={"note": str(note)},
    )
    pids = {row["pid"] for row in pod.view()["sessions"][:3]}
    assert {int(line) for line in note.read_text().split()} == {pod.template_pid, *pids}
    assert [row["requests"] for row in pod.view()["sessions"]] == [0, 0, 0, 0]  # the warm-up is no request
    assert pod.view()["warmed"] is True


def test_a_session_that_follows_another_or_is_activated_does_not_run_the_warm_up_again(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        CALLS = []
        def predict(x: float = 0.0):
            CALLS.append(os.getpid())
            return CALLS.count(os.getpid())
        """,
        settings={"initialPoolSize": 1, "maxPoolSize": 2},
        warmup={"x": 1},
    )
    old = pod.slot()["pid"]
    os.kill(old, signal.SIGKILL)
    pod.wait_new_session(0, old)
    assert pod.call({}, slot=0).answer == 1
    assert pod.call({}, slot=1).answer == 1


def test_without_a_warm_up_ready_means_that_sessions_are_idle(start_pod: StartPod) -> None:
    pod = start_pod(PLAIN)
    assert pod.view()["warmed"] is False
    assert pod.view()["phase"] == "ready"
    assert pod.slot()["state"] == "idle"


def test_phases_are_shown_while_they_last_and_nothing_is_ready(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import time
        def load():
            time.sleep(300)
        def predict():
            return 1
        """,
        init="service:load",
        ready=False,
    )
    eventually(lambda: pod.control("/sessions").status == 200 and pod.view()["phase"] == "init")
    assert pod.control("/readyz").status == 503
    assert pod.control("/livez").status == 200
    assert pod.control("/signature").status == 503
    first = pod.view()["phaseSeconds"]
    eventually(lambda: pod.view()["phaseSeconds"] > first)


def test_the_control_port_serves_the_signature_and_metrics(start_pod: StartPod) -> None:
    pod = start_pod(PLAIN)
    pod.call({})
    assert [item["name"] for item in pod.control("/signature").json["inputs"]] == ["x"]
    pod.wait_slot(0, state="idle")
    metrics = pod.control("/metrics").body.decode()
    assert 'sessionpools_requests_total{slot="0"} 1' in metrics
    assert 'sessionpools_sessions{state="idle"} 1' in metrics
    assert pod.control("/nothing").status == 404
    eventually(lambda: pod.slot()["memoryBytes"] > 0)


# --- failing ----------------------------------------------------------------------------------------------------------


def test_a_missing_module_is_the_first_line_of_the_termination_log(start_pod: StartPod) -> None:
    pod = start_pod("import no_such_module\ndef predict(): pass\n", ready=False)
    assert failed(pod) == "ModuleNotFoundError: No module named 'no_such_module' (import service)"


def test_an_init_that_raises_is_reported_with_its_frames(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        def load():
            raise FileNotFoundError("model.bin")
        def predict():
            return 1
        """,
        init="service:load",
        ready=False,
    )
    assert failed(pod) == "FileNotFoundError: model.bin (init)"
    assert "in load" in pod.termination
    assert "sessionpools/session/" not in pod.termination


def test_a_warm_up_that_fails_ends_the_pod(start_pod: StartPod) -> None:
    pod = start_pod("def predict(x: float):\n    return 1 / x\n", warmup={"x": 0}, ready=False)
    assert failed(pod) == "ZeroDivisionError: float division by zero (warmup)"


def test_a_warm_up_that_fails_only_in_sessions_ends_the_pod(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        LOADED_IN = os.getpid()
        def predict():
            if os.getpid() != LOADED_IN:
                raise ConnectionError("made before the fork")
        """,
        warmup={},
        ready=False,
    )
    assert failed(pod) == "ConnectionError: made before the fork (warmup)"


def test_an_entrypoint_that_does_not_exist_is_named(start_pod: StartPod) -> None:
    pod = start_pod("x = 1\n", ready=False)
    assert failed(pod) == "EntrypointNotFound: service has no function 'predict'"


def test_a_hang_in_init_fails_at_the_start_timeout_with_phase_and_stack(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import time
        def connect_to_nowhere():
            time.sleep(300)
        def load():
            connect_to_nowhere()
        def predict():
            return 1
        """,
        init="service:load",
        settings={"startTimeoutSeconds": 3},
        ready=False,
    )
    assert failed(pod) == "StartTimeout: init took longer than 3 s"
    assert "in connect_to_nowhere" in pod.termination
    assert "sessionpools/session/" not in pod.termination


def test_a_hang_in_a_sessions_warm_up_fails_at_the_start_timeout(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, time
        LOADED_IN = os.getpid()
        def stuck():
            while True:
                time.sleep(1)
        def predict():
            if os.getpid() != LOADED_IN:
                stuck()
        """,
        warmup={},
        settings={"startTimeoutSeconds": 4},
        ready=False,
    )
    assert failed(pod) == "StartTimeout: warmup took longer than 4 s"
    assert "in stuck" in pod.termination


def test_a_template_that_is_killed_while_it_loads_is_reported_with_its_phase(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, signal
        def load():
            os.kill(os.getpid(), signal.SIGSEGV)
        def predict():
            return 1
        """,
        init="service:load",
        ready=False,
    )
    assert failed(pod) == "ProcessEnded: killed by SIGSEGV in init"


def test_sessions_that_die_before_they_answer_end_the_pod(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        LOADED_IN = os.getpid()
        def predict():
            if os.getpid() != LOADED_IN:
                os._exit(7)
        """,
        warmup={},
        ready=False,
    )
    assert failed(pod) == "SessionEnded: exited with 7 before it had answered the warm-up"


def test_an_after_fork_hook_that_raises_ends_the_pod(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        def after_fork():
            raise OSError("no connection")
        def predict():
            return 1
        """,
        ready=False,
    )
    assert "OSError: no connection" in failed(pod)


def test_a_revision_that_cannot_be_read_is_reported(start_pod: StartPod) -> None:
    pod = start_pod(PLAIN, format=99, ready=False)
    assert failed(pod) == "ConfigInvalid: session.json has format 99, this runtime reads 1"


def test_a_port_that_is_taken_is_reported(start_pod: StartPod) -> None:
    first = start_pod(PLAIN)
    second = start_pod(PLAIN, ready=False, env={}, base_port=first.base_port)
    assert f"cannot listen on port {first.control_port}" in failed(second)
    assert first.call({}).status == 200


def test_a_failed_pod_leaves_no_process(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, subprocess
        def load():
            child = subprocess.Popen(["sleep", "300"])
            raise ValueError(str(child.pid))
        def predict():
            return 1
        """,
        init="service:load",
        ready=False,
    )
    child = int(failed(pod).split()[1])
    eventually(lambda: not alive(child))


# --- failing after ready ----------------------------------------------------------------------------------------------


BREAKABLE = """
    import os, pathlib
    if (pathlib.Path(__file__).parent / "broken").exists():
        raise RuntimeError("broken meanwhile")
    def predict(x: float = 0.0):
        return os.getpid()
"""


def test_a_template_that_cannot_load_again_leaves_sessions_serving_and_the_pod_not_ready(start_pod: StartPod) -> None:
    pod = start_pod(BREAKABLE)
    pid = pod.call({}).answer
    (pod.directory / "code" / "broken").touch()
    os.kill(pod.template_pid, signal.SIGKILL)
    eventually(lambda: pod.control("/readyz").status == 503)
    assert pod.call({}).answer == pid
    assert "broken meanwhile" in pod.view()["message"]
    (pod.directory / "code" / "broken").unlink()
    eventually(lambda: pod.control("/readyz").status == 200)


def test_a_pod_with_neither_template_nor_sessions_fails(start_pod: StartPod) -> None:
    pod = start_pod(BREAKABLE)
    pid = pod.call({}).answer
    (pod.directory / "code" / "broken").touch()
    os.kill(pod.template_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert "RuntimeError: broken meanwhile" in failed(pod)


def test_a_refill_that_fails_is_retried_with_a_back_off(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, pathlib
        def after_fork():
            if (pathlib.Path(__file__).parent / "broken").exists():
                raise RuntimeError("not now")
        def predict():
            return os.getpid()
        """
    )
    old = pod.slot()["pid"]
    (pod.directory / "code" / "broken").touch()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: len(pod.events("session-ended")) >= 3)
    assert pod.slot()["started"] < 6
    assert "not now" in pod.slot()["lastEnd"]
    (pod.directory / "code" / "broken").unlink()
    pod.wait_new_session(0, old)
