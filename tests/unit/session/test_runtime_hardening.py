"""What code and callers do that a session pod must outlive. Real processes."""

from __future__ import annotations

import os
import signal

from unit.session.conftest import StartPod
from unit.session.runtime_pod import post

# Root may write where modes forbid it: the service runs as users' services do, without capabilities.
UNPRIVILEGED = """
    import ctypes
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
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
            assert sock.recv(1) == b""
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
