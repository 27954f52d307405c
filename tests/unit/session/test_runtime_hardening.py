"""What code and callers do that a session pod must outlive. Real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

from support.runtime_pod import Pod, ends_unanswered, eventually, post, read_answer
from unit.session.conftest import StartPod

# Root may write where modes forbid it: the service runs as users' services do, without capabilities.
UNPRIVILEGED = """
    import ctypes
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
"""

ECHO = """
    import os, time
    def predict(seconds: float = 0.0):
        time.sleep(seconds)
        return os.getpid()
"""


# --- the work directory -----------------------------------------------------------------------------------------------


def test_a_work_directory_whose_mode_the_code_changed_is_empty_and_writable_again(start_pod: StartPod) -> None:
    pod = start_pod(
        UNPRIVILEGED
        + """
    import os
    def predict(mode: int, left: bool = True):
        found = os.listdir(".")
        if left:
            os.makedirs("a/b")
            open("a/b/c", "w").write("x")
            os.chmod("a/b", 0)
            os.chmod("a", 0)
        os.chmod(".", mode)
        return [os.getpid(), found]
    """
    )
    pid = pod.slot()["pid"]
    with pod.connection() as connection:
        for mode in (0o555, 0, 0o100):
            for left in (True, False):
                assert post(connection, {"mode": mode, "left": left}).answer == [pid, []]
                assert post(connection, {"mode": 0o700}).answer == [pid, []]


def test_a_successor_can_enter_a_work_directory_that_nobody_may_enter(start_pod: StartPod) -> None:
    pod = start_pod(
        UNPRIVILEGED
        + """
    import os
    def predict():
        os.chmod(".", 0)
        os._exit(1)
    """
    )
    for _ in range(2):
        pid = pod.slot()["pid"]
        with pod.dial() as sock:
            pod.begin(sock, {})
            assert ends_unanswered(sock)
        pod.wait_new_session(0, pid)


def test_a_link_in_place_of_the_work_directory_is_not_followed(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, pathlib
        def predict(target: str = ""):
            here = os.getcwd()
            if target:
                os.chdir("/")
                os.rmdir(here)
                os.symlink(target, here)
            return here
        """
    )
    (pod.directory / "kept").mkdir()
    (pod.directory / "kept" / "file").write_text("x")
    where = pod.call({"target": str(pod.directory / "kept")}).answer
    assert pod.call({}).answer == where
    assert (pod.directory / "kept" / "file").exists()


# --- processes and signals of the code --------------------------------------------------------------------------------


def test_a_service_that_starts_a_lasting_child_in_a_call_becomes_ready(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, time
        def predict():
            if os.fork() == 0:
                time.sleep(300)
                os._exit(0)
            return os.getpid()
        """,
        warmup={},
    )
    assert pod.call({}).answer == pod.slot()["pid"]


def test_sessions_are_replaced_when_the_code_has_blocked_their_signal(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, signal
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        def predict():
            return os.getpid()
        """
    )
    old = pod.call({}).answer
    os.kill(old, signal.SIGKILL)
    pod.wait_new_session(0, old)


# --- many and slow callers --------------------------------------------------------------------------------------------


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_connections_to_the_control_port_that_say_nothing_take_few_descriptors_and_hide_no_pod(
    start_pod: StartPod,
) -> None:
    pod = start_pod(ECHO)
    assert pod.process is not None
    with contextlib.ExitStack() as stack:
        before = descriptors(pod.process.pid)
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", pod.control_port)))
        assert pod.control("/readyz").status == 200
        assert descriptors(pod.process.pid) < before + 70


def test_a_request_that_arrived_in_time_is_served_though_the_session_was_busy_at_its_deadline(
    start_pod: StartPod,
) -> None:
    pod = start_pod(ECHO)
    body = b'{"seconds": 0}'
    with pod.dial() as late, pod.dial() as busy:
        late.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        assert pod.call({}).status == 200  # what was sent so far has been read
        pod.wait_slot(0, state="idle")
        pod.begin(busy, {"seconds": 5.5})
        pod.wait_slot(0, state="busy")
        late.sendall(body[5:])
        assert read_answer(busy).status == 200
        assert read_answer(late).status == 200


def test_a_request_that_was_arriving_when_its_session_was_recycled_is_answered(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": 2})
    with pod.dial() as late, pod.connection() as idle:
        idle.connect()
        late.sendall(b"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\n\r\n{")
        first = pod.call({}).answer  # what was sent so far has been read
        assert pod.call({}).answer == first
        late.sendall(b"}")
        reply = read_answer(late)
        assert reply.answer == first
        assert reply.headers["connection"] == "close"
        assert post(idle, {}).answer != first  # the same connection, nobody closed it


def test_connections_that_say_nothing_keep_nobody_from_a_slot(start_pod: StartPod) -> None:
    pod = start_pod(ECHO, settings={"recycleAfterRequests": 2})
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(pod.dial()) for _ in range(500)]
        pids = [pod.call({}).answer for _ in range(4)]
        assert len(set(pids)) == 2
        pod.begin(silent[-1], {})  # it went from one session to the next
        assert read_answer(silent[-1]).answer not in pids


# --- memory -----------------------------------------------------------------------------------------------------------


