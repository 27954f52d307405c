"""Slots: how sessions come, go and are replaced. Real processes."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.runtime_pod import Pod, alive, eventually, post, read_answer
from unit.session.conftest import StartPod

ECHO = """
    import os, time
    def predict(seconds: float = 0.0):
        time.sleep(seconds)
        return os.getpid()
"""


def pid_of(pod: Pod, slot: int = 0) -> int:
    return int(pod.call({}, slot).answer)


def test_initial_slots_hold_sessions_and_the_others_are_empty_but_open(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 2, "maxPoolSize": 4})
    assert [row["state"] for row in pod.view()["sessions"]] == ["idle", "idle", "empty", "empty"]
    with pod.dial(3):
        pass  # no connection is refused


def test_a_connection_on_an_empty_slot_gets_a_session(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 1, "maxPoolSize": 3})
    first = pod.call({}, slot=2)
    assert first.answer == pod.slot(2)["pid"]
    assert pod.slot(1)["state"] == "empty"


def test_a_burst_on_empty_slots_is_answered_side_by_side(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 1, "maxPoolSize": 8})
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        pids = set(pool.map(lambda slot: pod.call({"seconds": 0.3}, slot).answer, range(8)))
    assert len(pids) == 8
    assert time.monotonic() - began < 1.5


def test_a_killed_session_is_replaced_in_its_slot(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    old = pid_of(pod)
    os.kill(old, signal.SIGKILL)
    new = pod.wait_new_session(0, old)
    assert new["lastEnd"] == "killed by SIGKILL"
    assert pid_of(pod) == new["pid"]


def test_a_call_that_arrives_while_its_slot_is_refilled_waits_and_is_answered(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    old = pid_of(pod)
    for _ in range(10):
        os.kill(old, signal.SIGKILL)
        eventually(lambda pid=old: not alive(pid))  # type: ignore[misc]
        new = pid_of(pod)
        assert new != old
        old = new


def test_a_killed_session_above_initial_is_replaced_when_a_call_comes(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 0, "maxPoolSize": 1})
    old = pid_of(pod)
    os.kill(old, signal.SIGKILL)
    pod.wait_slot(0, state="empty")
    assert pid_of(pod) != old


def test_sessions_serve_on_when_the_template_dies_and_it_returns(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 2, "maxPoolSize": 3})
    old, pids = pod.template_pid, [pid_of(pod, 0), pid_of(pod, 1)]
    with pod.connection(0) as connection:
        post(connection, {})
        os.kill(old, signal.SIGKILL)
        assert post(connection, {}).answer == pids[0]
    eventually(lambda: pod.template_pid != old)
    assert [pid_of(pod, 0), pid_of(pod, 1)] == pids
    assert pod.control("/readyz").status == 200
    assert pid_of(pod, 2) not in pids  # the new template forks


def test_a_session_orphaned_by_its_template_is_reaped_and_replaced(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    template, session = pod.template_pid, pid_of(pod)
    os.kill(template, signal.SIGKILL)
    eventually(lambda: pod.template_pid != template)
    os.kill(session, signal.SIGKILL)
    new = pod.wait_new_session(0, session)
    assert new["lastEnd"] == "killed by SIGKILL"
    assert not Path(f"/proc/{session}").exists()  # no zombie either


def test_a_session_killed_together_with_its_template_is_replaced(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    template, session = pod.template_pid, pid_of(pod)
    os.kill(template, signal.SIGSTOP)  # it cannot tell of the session's end
    os.kill(session, signal.SIGKILL)
    os.kill(template, signal.SIGKILL)
    pod.wait_new_session(0, session)


def test_an_idle_session_above_initial_retires_and_its_slot_stays_open(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 1, "maxPoolSize": 2, "idleTimeoutSeconds": 1})
    pid_of(pod, 1)
    row = pod.wait_slot(1, state="empty")
    assert row["lastEnd"] == "idle"
    assert pod.slot(0)["state"] == "idle"  # initial slots do not retire
    assert pid_of(pod, 1)


def test_a_session_with_an_open_connection_does_not_retire(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 0, "maxPoolSize": 1, "idleTimeoutSeconds": 0.2})
    with pod.connection(0) as connection:
        pid = post(connection, {}).answer
        time.sleep(2.5)  # nothing to wait for: the point is that nothing happens
        assert post(connection, {}).answer == pid
    pod.wait_slot(0, state="empty")


def test_a_larger_initial_size_adds_sessions(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    pod.change(initialPoolSize=3, maxPoolSize=4)
    eventually(lambda: [row["state"] for row in pod.view()["sessions"]] == ["idle", "idle", "idle", "empty"])


def test_a_smaller_maximum_closes_slots_and_finishes_what_runs(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 3, "maxPoolSize": 3})
    with pod.dial(2) as busy:
        pod.begin(busy, {"seconds": 6})  # longer than gateways have to let go
        pod.wait_slot(2, state="busy")
        pod.change(initialPoolSize=1, maxPoolSize=1)
        reply = read_answer(busy)
    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    eventually(lambda: len(pod.view()["sessions"]) == 1)
    with pytest.raises(ConnectionRefusedError), pod.dial(1):
        pass
    assert pid_of(pod, 0)


def test_slots_above_a_smaller_maximum_serve_until_gateways_have_let_go_of_them(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 3, "maxPoolSize": 3})
    changed = time.monotonic()
    pod.change(initialPoolSize=1, maxPoolSize=1)
    while time.monotonic() < changed + 2.9:
        assert pod.call({}, slot=2).status == 200
    assert pod.view()["settings"]["maxPoolSize"] == 1, "no gateway that asks opens them again"
    eventually(lambda: len(pod.view()["sessions"]) == 1)


def test_a_slot_that_was_taken_away_comes_back(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 2, "maxPoolSize": 2})
    pod.change(initialPoolSize=1, maxPoolSize=1)
    eventually(lambda: len(pod.view()["sessions"]) == 1)
    pod.change(initialPoolSize=2, maxPoolSize=2)
    eventually(lambda: len(pod.view()["sessions"]) == 2)
    assert pid_of(pod, 1)


def test_settings_that_cannot_be_read_change_nothing_and_are_logged_once(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    (pod.directory / "live" / "settings").write_text("{not json")
    eventually(lambda: pod.events("settings-unreadable"))
    before = pod.view()["settings"]
    pod.change(maxPoolSize=2)
    eventually(lambda: len(pod.view()["sessions"]) == 2)
    assert before["maxPoolSize"] == 1
    assert len(pod.events("settings-unreadable")) == 1


def test_after_so_many_requests_a_session_says_close_and_a_fresh_one_follows(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": 2})
    with pod.connection() as connection:
        first = post(connection, {})
        second = post(connection, {})
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"
    assert first.answer == second.answer
    row = pod.wait_new_session(0, first.answer)
    assert row["lastEnd"] == "recycled"
    assert pid_of(pod) != first.answer


def test_recycle_after_one_gives_every_request_a_fresh_session_and_fails_none(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": 1})
    pids = [pid_of(pod) for _ in range(20)]
    assert len(set(pids)) == 20


def test_other_callers_connections_move_to_the_fresh_session(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": 2})
    with pod.connection() as one, pod.connection() as other:
        first = post(one, {}).answer
        assert post(other, {}).headers["connection"] == "close"
        assert post(one, {}).answer != first  # the same connection, nobody closed it


def test_a_pool_of_none_is_ready_once_the_service_is_loaded_and_serves_on_demand(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 0, "maxPoolSize": 2})
    assert [row["state"] for row in pod.view()["sessions"]] == ["empty", "empty"]
    assert pid_of(pod, 1)
