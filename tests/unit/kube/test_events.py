"""Events tell once, count on, and are never in the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.events import EventRecorder, event_name
from sessionpools.kube.protocol import EVENTS, Json, ObjectRef
from support.apiserver import ApiServer

POOL = ObjectRef("sessionpools.dev/v1alpha1", "SessionPool", "diabetes", "demo", "11111111-2222")


class Clock:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(api: HttpKubeApi, clock: Clock) -> EventRecorder:
    return EventRecorder(api, "session-pools-controller", clock, "controller-0")


async def warn(recorder: EventRecorder, message: str = "no module", regarding: ObjectRef = POOL) -> None:
    await recorder.record(regarding, "Warning", "SessionFailed", message, "StartSession")


def events(server: ApiServer) -> list[Json]:
    return server.store.all(EVENTS)


async def test_an_event_says_what_happened_to_what(server: ApiServer, recorder: EventRecorder) -> None:
    await warn(recorder)
    (event,) = events(server)
    assert event["metadata"]["namespace"] == "demo"
    assert event["involvedObject"] == {
        "apiVersion": "sessionpools.dev/v1alpha1",
        "kind": "SessionPool",
        "name": "diabetes",
        "namespace": "demo",
        "uid": "11111111-2222",
    }
    said = (event["type"], event["reason"], event["message"], event["action"], event["count"])
    assert said == ("Warning", "SessionFailed", "no module", "StartSession", 1)
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["reportingComponent"] == "session-pools-controller"


async def test_what_happens_again_within_five_minutes_is_not_written(
    server: ApiServer, recorder: EventRecorder, clock: Clock
) -> None:
    for _ in range(5):
        await warn(recorder)
        clock.now += timedelta(seconds=59)
    assert len(server.writes(EVENTS)) == 1


async def test_after_five_minutes_one_write_counts_all_that_happened(
    server: ApiServer, recorder: EventRecorder, clock: Clock
) -> None:
    for _ in range(3):
        await warn(recorder)
    clock.now += timedelta(minutes=5)
    await warn(recorder, "another module")
    (event,) = events(server)
    assert (event["count"], event["message"]) == (4, "another module")
    assert (event["firstTimestamp"], event["lastTimestamp"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z")
    assert [write.verb for write in server.writes(EVENTS)] == ["create", "patch"]


async def test_objects_and_reasons_are_told_apart(server: ApiServer, recorder: EventRecorder) -> None:
    await warn(recorder)
    await recorder.record(POOL, "Normal", "Ready", "all sessions are ready", "Observe")
    await warn(recorder, regarding=ObjectRef(POOL.api_version, POOL.kind, POOL.name, POOL.namespace, "another uid"))
    assert len(events(server)) == 3


async def test_a_controller_that_was_restarted_counts_on(
    server: ApiServer, api: HttpKubeApi, recorder: EventRecorder, clock: Clock
) -> None:
    await warn(recorder)
    clock.now += timedelta(minutes=1)
    restarted = EventRecorder(api, "session-pools-controller", clock)
    await warn(restarted)
    assert events(server)[0]["count"] == 1  # five minutes are not over, whoever wrote it
    clock.now += timedelta(minutes=5)
    await warn(restarted)
    assert [event["count"] for event in events(server)] == [3]


async def test_an_event_that_has_expired_is_made_anew(server: ApiServer, recorder: EventRecorder, clock: Clock) -> None:
    await warn(recorder)
    server.store.delete(EVENTS, event_name(POOL, "SessionFailed"), "demo")
    clock.now += timedelta(hours=1)
    await warn(recorder)
    assert [event["count"] for event in events(server)] == [1]


@pytest.mark.parametrize("status", [0, 403, 500])
async def test_a_failure_to_write_is_logged_and_not_raised(
    server: ApiServer, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    server.fail("create", EVENTS, status)
    await warn(recorder)
    assert "event not written" in caplog.text
    await recorder.record(POOL, "Normal", "Ready", "", "Observe")
    assert len(events(server)) == 1


async def test_what_could_not_be_written_is_counted_by_the_next_write(
    server: ApiServer, recorder: EventRecorder, clock: Clock
) -> None:
    server.fail("create", EVENTS, 500)
    await warn(recorder)
    clock.now += timedelta(minutes=5)
    await warn(recorder)
    assert [event["count"] for event in events(server)] == [2]


async def test_an_event_about_what_has_no_namespace_is_in_default(server: ApiServer, recorder: EventRecorder) -> None:
    await warn(recorder, regarding=ObjectRef("v1", "Node", "worker-1"))
    (event,) = events(server)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


async def test_a_long_message_is_shortened(server: ApiServer, recorder: EventRecorder) -> None:
    await warn(recorder, "x" * 5000)
    assert len(events(server)[0]["message"]) == 1024


def test_the_name_of_an_event_is_valid_whatever_its_objects_is() -> None:
    name = event_name(ObjectRef("v1", "Node", "a" * 235 + ".b" * 9), "Reason")
    assert len(name) <= 253
    assert ".." not in name and not name.startswith(".")
