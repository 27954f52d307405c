"""The session runtime's decisions and readers, without processes."""

from __future__ import annotations

import json
import mmap
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from sessionpools.session import hugepages, linux, termination
from sessionpools.session.channel import Channel
from sessionpools.session.config import (
    MAX_SLOTS,
    ConfigError,
    Launch,
    Paths,
    RevisionSpec,
    Settings,
    SettingsFile,
    parse_paths,
)
from sessionpools.session.control import metrics, slot_view
from sessionpools.session.launcher import environment
from sessionpools.session.process import memory_allowance
from sessionpools.session.slots import (
    Action,
    Session,
    Slot,
    back_off_seconds,
    decide,
    may_retire,
    seconds_until_overdue,
)
from sessionpools.session.state import SharedState
from sessionpools.session.warmup import problem

MIB = 1 << 20

# --- configuration ----------------------------------------------------------------------------------------------------


def revision(**changes: Any) -> str:
    return json.dumps({"format": 1, "service": {"name": "S", "version": "1"}, "entrypoint": "a:b", **changes})


def test_a_revision_is_read_with_its_defaults() -> None:
    spec = RevisionSpec.parse(revision(warmup={}, modules=["numpy"], outputFiles=["a.png"]))
    assert (spec.name, spec.version, spec.entrypoint, spec.script) == ("S", "1", "a:b", "")
    assert (spec.warmup, spec.modules, spec.output_files, spec.fork_safe) == ({}, ("numpy",), ("a.png",), True)
    assert spec.inputs is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (revision(format=2), "format 2"),
        (revision(script="a.py"), "exactly one"),
        (revision(entrypoint=""), "exactly one"),
    ],
)
def test_a_revision_that_makes_no_sense_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RevisionSpec.parse(text)


def test_settings_have_the_contracts_defaults_and_ignore_what_they_do_not_know() -> None:
    assert Settings.parse('{"somethingNew": {}}') == Settings()
    assert Settings.parse('{"maxPoolSize": 5, "idleTimeoutSeconds": 1.5}') == Settings(
        max_pool_size=5, idle_timeout_seconds=1.5
    )


def test_a_maximum_below_the_initial_size_is_raised_to_it_and_both_are_bounded() -> None:
    assert Settings.parse('{"initialPoolSize": 3, "maxPoolSize": 1}').max_pool_size == 3
    assert Settings.parse('{"maxPoolSize": 100000}').max_pool_size == MAX_SLOTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"maxPoolSize": "5"}',
        '{"maxPoolSize": -1}',
        '{"maxPoolSize": true}',
        '{"maxPoolSize": Infinity}',
        '{"drainTimeoutSeconds": NaN}',
    ],
)
def test_settings_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Settings.parse(text)


def test_the_settings_file_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    file = SettingsFile(str(tmp_path / "settings"))
    assert file.read() == Settings()
    (tmp_path / "settings").write_text('{"maxPoolSize": 2}')
    assert file.read().max_pool_size == 2
    (tmp_path / "settings").write_text("{")
    with pytest.raises(ConfigError):
        file.read()
    assert file.read().max_pool_size == 2  # said once, then as before
    (tmp_path / "new").write_text('{"maxPoolSize": 3}')
    (tmp_path / "new").rename(tmp_path / "settings")
    assert file.read().max_pool_size == 3


def test_flags_come_before_variables_and_those_before_the_defaults_of_a_pod() -> None:
    assert parse_paths([], {}) == Paths()
    environ = {"SESSIONPOOLS_BASE_PORT": "1", "SESSIONPOOLS_POOL": "a/b", "SESSIONPOOLS_SESSION_MEMORY": "5"}
    paths = parse_paths(["--base-port", "2"], environ)
    assert (paths.base_port, paths.pool, paths.session_memory_bytes) == (2, "a/b", 5)


def test_help_names_flags_and_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_paths(["--help"], {})
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--control-port" in text
    assert "SESSIONPOOLS_CONTROL_PORT" in text


def test_a_variable_that_is_no_number_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_paths([], {"SESSIONPOOLS_BASE_PORT": "x"})
    assert "SESSIONPOOLS_BASE_PORT" in capsys.readouterr().err


def test_a_launch_survives_its_way_to_the_process() -> None:
    launch = Launch(Paths(pool="a/b"), 3, 4, 5, slot=2, connection_fds=(7, 8))
    assert Launch.loads(launch.dumps()) == launch