def test_sessions_that_start_after_the_maximum_was_raised_get_a_share_of_the_new_size(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import resource
        from sessionpools.session import linux
        linux.MemoryCgroup.limit_bytes = lambda self: 2 << 30
        def predict():
            return resource.getrlimit(resource.RLIMIT_DATA)[0]
        """,
        settings={"initialPoolSize": 1, "maxPoolSize": 2},
        env={"SESSIONPOOLS_SESSION_MEMORY": str(4 << 30)},
    )
    of_two = pod.call({}, slot=1).answer
    pod.change(maxPoolSize=8)
    eventually(lambda: len(pod.view()["sessions"]) == 8)
    of_eight = pod.call({}, slot=7).answer
    assert of_two - of_eight > 600 << 20  # about 1/2 - 1/8 of 2 GiB


def test_a_session_whose_children_print_without_end_is_ended(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, subprocess, time
        def predict(size: int):
            subprocess.run(f"head -c {size} /dev/zero", shell=True)
            time.sleep(20 if size > 1 << 24 else 0)
            return os.getpid()
        """
    )
    pid = pod.call({"size": 15 << 20}).answer
    assert pid == pod.slot()["pid"]
    with pod.dial() as sock:
        pod.begin(sock, {"size": 20 << 20})
        assert ends_unanswered(sock)
    assert pod.wait_new_session(0, pid)["lastEnd"] == "printed too much"


# --- what is in the way of supervisor and template --------------------------------------------------------------------


def test_a_log_that_nobody_reads_stops_neither_calls_nor_the_pod(tmp_path: Path) -> None:
    pod = Pod(
        tmp_path / "pod",
        """
        import os
        def predict():
            print("x" * 11_000)
            return os.getpid()
    """,
    )
    nobody_reads, out = os.pipe()
    pod._out.close()
    pod._out = os.fdopen(out, "wb")
    try:
        pod.start().wait_ready()
        pids = {pod.call({}).answer for _ in range(10)}
        assert len(pids) == 1
        os.kill(pids.pop(), signal.SIGKILL)
        eventually(lambda: pod.slot()["started"] == 2 and pod.slot()["state"] == "idle")
        assert pod.call({}).status == 200
    finally:
        pod.stop()
        os.close(nobody_reads)


def test_the_template_imports_nothing_from_where_the_pod_was_started(start_pod: StartPod, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    pod = start_pod(ECHO, cwd=str(tmp_path / "here"))
    (tmp_path / "here" / "faulthandler.py").write_text("raise SystemExit(1)")
    (tmp_path / "here" / "json.py").write_text("raise SystemExit(1)")
    old = pod.template_pid
    os.kill(old, signal.SIGKILL)
    eventually(lambda: pod.template_pid != old)


def test_code_that_writes_into_its_sessions_channel_ends_that_session_only(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, socket, time
        def predict(data: str = ""):
            for fd in os.listdir("/proc/self/fd") if data else []:
                try:
                    sock = socket.socket(fileno=os.dup(int(fd)))
                except OSError:
                    continue
                if sock.family == socket.AF_UNIX:
                    socket.send_fds(sock, [data.encode()], [0, 1])
                    time.sleep(20)
            return os.getpid()
        """
    )
    assert pod.process is not None
    pod.call({})
    before = descriptors(pod.process.pid)
    for data in ("{", "[]", "{}", '{"failed": 1}', '{"loaded": true}'):
        pid = pod.call({}).answer
        with pod.dial() as sock:
            pod.begin(sock, {"data": data})
            assert ends_unanswered(sock)
        assert pod.wait_new_session(0, pid)["lastEnd"] == "sent what is no message"
    pod.call({})
    assert descriptors(pod.process.pid) <= before + 1


def test_a_session_that_starts_for_a_caller_when_the_pod_drains_answers_it(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import time
        def after_fork():
            time.sleep(1.5)
        def predict():
            return 1
        """,
        settings={"initialPoolSize": 0, "maxPoolSize": 1},
    )
    assert pod.process is not None
    with pod.dial() as sock:
        pod.begin(sock, {})
        pod.wait_slot(0, state="starting")
        pod.process.send_signal(signal.SIGTERM)
        reply = read_answer(sock)
    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert pod.wait_end() == 0


def test_a_reason_is_told_whatever_its_characters_and_a_signature_that_is_too_large_too(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        def load():
            raise ValueError("\\U0001f600\\udc80" * 8000)
        def predict():
            return 1
        """,
        init="service:load",
        ready=False,
    )
    assert pod.wait_end() == 1
    assert pod.termination.startswith("ValueError: \U0001f600")
    names = ", ".join(f"number_{i}: float = 0" for i in range(2000))
    pod = start_pod(f"def predict({names}): pass", ready=False)
    assert pod.wait_end() == 1
    assert pod.termination.startswith("EntrypointInvalid: service:predict has too many inputs")


def test_a_child_that_returns_from_the_code_takes_no_output_from_its_parents_answer(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, sys
        def predict(fail: bool):
            print("before")
            if os.fork() == 0:
                if fail:
                    sys.exit("child")
                return 0
            os.wait()
            print("after")
            return 1
        """
    )
    for fail in (False, True):
        assert pod.call({"fail": fail}).json["consoleOutput"] == "before\nafter\n"


def test_threads_fit_into_a_sessions_memory(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import threading
        def predict(count: int):
            stop = threading.Event()
            threads = [threading.Thread(target=stop.wait) for _ in range(count)]
            for thread in threads:
                thread.start()
            stop.set()
            for thread in threads:
                thread.join()
            return count
        """,
        env={"SESSIONPOOLS_SESSION_MEMORY": str(128 << 20)},
    )
    assert pod.call({"count": 48}).answer == 48


def test_the_offer_of_another_protocol_is_ignored(start_pod: StartPod) -> None:
    pod = start_pod(ECHO)
    offer = b"POST / HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Request-Id: id-1\r\n"
    with pod.dial() as sock:
        for rest in (b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"):
            sock.sendall(offer + rest)
            reply = read_answer(sock)
            assert reply.answer == pod.slot()["pid"]
            assert reply.headers["x-request-id"] == "id-1"
