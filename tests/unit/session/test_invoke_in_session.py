"""The request layer inside real session processes: what only shows after a fork, with captured output and limits."""

from __future__ import annotations

from support.runtime_pod import eventually, post
from unit.session.conftest import StartPod


def test_what_a_request_prints_is_in_its_answer_and_in_the_log_with_its_id(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import os, subprocess, sys
        print("importing")
        def after_fork():
            print("forked")
        def predict(text: str):
            print(text)
            print("warning", file=sys.stderr)
            subprocess.run(["echo", "child"], check=True)
            if text == "fail":
                raise ValueError
        """
    )
    with pod.connection() as connection:
        first = post(connection, {"text": "one"}, {"X-Request-Id": "id-1"}).json
        second = post(connection, {"text": "fail"}).json
        third = post(connection, {"text": 3}).json
    assert first["consoleOutput"] == "one\nwarning\nchild\n"
    assert second["consoleOutput"] == "fail\nwarning\nchild\n"
    assert third["consoleOutput"] == ""
    logged = eventually(lambda: pod.events("console"))
    assert (logged[0]["requestId"], logged[0]["text"]) == ("id-1", "one\nwarning\nchild\n")
    assert "importing" in pod.log_text
    assert "forked" in pod.log_text


def test_an_async_service_warms_in_the_template_and_serves_in_forks(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import asyncio, os, threading
        async def predict(x: float) -> list:
            name = await asyncio.to_thread(threading.get_native_id)
            return [os.getpid(), x]
        """,
        warmup={"x": 1},
        settings={"initialPoolSize": 2, "maxPoolSize": 2},
    )
    answers = [pod.call({"x": 2}, slot).answer for slot in (0, 1)]
    assert answers == [[pod.slot(slot)["pid"], 2.0] for slot in (0, 1)]
    assert pod.view()["threads"] == []


def test_a_body_that_does_not_fit_into_memory_is_an_answer_and_the_end_of_the_session(start_pod: StartPod) -> None:
    pod = start_pod(
        "def predict(x):\n    return len(x)\n",
        env={"SESSIONPOOLS_SESSION_MEMORY": str(64 << 20)},
    )
    pid = pod.slot()["pid"]
    body = b'{"x": [' + b"1.5," * 6_000_000 + b"1]}"
    reply = pod.call(body)
    assert (reply.status, reply.json["success"]) == (200, False)
    assert reply.json["errorMessage"].startswith("MemoryError")
    assert pod.wait_new_session(0, pid)["lastEnd"] == "out of memory"


def test_frames_and_matrices_go_in_and_out_of_a_fork(start_pod: StartPod) -> None:
    pod = start_pod(
        """
        import numpy, pandas
        def predict(frame: pandas.DataFrame, weights: numpy.ndarray) -> pandas.DataFrame:
            return pandas.DataFrame({"score": frame.to_numpy() @ weights, "missing": frame["a"].isna()})
        """
    )
    answer = pod.call({"frame": {"a": [1, None], "b": [2, 3]}, "weights": [1, 10]}).answer
    assert answer == {"score": [21.0, None], "missing": [False, True]}
    assert pod.control("/signature").json == {
        "inputs": [
            {"name": "frame", "type": "data.frame", "required": True},
            {"name": "weights", "type": "vector", "required": True},
        ],
        "outputs": [{"name": "answer", "type": "data.frame"}],
    }