def test_numeric_libraries_get_one_thread_unless_the_user_chose() -> None:
    assert environment({"OMP_NUM_THREADS": "4"})["OMP_NUM_THREADS"] == "4"
    assert environment({})["MKL_NUM_THREADS"] == "1"


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> SharedState:
    return SharedState.create()


def slot(shared: SharedState, number: int, filled: bool = False, **fields: Any) -> Slot:
    row = Slot(number, 9000 + number, socket.socket(), shared.row(number), **fields)
    if filled:
        row.session = Session(number, Channel.pair()[0], started_at=0.0, activated=False)
    return row


@pytest.mark.parametrize(
    ("number", "filled", "conditions", "action"),
    [
        (0, False, {}, Action.FILL),
        (0, True, {}, Action.NOTHING),
        (0, False, {"can_start": False}, Action.NOTHING),
        (0, False, {"now": 4.0}, Action.NOTHING),
        (1, False, {}, Action.WATCH),
        (1, False, {"can_start": False}, Action.NOTHING),
        (1, True, {}, Action.NOTHING),
        (2, True, {}, Action.DRAIN),
        (2, False, {}, Action.CLOSE),
        (0, True, {"draining": True}, Action.DRAIN),
        (0, False, {"draining": True}, Action.CLOSE),
    ],
)
def test_what_is_done_with_a_slot(
    shared: SharedState, number: int, filled: bool, conditions: dict[str, Any], action: Action
) -> None:
    settings = Settings(initial_pool_size=1, max_pool_size=2)
    row = slot(shared, number, filled, retry_at=5.0)
    assert decide(row, settings, **{"can_start": True, "draining": False, "now": 6.0, **conditions}) is action


def test_a_session_is_told_to_drain_once(shared: SharedState) -> None:
    row = slot(shared, 0, filled=True)
    assert row.session is not None
    row.session.draining = True
    assert decide(row, Settings(), can_start=True, draining=True, now=0.0) is Action.NOTHING


def test_connections_that_a_session_left_get_the_next_one_at_once(shared: SharedState) -> None:
    row = slot(shared, 1, handover=[99])
    assert decide(row, Settings(1, 2), can_start=True, draining=False, now=0.0) is Action.FILL


def test_starts_that_fail_are_retried_ever_more_slowly_up_to_a_bound() -> None:
    waits = [back_off_seconds(failures) for failures in range(20)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] <= 10


def test_a_request_is_overdue_a_second_after_its_timeout() -> None:
    settings = Settings(request_timeout_seconds=10)
    assert seconds_until_overdue(0, 10 * 10**9, settings) == 1.0
    assert seconds_until_overdue(0, 12 * 10**9, settings) < 0


def test_only_slots_above_the_initial_size_retire(shared: SharedState) -> None:
    settings = Settings(initial_pool_size=1, max_pool_size=2, idle_timeout_seconds=5)
    assert not may_retire(slot(shared, 0), 100, settings)
    assert may_retire(slot(shared, 1), 5, settings)
    assert not may_retire(slot(shared, 1), 4, settings)


@pytest.mark.parametrize(
    ("session", "container", "loaded", "slots", "forked", "allowed"),
    [
        (0, 500, 0, 1, True, 0),  # no limit asked for
        (256, 0, 100, 1, True, 256),  # no limit of the container
        (256, 256, 100, 1, True, 124),  # a pod of one session: what the container has left
        (256, 2560, 100, 10, True, 242),
        (256, 10000, 100, 10, True, 256),
        (256, 128, 100, 1, True, 32),  # a session needs something
        (256, 2560, 100, 10, False, 152),  # ten times loaded
    ],
)
def test_a_session_may_allocate_its_limit_but_not_more_than_the_container_has_left(
    session: int, container: int, loaded: int, slots: int, forked: bool, allowed: int
) -> None:
    assert memory_allowance(session * MIB, container * MIB, loaded * MIB, slots, forked) // MIB == allowed


# --- shared memory ----------------------------------------------------------------------------------------------------


def test_a_row_tells_what_its_session_does(shared: SharedState) -> None:
    mine, theirs = shared.row(3), SharedState(shared.fd).row(3)
    mine.begin(100, b"id-1")
    assert theirs.words[2] == 100
    assert theirs.request_id == "id-1"
    mine.end(150, failed=True)
    mine.idle(151)
    assert list(theirs.words[:8]) == [2, 1, 0, 151, 0, 1, 50, 1]
    assert list(shared.row(2).words[:8]) == [0] * 8
    mine.begin(200, b"x" * 1000)
    assert len(theirs.request_id) == 128
    mine.words[5] = 12345678
    counted = metrics({"ready": 1, "sessions": []}, [(3, mine)], {}, 0).decode()
    assert 'sessionpools_requests_total{slot="3"} 12345678\n' in counted
    mine.words[5] = 1
    mine.words[0] = 77  # the code wrote there
    assert slot_view(slot(shared, 3, filled=True), 0)["state"] == "busy"
    mine.reset(0)
    assert list(theirs.words[:8]) == [0, 0, 0, 0, 0, 1, 50, 1]  # totals outlive sessions


