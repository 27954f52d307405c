"""How often session pods are asked."""

from collections import Counter
from collections.abc import Iterable

from sessionpools.controller.inquiry import AT_ONCE, BACKOFF_AT_MOST_SECONDS, Inquiry
from sessionpools.core.model import PodView, SessionReport
from sessionpools.kube.podclient import PodClient
from support.builders import pod, pool, process_pool, target_of


class Pods(PodClient):
    def __init__(self, answer: SessionReport | None) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []

    async def reports(self, pods: Iterable[PodView]) -> dict[str, SessionReport]:
        uids = [p.uid for p in pods]
        self.asked += uids
        return dict.fromkeys(uids, self.answer) if self.answer else {}


P = pool(1, 4)
T = target_of(P)


async def test_a_starting_pod_is_asked_at_each_interval() -> None:
    client, inquiry = Pods(SessionReport(0, 0, "init", 1.0, 1, 1)), Inquiry()
    pods = [pod(T, P, 0, ready=False)]
    for now in (0.0, 1.0, 3.0, 4.0):
        assert await inquiry.ask(client, P, T.revision.name, pods, now, 3.0) is not None
    assert len(client.asked) == 2


async def test_a_ready_pod_is_asked_once() -> None:
    client, inquiry = Pods(SessionReport(1, 0, "ready", 1.0, 1, 1)), Inquiry()
    for now in (0.0, 10.0):
        assert await inquiry.ask(client, P, T.revision.name, [pod(T, P, 0)], now, 3.0) is None
    assert len(client.asked) == 1


async def test_one_that_does_not_answer_is_asked_less_and_less_often() -> None:
    client, inquiry = Pods(None), Inquiry()
    waits = []
    now = 0.0
    for _ in range(10):
        wait = await inquiry.ask(client, P, T.revision.name, [pod(T, P, 0)], now, 3.0)
        assert wait is not None
        waits.append(wait)
        now += wait
    assert waits[:3] == [6.0, 12.0, 24.0]
    assert waits[-1] == BACKOFF_AT_MOST_SECONDS


async def test_one_that_has_not_answered_for_weeks_is_asked_all_the_same() -> None:
    client, inquiry, now = Pods(None), Inquiry(), 0.0
    for _ in range(1100):  # 2.0 ** 1024 is an OverflowError
        now += BACKOFF_AT_MOST_SECONDS
        await inquiry.ask(client, P, T.revision.name, [pod(T, P, 0)], now, 3.0)
    assert len(client.asked) == 1100


async def test_of_more_than_can_be_asked_in_an_interval_each_has_its_turn() -> None:
    several = process_pool(2, 4)
    of = target_of(several)
    client, inquiry, now = Pods(SessionReport(0, 0, "ready", 1.0, 1, 1)), Inquiry(), 0.0
    pods = [pod(of, several, on=f"worker-{number}") for number in range(10 * AT_ONCE)]
    for _ in range(30):
        now += max(await inquiry.ask(client, several, of.revision.name, pods, now, 0.5) or 0.0, 0.1)
    assert set(Counter(client.asked).values()) == {3}


async def test_one_that_may_retire_is_asked_when_it_can_have_been_idle_for_long_enough() -> None:
    client, inquiry = Pods(SessionReport(1, 0, "ready", 1.0, 1, 1, idle_seconds=100.0)), Inquiry()
    grown = pod(T, P, 3)
    asked = {grown.owner.node: 4}
    first, then = pod(T, P, 0), P.spec.idle_timeout_seconds - 100.0
    for now, wait in ((0.0, then), (then - 1, 1.0), (then, then)):
        assert await inquiry.ask(client, P, T.revision.name, [first, grown], now, 3.0, asked, [grown]) == wait
    assert client.asked.count(grown.uid) == 2
    assert inquiry.idle == {grown.uid: 100.0}


async def test_a_busy_one_has_not_been_idle_at_all() -> None:
    client, inquiry = Pods(SessionReport(1, 1, "ready", 1.0, 1, 1, idle_seconds=999.0)), Inquiry()
    await inquiry.ask(client, P, T.revision.name, [pod(T, P, 3)], 0.0, 3.0, {"worker-1": 4}, [pod(T, P, 3)])
    assert set(inquiry.idle.values()) == {0.0}


async def test_how_long_one_was_idle_is_not_remembered() -> None:
    client, inquiry = Pods(SessionReport(1, 0, "ready", 1.0, 1, 1, idle_seconds=100.0)), Inquiry()
    for now in (0.0, 1.0):
        await inquiry.ask(client, P, T.revision.name, [pod(T, P, 3)], now, 3.0, {"worker-1": 4}, [pod(T, P, 3)])
    assert inquiry.idle == {}


async def test_what_a_pod_said_is_forgotten_with_it() -> None:
    client, inquiry = Pods(SessionReport(1, 0, "ready", 1.0, 1, 1)), Inquiry()
    await inquiry.ask(client, P, T.revision.name, [pod(T, P, 0)], 0.0, 3.0)
    await inquiry.ask(client, P, T.revision.name, [], 0.0, 3.0)
    assert inquiry.reports == {}
