"""Sessions that load for themselves, as their service is not fork-safe. Real processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from support.runtime_pod import eventually, failed
from unit.session.conftest import StartPod

OWN = """
    import os
    LOADED_IN = os.getpid()
    def predict(x: float = 0.0):
        return [os.getpid(), LOADED_IN, os.getppid()]
"""


def test_without_fork_safety_each_session_loads_for_itself(start_pod: StartPod) -> None:
    pod = start_pod(OWN, forkSafe=False, settings={"initialPoolSize": 2, "maxPoolSize": 3}, warmup={"x": 1})
    assert pod.process is not None
    for slot in (0, 1, 2):
        pid, loaded_in, parent = pod.call({}, slot).answer
        assert pid == loaded_in
        assert parent == pod.process.pid
    assert pod.control("/signature").json["inputs"]


def test_a_session_of_its_own_process_is_replaced_when_it_dies(start_pod: StartPod) -> None:
    pod = start_pod(OWN, forkSafe=False)
    old = pod.slot()["pid"]
    os.kill(old, signal.SIGKILL)
    pod.wait_new_session(0, old)


def test_a_thread_in_the_template_makes_it_not_fork_safe_and_is_named(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, threading
        LOADED_IN = os.getpid()
        threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
        def predict():
            return [os.getpid(), LOADED_IN]
        """,
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    assert pod.view()["threads"] == ["poller"]
    pid, loaded_in = pod.call({}, 1).answer
    assert pid == loaded_in
    eventually(lambda: pod.events("not-fork-safe"))


def test_without_fork_safety_and_initial_sessions_a_pod_is_ready_once_the_service_has_loaded(
    start_pod: StartPod,
) -> None:
    pod = start_pod(OWN, forkSafe=False, settings={"initialPoolSize": 0, "maxPoolSize": 1})
    assert pod.slot()["state"] == "empty"
    pid, loaded_in, _ = pod.call({}).answer
    assert pid == loaded_in


def test_a_failing_import_ends_a_pod_without_a_template_too(start_pod: StartPod) -> None:
    pod = start_pod("import no_such_module\ndef predict(): pass\n", forkSafe=False, ready=False)
    assert failed(pod) == "ModuleNotFoundError: No module named 'no_such_module' (import service)"


def test_a_hang_without_a_template_fails_with_phase_and_stack(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import time
        def load():
            time.sleep(300)
        def predict():
            return 1
        """,
        init="service:load",
        forkSafe=False,
        settings={"startTimeoutSeconds": 3},
        ready=False,
    )
    assert failed(pod) == "StartTimeout: init took longer than 3 s"
    assert "in load" in pod.termination


@pytest.mark.parametrize("fork_safe", [True, False])
def test_sigterm_while_loading_ends_the_pod(start_pod: StartPod, fork_safe: bool) -> None:
    pod = start_pod(
        """
        import time
        def load():
            time.sleep(300)
        def predict():
            return 1
        """,
        init="service:load",
        forkSafe=fork_safe,
        ready=False,
    )
    assert pod.process is not None
    eventually(lambda: pod.control("/sessions").status == 200 and pod.view()["phase"] == "init")
    began = time.monotonic()
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait_end() == 0
    assert time.monotonic() - began < 5
