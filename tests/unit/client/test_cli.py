"""The command line against a server on loopback: in this process with typer's runner, and as a process."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest
from typer.testing import CliRunner, Result

from sessionpools.client.cli.credentials import FileStore, directory
from sessionpools.client.cli.main import app
from sessionpools.client.cli.show import Rows, plain, seconds
from sessionpools.client.tokens import Tokens
from support.restapi import Reply, RestApi
from support.tools import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SESSIONPOOLS_URL", "SESSIONPOOLS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=typed)


def done(*arguments: str, typed: str | None = None) -> str:
    result = run(*arguments, typed=typed)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(code: int, *arguments: str, typed: str | None = None) -> str:
    """The one line on standard error."""
    result = run(*arguments, typed=typed)
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert "\n" not in line
    assert line.startswith("error: ")
    return line


def as_json(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--output", "json"))


@pytest.fixture
def login(api: RestApi) -> RestApi:
    done("login", api.url, "--password-stdin", typed="secret\n")
    return api


@pytest.fixture
def score(home: Path, login: RestApi) -> RestApi:
    """Published as Score v1."""
    (home / "score.py").write_text("def predict(x, y=1):\n    print('scoring')\n    return x * y\n")
    done("publish", str(home / "score.py"), "--name", "Score", "--input", "x=float")
    return login


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children take Ctrl-C, as from a terminal: a shell has its background jobs ignore SIGINT, and what they start
    inherits that, these tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestLogin:
    def test_the_token_is_kept_for_nobody_else_and_the_password_not_at_all(self, login: RestApi) -> None:
        kept = [path for path in directory().rglob("*") if path.is_file()]
        assert kept
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in kept if path.suffix == ".json")
        assert stat.S_IMODE((directory() / "tokens").stat().st_mode) == 0o700
        assert not any("secret" in path.read_text() for path in kept)
        assert done("whoami").splitlines()[1].split()[:2] == ["admin", "Owner"]

    def test_the_token_is_renewed_between_commands(self, login: RestApi) -> None:
        login.tokens.clear()
        assert as_json("services", "list") == []
        assert as_json("services", "list") == []
        assert len(login.asked("POST /login/refreshToken")) == 1
        assert len(login.asked("POST /login")) == 1

    def test_commands_at_once_renew_it_once(self, login: RestApi) -> None:
        login.tokens.clear()
        command = [sys.executable, "-m", "sessionpools.client", "services", "list"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(3)]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert len(login.asked("POST /login/refreshToken")) == 1

    def test_a_file_that_others_can_read_is_refused(self, login: RestApi) -> None:
        path = next((directory() / "tokens").glob("*.json"))
        path.chmod(0o644)
        assert "others can read it" in refused(2, "services", "list")

    def test_a_damaged_file_is_named_with_the_remedy(self, login: RestApi) -> None:
        path = next((directory() / "tokens").glob("*.json"))
        path.write_text("{")
        assert f"{path}: is damaged: remove it" in refused(2, "services", "list")

    def test_a_wrong_password_keeps_nothing(self, api: RestApi) -> None:
        line = refused(3, "login", api.url, "--password-stdin", typed="wrong\n")
        assert line.endswith("user or password is wrong")
        assert FileStore(api.url).load() is None

    def test_a_password_needs_a_terminal_or_to_be_asked_for_from_standard_input(self, api: RestApi) -> None:
        assert "--password-stdin" in refused(2, "login", api.url, typed="secret\n")
        assert "password is empty" in refused(2, "login", api.url, "--password-stdin", typed="\n")

    def test_a_password_over_plain_http_to_another_machine_is_warned_of(self) -> None:
        result = run("login", "http://198.51.100.1.invalid", "--password-stdin", typed="secret\n")
        assert "warning: the password goes to 198.51.100.1.invalid unencrypted" in result.stderr
        assert result.exit_code == 6

    def test_logging_out_forgets_and_revokes(self, login: RestApi) -> None:
        done("logout")
        assert not login.refresh_tokens
        assert "sessionpools login" in refused(3, "services", "list")

    def test_environment_variables_stand_in_for_a_login(self, api: RestApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SESSIONPOOLS_URL", api.url)
        monkeypatch.setenv("SESSIONPOOLS_TOKEN", api.new_tokens()["access_token"])
        assert as_json("services", "list") == []
        monkeypatch.setenv("SESSIONPOOLS_TOKEN", "expired")
        assert "SESSIONPOOLS_TOKEN is set" in refused(3, "services", "list")

    def test_without_a_server_the_three_ways_to_name_one_are_said(self) -> None:
        line = refused(2, "services", "list")
        assert all(way in line for way in ("sessionpools login", "--url", "SESSIONPOOLS_URL"))

    def test_a_store_is_locked_for_one_and_says_so_to_the_other_without_waiting(self) -> None:
        first, second = FileStore("http://a:1"), FileStore("http://a:1")
        lock = first.try_lock()
        assert lock is not None
        with lock:
            assert second.try_lock() is None
            assert FileStore("http://a:2").try_lock() is not None
        assert second.try_lock() is not None

    def test_stores_of_two_servers_are_two(self) -> None:
        FileStore("http://a:1").save(Tokens("one"))
        FileStore("http://a:2").save(Tokens("two"))
        assert [FileStore(url).load() for url in ("http://a:1", "http://a:2", "http://a")] == [
            Tokens("one"),
            Tokens("two"),
            None,
        ]

    def test_a_hash_is_one_that_the_users_file_takes(self) -> None:
        made = done("hash-password", "--password-stdin", typed="correct horse\n").strip()
        assert argon2.PasswordHasher().verify(made, "correct horse")
        assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


class TestServices:
    def test_a_file_is_published_listed_shown_called_and_deleted(self, score: RestApi) -> None:
        table = done("services", "list").splitlines()
        assert table[0].split()[:2] == ["NAME", "VERSION"]
        assert table[1].split()[:3] == ["Score", "v1", "admin"]
        assert "x: numeric" in done("services", "show", "Score")
        result = run("call", "Score", "v1", "x=4", "y=2")
        assert (result.stdout, result.stderr) == ("8\n", "scoring\n")
        assert done("services", "delete", "Score", "v1") == "Score v1: deleted\n"
        assert "NAME" in done("services", "list")
        assert refused(4, "services", "show", "Score", "v1").startswith("error: GET /services/Score/v1: 404 Not Found")

    def test_what_exists_needs_update(self, home: Path, score: RestApi) -> None:
        path = str(home / "score.py")
        assert "exists" in refused(3, "publish", path, "--name", "Score")
        (home / "score.py").write_text("def predict(x):\n    return -x\n")
        assert done("publish", path, "--name", "Score", "--update").startswith("Score v1: updated")
        assert done("call", "Score", "x=4") == "-4\n"

    def test_a_script_is_published_with_its_outputs(self, home: Path, login: RestApi) -> None:
        (home / "block.py").write_text("total = x + y\nname = who\n")
        types = ["--input", "x=float", "--input", "y=float", "--returns", "total=float", "--returns", "name=str"]
        done("publish", str(home / "block.py"), "--script", *types)
        assert done("call", "block", "x=1", "y=2", "who=Ada") == 'total = 3\nname = "Ada"\n'

    def test_inputs_come_from_files_and_standard_input(self, home: Path, score: RestApi) -> None:
        (home / "inputs.json").write_text('{"x": 5}')
        assert done("call", "Score", "--json", str(home / "inputs.json")) == "5\n"
        assert done("call", "Score", "v1", "y=3", "--json", "-", typed='{"x": 5}') == "15\n"

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("call", "Score", "v1", "x"), "'x': give inputs as NAME=VALUE"),
            (("call", "Score", "x=1", "x=2"), "given twice"),
            (("call", "Score", "--json", "missing.json"), "missing.json: can not be read"),
            (("publish", "missing.py"), "no such file"),
            (("publish", "missing.py", "--input", "x"), "give NAME=TYPE"),
            (("publish", "missing.py", "--warmup", "[1]"), "a JSON object"),
            (("services", "show", "a/b"), "is no name"),
            (("pools", "set", "Score", "v1", "--initial", "3", "--max", "1"), "0 <= initial <= maximum"),
            (("pools", "set", "Score", "v1", "--initial", "-1", "--max", "1"), "initial"),
            (("pools", "set", "Score", "v1"), "initial"),
            (("logs", "Score", "--lines", "0"), "lines"),
            (("nonsense",), "nonsense"),
            (("services", "list", "--output", "xml"), "xml"),
        ],
    )
    def test_wrong_use_ends_with_2_and_one_line(self, score: RestApi, arguments: tuple[str, ...], why: str) -> None:
        before = len(score.seen)
        assert why in refused(2, *arguments)
        assert len(score.seen) == before

    def test_broken_json_is_named_with_its_place(self, score: RestApi) -> None:
        line = refused(2, "call", "Score", "--json", "-", "--url", score.url)
        assert line == "error: -:1:1: not JSON: Expecting value"

    def test_code_that_raises_ends_with_1_and_its_traceback(self, score: RestApi) -> None:
        result = run("call", "Score", "v1", "x=a", "y=b")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[0] == "scoring"
        assert "Traceback" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("error: Score v1: TypeError: can't multiply")


class TestPools:
    def test_a_pool_is_set_watched_shown_and_deleted(self, score: RestApi) -> None:
        score.warming = 1
        result = run("pools", "set", "Score", "v1", "--initial", "2", "--max", "4", "--watch")
        assert result.exit_code == 0
        assert re.search(
            r"^Score v1: Pending, 0 of 2 sessions ready .*: worker-1: importing service$", result.stderr, re.M
        )
        assert "worker-1  Success  2" in result.stdout
        assert done("pools", "list").splitlines()[1].split()[:5] == ["Score", "v1", "Success", "2", "2"]
        assert done("usage").splitlines()[1].split()[:8] == ["Score", "v1", "all", "0", "2", "0", "0", "0"]
        assert as_json("usage", "Score", "v1")[0]["wait"]["p99Seconds"] == 0.25
        score.leaving = 1
        result = run("pools", "delete", "Score", "v1", "--watch")
        assert "sessions left on worker-1" in result.stderr
        assert refused(4, "pools", "show", "Score", "v1")

    def test_a_stalled_pool_ends_the_watch_with_its_words(self, score: RestApi) -> None:
        score.stalled = "ImagePullBackOff"
        result = run("pools", "set", "Score", "v1", "--initial", "1", "--max", "1", "--watch")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == "error: pool of Score v1: ImagePullBackOff"

    def test_a_watch_that_lasts_too_long_ends_with_5(self, score: RestApi) -> None:
        score.warming = 1000
        result = run("pools", "set", "Score", "v1", "--initial", "1", "--max", "1", "--watch", "--timeout", "0")
        assert result.exit_code == 5

    @pytest.mark.usefixtures("interruptible")
    def test_all_pools_are_followed_until_it_is_interrupted(self, score: RestApi) -> None:
        done("pools", "set", "Score", "v1", "--initial", "1", "--max", "2")
        process = subprocess.Popen(
            [sys.executable, "-m", "sessionpools.client", "pools", "list", "--watch"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Score v1: Success, 1 of 1 sessions ready")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 130
        finally:
            process.kill()
            process.communicate()


class TestLogs:
    LOGS = "GET /services/Score/v1/logs"

    def tell(self, api: RestApi, *pods: dict[str, Any], not_read: int = 0) -> None:
        body = {"name": "Score", "version": "v1", "pods": pods, "notRead": not_read}
        api.fail(self.LOGS, Reply(200, body), Reply(200, body))

    def pod(self, node: str, *lines: str, pod: str = "score-1", **more: Any) -> dict[str, Any]:
        return {"node": node, "pod": pod, "lines": list(lines), "cut": False, "error": ""} | more

    def test_the_lines_of_the_only_session_pod_are_written_as_they_are(self, score: RestApi) -> None:
        self.tell(score, self.pod("worker-1", "one", "two"))
        assert done("logs", "Score", "--lines", "2", "--node", "worker-1") == "one\ntwo\n"
        assert score.asked(self.LOGS)[0].params == {"lines": "2", "node": "worker-1"}
        assert as_json("logs", "Score")["pods"] == [self.pod("worker-1", "one", "two")]

    def test_of_several_the_node_is_told_and_of_several_there_the_pod(self, score: RestApi) -> None:
        pods = [self.pod("worker-1", "a"), self.pod("worker-2", "b"), self.pod("worker-2", "c", pod="score-2")]
        self.tell(score, *pods)
        text = done("logs", "Score", "--version", "v1")
        assert text == "worker-1: a\nworker-2/score-1: b\nworker-2/score-2: c\n"

    def test_what_is_missing_is_said_on_standard_error(self, score: RestApi) -> None:
        away, large = self.pod("worker-1", error="no answer"), self.pod("worker-2", "x", cut=True)
        self.tell(score, away, large, not_read=7)
        result = run("logs", "Score")
        assert (result.exit_code, result.stdout) == (0, "worker-2: x\n")
        assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
            "worker-1/score-1",
            "worker-2/score-1",
            "7 more session pods were not read",
        ]

    def test_when_no_log_can_be_read_it_ends_with_1(self, score: RestApi) -> None:
        self.tell(score, self.pod("worker-1", error="no answer"))
        result = run("logs", "Score")
        assert (result.exit_code, result.stderr) == (1, "worker-1/score-1: can not be read: no answer\n")


class TestBatch:
    def test_a_batch_is_started_shown_and_cancelled(self, home: Path, score: RestApi) -> None:
        (home / "items.json").write_text('[{"x": 1}, {"z": 1}]')
        name = done("batch", "start", "Score", "v1", str(home / "items.json")).strip()
        assert done("batch", "list", "Score", "v1").strip() == name
        lines = done("batch", "show", "Score", "v1", name, "--watch").splitlines()
        assert lines[1].split() == ["0", "ok", "answer", "=", "1"]
        assert lines[2].startswith("1     failed  TypeError")
        assert lines[3] == f"batch {name}: complete, 2 of 2 items done, 1 failed"
        done("batch", "cancel", "Score", "v1", name)
        assert refused(4, "batch", "show", "Score", "v1", name)


class TestServer:
    def test_the_status_is_told_and_a_failure_is_an_exit_code(self, login: RestApi) -> None:
        assert done("status").splitlines()[1:] == ["session-pools  pass", "  backends     pass    dedicatedPools 0"]
        login.fail(
            "GET /status", Reply(200, {"statusCode": "fail", "components": None, "details": {"message": "away"}})
        )
        assert run("status").exit_code == 1

    def test_nobody_listening_ends_with_6(self) -> None:
        assert "no connection" in refused(6, "status", "--url", "http://127.0.0.1:1")

    def test_each_command_explains_itself(self) -> None:
        text = done("--help")
        assert "Exit codes:" in text
        for command in ("run", "login", "services", "publish", "call", "pools", "usage", "logs", "batch", "status"):
            assert re.search(rf"^  {command} ", text, re.M)
            assert "Usage:" in done(command, "--help")
        assert done("pools").startswith("Usage: ")


class TestOutput:
    def test_tables_are_aligned_and_end_without_blanks(self) -> None:
        assert plain(Rows(("A", "LONG"), [("xyz", ""), ("", "b")], "note")) == "A    LONG\nxyz\n     b\nnote\n"

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "-"), (0.00084, "0.84 ms"), (0.25, "250 ms"), (3.14, "3.1 s"), (250.0, "250 s")],
    )
    def test_durations_are_told_as_people_read_them(self, value: float | None, text: str) -> None:
        assert seconds(value) == text

    def test_what_is_no_terminal_gets_no_colours(self, score: RestApi) -> None:
        assert "\x1b" not in done("services", "list")

    @pytest.mark.parametrize("no_color", ["", "1"])
    def test_a_terminal_gets_colours_unless_no_color_is_set(self, score: RestApi, no_color: str) -> None:
        done("pools", "set", "Score", "v1", "--initial", "1", "--max", "1")
        shown = on_terminal("pools", "list", **({"NO_COLOR": no_color} if no_color else {}))
        assert "Score" in shown
        assert ("\x1b[32m" in shown) is not bool(no_color)


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "TERM": "xterm", "COLUMNS": "160", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionpools.client", *arguments],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=environment,
    )
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(30) == 0, written
    return written.decode()
