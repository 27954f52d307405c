"""What sessions of one pod do not share, and what a request leaves behind. Real processes."""

from __future__ import annotations

from pathlib import Path

from support.runtime_pod import ends_unanswered, eventually, post
from unit.session.conftest import StartPod


def test_random_streams_of_sessions_differ(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import random
        import numpy as np
        np.random.seed(1)
        random.seed(1)
        def predict():
            return [random.random(), float(np.random.random())]
        """,
        settings={"initialPoolSize": 3, "maxPoolSize": 3},
    )
    draws = [pod.call({}, slot).answer for slot in range(3)]
    assert len({draw[0] for draw in draws}) == 3
    assert len({draw[1] for draw in draws}) == 3


def test_random_streams_differ_where_the_code_has_set_a_bit_generator_of_its_own(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import numpy as np
        np.random.set_bit_generator(np.random.PCG64(1))
        def predict():
            return float(np.random.random())
        """,
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    assert pod.call({}, 0).answer != pod.call({}, 1).answer


def test_each_request_finds_its_slots_work_directory_empty_and_current(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict():
            before = os.listdir(".")
            where = os.getcwd()
            open("file", "w").write("x")
            os.makedirs("a/b")
            open("a/b/c", "w").write("x")
            os.chmod("a", 0o500)
            os.symlink("/", "link")
            os.chdir("/")
            return {"before": before, "where": where}
        """,
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    with pod.connection(0) as connection:
        answers = [post(connection, {}).answer for _ in range(3)]
    assert all(answer["before"] == [] for answer in answers)
    assert {answer["where"] for answer in answers} == {str(pod.work / "slot-0")}
    assert pod.call({}, 1).answer["where"] == str(pod.work / "slot-1")


def test_a_work_directory_that_the_code_removed_is_there_again(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict():
            os.rmdir(os.getcwd())
            return 1
        """
    )
    assert [pod.call({}).answer for _ in range(3)] == [1, 1, 1]


def test_a_dead_sessions_files_are_gone_when_its_slot_is_filled_again(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict(end: bool):
            found = os.listdir(".")
            open("file", "w").write("x")
            if end:
                os._exit(0)
            return len(found)
        """
    )
    old = pod.slot()["pid"]
    with pod.dial() as sock:
        pod.begin(sock, {"end": True})
        assert ends_unanswered(sock)
    pod.wait_new_session(0, old)
    assert pod.call({"end": False}).answer == 0


def test_memory_beyond_the_sessions_limit_is_a_clean_answer_and_a_fresh_session(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        HELD = bytearray(30 << 20)
        def predict(size: int):
            return len(bytearray(size))
        """,
        env={"SESSIONPOOLS_SESSION_MEMORY": str(64 << 20)},
    )
    pid = pod.slot()["pid"]
    assert pod.call({"size": 20 << 20}).answer == 20 << 20
    reply = pod.call({"size": 200 << 20})
    assert reply.status == 200
    assert reply.json["success"] is False
    assert "MemoryError" in reply.json["errorMessage"]
    assert reply.headers["connection"] == "close"
    assert pod.wait_new_session(0, pid)["lastEnd"] == "out of memory"


def test_the_hook_after_fork_runs_in_each_session(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        FORKED = 0
        def after_fork():
            global FORKED
            FORKED = os.getpid()
        def predict():
            return FORKED == os.getpid()
        """,
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    assert [pod.call({}, slot).answer for slot in (0, 1)] == [True, True]


def test_numeric_libraries_get_one_thread_unless_the_user_says_otherwise(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict():
            return [os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")]
        """,
        env={"OMP_NUM_THREADS": "3"},
    )
    assert pod.call({}).answer == ["3", "1", "1"]


def test_sessions_lead_a_process_group_each_and_die_before_template_and_supervisor(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict():
            return [os.getpid(), os.getpgrp(), int(open("/proc/self/oom_score_adj").read())]
        """
    )
    assert pod.process is not None
    pid, group, score = pod.call({}).answer
    assert pid == group
    template, supervisor = (
        int(Path(f"/proc/{other}/oom_score_adj").read_text()) for other in (pod.template_pid, pod.process.pid)
    )
    assert score > template > supervisor


def test_current_directory_is_not_where_modules_are_found(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import sys
        PATH = list(sys.path)
        def predict():
            return PATH
        """
    )
    path = pod.call({}).answer
    assert path[0] == str(pod.directory / "code")
    assert "" not in path
    assert "/" not in path


def test_a_child_that_the_code_forks_and_lets_return_answers_nobody(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict():
            os.fork()
            return os.getpid()
        """
    )
    pid = pod.slot()["pid"]
    with pod.connection() as connection:
        assert [post(connection, {}).answer for _ in range(3)] == [pid] * 3


def test_code_that_exits_ends_its_call_and_not_its_session(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, sys
        def predict(leave: bool = False):
            if leave:
                sys.exit("leaving")
            return os.getpid()
        """
    )
    pid = pod.call({}).answer
    assert "SystemExit" in pod.call({"leave": True}).json["errorMessage"]
    assert pod.call({}).answer == pid


def test_what_a_request_prints_is_in_its_answer_and_in_the_log_with_its_id(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os
        def predict(text: str):
            print(text)
            os.system("echo from a child")
        """
    )
    reply = pod.call({"text": "hello"}, headers={"X-Request-Id": "id-7"})
    assert reply.json["consoleOutput"] == "hello\nfrom a child\n"
    logged = eventually(lambda: pod.events("console"))
    assert [(line["requestId"], line["text"], line["slot"]) for line in logged] == [
        ("id-7", "hello\nfrom a child\n", 0)
    ]
    assert pod.call({"text": "again"}).json["consoleOutput"] == "again\nfrom a child\n"
