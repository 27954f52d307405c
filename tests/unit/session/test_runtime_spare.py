"""The spare session: what takes a slot without a fork. Real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sessionpools.session import linux
from sessionpools.session.channel import Channel, ChannelClosedError
from sessionpools.session.config import Settings
from sessionpools.session.loop import Loop
from sessionpools.session.slots import back_off_seconds
from sessionpools.session.spare import Spare
from support.runtime_pod import alive, children, eventually, post, read_answer
from unit.session.conftest import StartPod

ECHO = """
    import os, random
    CALLS = []
    def predict(x: float = 0.0):
        CALLS.append(x)
        return [os.getpid(), os.getpgrp(), os.getcwd(), os.listdir("."), random.random(), len(CALLS)]
"""
TWO = {"initialPoolSize": 1, "maxPoolSize": 2}


def test_a_spare_waits_and_is_no_session(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare = pod.wait_spare()
    rows = pod.view()["sessions"]
    assert [row["state"] for row in rows] == ["idle", "empty"]
    assert spare not in [row["pid"] for row in rows]
    assert 'sessionpools_sessions{state="idle"} 1' in pod.control("/metrics").body.decode()


def test_the_spare_takes_the_slot_of_a_killed_session_and_another_is_made(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare, old = pod.wait_spare(), pod.slot()["pid"]
    os.kill(old, signal.SIGKILL)
    assert pod.wait_new_session(0, old)["pid"] == spare
    assert pod.call({}).answer[0] == spare
    assert pod.wait_spare(but=spare) != spare


def test_the_spare_answers_the_connection_on_an_empty_slot_and_other_slots_get_forks(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 0, "maxPoolSize": 3})
    spare = pod.wait_spare()
    pids = [pod.call({}, slot).answer[0] for slot in range(3)]
    assert pids[0] == spare
    assert len(set(pids)) == 3


def test_a_spare_in_a_slot_is_a_session_like_any_other(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={**TWO, "recycleAfterRequests": 2}, warmup={"x": 1})
    spare = pod.wait_spare()
    pid, group, directory, files, _, calls = pod.call({}, 1).answer
    assert pid == group == spare
    assert (directory, files) == (str(pod.work / "slot-1"), [])
    assert calls == 2  # the template's warm-up came before
    assert Path(f"/proc/{pid}/comm").read_text() == "session-1\n"
    assert pod.call({}, 1).headers["connection"] == "close"
    pod.wait_slot(1, lastEnd="recycled")


def test_sessions_from_spares_have_random_streams_a_hook_and_a_directory_of_their_own(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, random
        import numpy
        HOOKS = []
        random.random(), numpy.random.random()
        def after_fork():
            HOOKS.append([os.getpid(), random.random()])
            print("said in the hook", flush=True)
            open("made in the hook", "w").close()
        def predict():
            return [os.getpid(), HOOKS, random.random(), float(numpy.random.random()), os.getcwd(), os.listdir(".")]
        """,
        settings={"initialPoolSize": 0, "maxPoolSize": 3},
    )
    answers, spares = [], [0]
    for slot in range(3):
        spares.append(pod.wait_spare(but=spares[-1]))
        answers.append(pod.call({}, slot).answer)
    assert [answer[0] for answer in answers] == spares[1:]
    assert [[pid for pid, _ in hooks] for _, hooks, *_ in answers] == [[pid] for pid in spares[1:]]
    drawn = [number for _, hooks, *numbers, _, _ in answers for number in (hooks[0][1], *numbers)]
    assert len(set(drawn)) == 9
    assert [answer[4] for answer in answers] == [str(pod.work / f"slot-{slot}") for slot in range(3)]
    assert [answer[5] for answer in answers] == [[], [], []]


def test_a_spare_has_the_memory_limit_of_a_session_also_when_the_maximum_has_changed(start_pod: StartPod) -> None:
    limited = (
        "import os, resource\ndef predict():\n    return [os.getpid(), resource.getrlimit(resource.RLIMIT_DATA)[0]]\n"
    )
    pod = start_pod(limited, settings=TWO, env={"SESSIONPOOLS_SESSION_MEMORY": str(64 << 20)})
    first = pod.call({}).answer[1]
    old = pod.wait_spare()
    pod.change(maxPoolSize=3)
    new = pod.wait_spare(but=old)
    eventually(lambda: not alive(old))
    assert pod.call({}, 2).answer == [new, first]  # without a container's limit it is the same


