"""What a session pod says of its sessions' comings and goings. Real processes."""

from __future__ import annotations

import os
import signal
import time

from support.runtime_pod import eventually
from unit.session.conftest import StartPod

SLEEP = """
    import time
    def predict(seconds: float = 0.0):
        time.sleep(seconds)
"""


def test_a_session_says_for_how_long_it_has_been_idle(start_pod: StartPod) -> None:
    pod = start_pod(SLEEP)
    eventually(lambda: pod.slot(0)["idleSeconds"] > 0.3)
    called = time.monotonic()
    pod.call({}, 0)
    eventually(lambda: pod.slot(0)["state"] == "idle")
    assert pod.slot(0)["idleSeconds"] <= time.monotonic() - called


def test_an_empty_slot_is_not_idle(start_pod: StartPod) -> None:
    pod = start_pod(SLEEP, settings={"initialPoolSize": 0, "maxPoolSize": 1})
    assert (pod.slot(0)["state"], pod.slot(0)["idleSeconds"]) == ("empty", 0.0)


def test_sessions_are_counted_as_they_start_and_as_they_end_by_reason(start_pod: StartPod) -> None:
    pod = start_pod(SLEEP, settings={"initialPoolSize": 1, "maxPoolSize": 2})
    pid = pod.slot(0)["pid"]
    os.kill(pid, signal.SIGKILL)
    pod.wait_new_session(0, pid)
    text = pod.control("/metrics").body.decode()
    assert 'sessionpools_session_starts_total{slot="0"} 2\n' in text
    assert 'sessionpools_session_starts_total{slot="1"} 0\n' in text
    assert 'sessionpools_session_ends_total{reason="killed by SIGKILL"} 1\n' in text