# --- Linux ------------------------------------------------------------------------------------------------------------


def test_a_thread_that_is_about_to_end_is_not_counted() -> None:
    ending, staying = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=ending.wait, args=(0.03,), name="ending"),
        threading.Thread(target=staying.wait, name="staying"),
    ]
    for thread in threads:
        thread.start()
    try:
        assert "ending" in linux.other_threads()
        assert "ending" not in linux.lasting_threads()
        assert "staying" in linux.lasting_threads()
    finally:
        staying.set()
        for thread in threads:
            thread.join()


def test_huge_pages_keep_what_is_in_memory_and_leave_untouched_memory_alone() -> None:
    size = 8 * hugepages.HUGE_BYTES
    with (
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as used,
        mmap.mmap(-1, 16 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as untouched,
    ):
        content = os.urandom(size)
        used[:] = content
        before = linux.status_bytes("RssAnon")
        hugepages.collapse()
        grown = linux.status_bytes("RssAnon") - before
        assert used[:] == content
        assert grown < size
        assert untouched[-1] == 0


def test_memory_limits_are_read_from_cgroup_v2(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("268435456\n")
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 1\noom_group_kill 0\n")
    group = linux.MemoryCgroup(str(tmp_path), str(tmp_path / "membership"))
    assert (group.limit_bytes(), group.oom_kills()) == (268435456, 1)
    (tmp_path / "memory.max").write_text("max\n")
    assert group.limit_bytes() == 0


def test_memory_limits_are_read_from_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("5:cpu:/\n4:memory:/pods/a\n0::/\n")
    own = tmp_path / "memory" / "pods" / "a"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text("1048576\n")
    (own / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    group = linux.MemoryCgroup(str(tmp_path), str(tmp_path / "membership"))
    assert (group.limit_bytes(), group.oom_kills()) == (1048576, 3)
    (own / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert group.limit_bytes() == 0


def test_without_a_cgroup_there_is_no_limit(tmp_path: Path) -> None:
    group = linux.MemoryCgroup(str(tmp_path), str(tmp_path / "nothing"))
    assert (group.limit_bytes(), group.oom_kills()) == (0, 0)


@pytest.mark.parametrize(("count", "text"), [(256 * MIB, "256Mi"), (2 << 30, "2Gi"), (1000, "1000"), (1536, "1536")])
def test_sizes_are_written_as_kubernetes_writes_them(count: int, text: str) -> None:
    assert linux.human_bytes(count) == text


def test_the_termination_log_has_one_line_for_people_and_fits(tmp_path: Path) -> None:
    file = tmp_path / "log"
    termination.write(str(file), "ValueError: a\nb", "ä" * 5000)
    text = file.read_bytes()
    assert text.decode().splitlines()[0] == "ValueError: a b"
    assert len(text) <= 4096


def test_a_termination_log_that_cannot_be_written_is_no_failure() -> None:
    termination.write("/nonexistent/log", "x")


def test_stacks_show_the_users_frames() -> None:
    stack = (
        "Current thread 0x1 (most recent call first):\n"
        '  File "/code/service.py", line 3 in load\n'
        '  File "/x/sessionpools/session/template.py", line 9 in load\n'
        '  File "<frozen runpy>", line 88 in _run_code\n'
    )
    assert termination.user_frames(stack).splitlines()[1:] == ['  File "/code/service.py", line 3 in load']


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{"success": true}', ""),
        (b'HTTP/1.1 200 OK\r\n\r\n{"success": false, "errorMessage": "no"}', "no"),
        (b'HTTP/1.1 400 Bad Request\r\n\r\n{"success": false, "errorMessage": "input x"}', "input x"),
        (b"HTTP/1.1 500 Oh\r\n\r\nnot json", "HTTP status 500"),
        (b"", None),
        (b"HTTP/1.1 ", None),
    ],
)
def test_what_is_wrong_with_an_answer_to_the_warm_up(answer: bytes, expected: str | None) -> None:
    assert problem(answer) == expected