def test_a_spare_that_dies_is_made_again_and_no_session_has_ended(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare = pod.wait_spare()
    os.kill(spare, signal.SIGKILL)
    pod.wait_spare(but=spare)
    assert [event["reason"] for event in pod.events("spare-failed")] == ["killed by SIGKILL"]
    assert not pod.events("session-ended")


def test_a_spare_that_closes_its_channel_and_stays_is_no_spare(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, signal
        def after_fork():
            os.closerange(3, 1024)
            signal.pause()
        def predict():
            return 1
        """,
        settings={"initialPoolSize": 0, "maxPoolSize": 2, "startTimeoutSeconds": 2},
    )
    eventually(lambda: any("longer than 2 s" in line["reason"] for line in pod.events("spare-failed")))
    assert not pod.spare_pid


def test_connections_that_a_session_left_survive_a_spare_that_dies_as_it_takes_the_slot(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={**TWO, "recycleAfterRequests": 2})
    spare = pod.wait_spare()
    with pod.connection() as waiting, pod.connection() as last:
        post(waiting, {})
        os.kill(spare, signal.SIGSTOP)
        post(last, {})
        pod.wait_slot(0, pid=spare)
        os.kill(spare, signal.SIGKILL)
        assert post(waiting, {}).answer[0] != spare


def test_a_spare_that_dies_as_it_takes_a_slot_is_replaced_at_once(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare = pod.wait_spare()
    os.kill(spare, signal.SIGSTOP)
    with pod.dial(1) as caller:
        pod.begin(caller, {})
        pod.wait_slot(1, pid=spare)
        killed_at = time.monotonic()
        os.kill(spare, signal.SIGKILL)
        assert read_answer(caller).answer[0] != spare
    assert time.monotonic() - killed_at < back_off_seconds(1)


@pytest.mark.parametrize("recycle", [0, 1])
def test_a_pod_of_one_slot_has_a_spare_too(start_pod: StartPod, recycle: int) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": recycle})
    spare, old = pod.wait_spare(), pod.call({}).answer[0]
    with contextlib.suppress(ProcessLookupError):
        os.kill(old, signal.SIGKILL)
    assert pod.wait_new_session(0, old)["pid"] == spare


def test_a_pod_of_many_slots_has_more_and_a_burst_takes_them_all(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"initialPoolSize": 0, "maxPoolSize": 8})
    spares = pod.wait_spares(3)
    with contextlib.ExitStack() as burst:
        for slot in range(4):
            pod.begin(burst.enter_context(pod.dial(slot)), {})
        eventually(lambda: all(pod.slot(slot)["pid"] for slot in range(4)))
        pids = {pod.slot(slot)["pid"] for slot in range(4)}
    assert spares < pids
    again = pod.wait_spares(3)
    assert not again & pids
    pod.change(maxPoolSize=2)
    eventually(lambda: len(pod.spare_pids) == 1)


def test_a_pod_without_slots_has_no_spare(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare = pod.wait_spare()
    pod.change(initialPoolSize=0, maxPoolSize=0)
    eventually(lambda: not alive(spare))
    eventually(lambda: not pod.view()["sessions"])
    assert not pod.spare_pid


def test_without_fork_safety_there_is_no_spare(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO, forkSafe=False)
    pod.call({}, 1)
    ticked = pod.view()["phaseSeconds"] + 1.5
    eventually(lambda: pod.view()["phaseSeconds"] > ticked)
    assert pod.process is not None
    assert sorted(children(pod.process.pid).values()) == ["session-0", "session-1"]


def test_a_spare_ends_with_its_template_and_the_next_template_makes_one(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare, template = pod.wait_spare(), pod.template_pid
    os.kill(template, signal.SIGKILL)
    eventually(lambda: not alive(spare))
    eventually(lambda: pod.template_pid != template)
    pod.wait_spare(but=spare)


def test_a_spare_ends_when_the_pod_drains(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings=TWO)
    spare = pod.wait_spare()
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait_end() == 0
    eventually(lambda: not alive(spare))


def test_a_hook_that_fails_in_the_spare_is_retried_with_a_back_off_and_sessions_serve(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, pathlib
        def after_fork():
            if (pathlib.Path(__file__).parent / "broken").exists():
                raise RuntimeError("not now")
        def predict():
            return os.getpid()
        """,
        settings=TWO,
    )
    spare = pod.wait_spare()
    (pod.directory / "code" / "broken").touch()
    os.kill(spare, signal.SIGKILL)
    eventually(lambda: any("not now" in line["reason"] for line in pod.events("spare-failed")))
    assert pod.call({}).status == 200
    assert len(pod.events("spare-failed")) < 5
    (pod.directory / "code" / "broken").unlink()
    pod.wait_spare(but=spare)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    (tmp_path / "memory.max").write_text(f"{256 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {16 << 20}\n")
    return tmp_path


def test_a_spare_is_dropped_when_memory_is_short_and_made_when_there_is_room(memory: Path) -> None:
    log: list[str] = []
    orders: list[Channel] = []
    keeper: Any = SimpleNamespace(settings=Settings(max_pool_size=2), sessions=list)
    host: Any = SimpleNamespace(
        can_fork=lambda: True, fork=lambda slot, slots, fds: orders.append(Channel.from_fd(os.dup(fds[0])))
    )
    spare = Spare(Loop(), lambda event, **_: log.append(event), keeper, _cgroup(memory), host)  # type: ignore[arg-type]
    (memory / "memory.current").write_text(f"{230 << 20}\n")
    spare.tick()
    assert not orders  # 42 MiB are left: not enough to make one
    (memory / "memory.current").write_text(f"{200 << 20}\n")
    spare.tick()
    assert len(orders) == 1
    (memory / "memory.current").write_text(f"{230 << 20}\n")
    spare.tick()
    assert log == []  # enough to keep it
    (memory / "memory.current").write_text(f"{250 << 20}\n")
    spare.tick()
    assert log == ["spare-dropped"]
    with pytest.raises(ChannelClosedError):
        orders[0].receive()


def _cgroup(directory: Path) -> linux.MemoryCgroup:
    (directory / "membership").write_text("0::/\n")
    return linux.MemoryCgroup(str(directory), str(directory / "membership"))


def test_memory_that_is_left_counts_files_that_the_kernel_can_drop(memory: Path) -> None:
    (memory / "memory.current").write_text(f"{230 << 20}\n")
    assert _cgroup(memory).room_bytes() == 42 << 20
    (memory / "memory.max").write_text("max\n")
    assert _cgroup(memory).room_bytes() is None
