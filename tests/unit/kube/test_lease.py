"""One of several leads: at once after a release, soon after a crash, and never two of those that write.

The lease is as short as a machine that is busy with other tests allows; all waits are on conditions.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sessionpools.kube import client
from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.lease import Election, Record
from sessionpools.kube.protocol import LEASES, Conflict, Json
from support.apiserver import ApiServer
from support.waiting import until

LEASE, RENEW = 2.0, 0.3
NAMESPACE, NAME = "session-pools", "session-pools-gateway"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.01)


@dataclass
class Contender:
    election: Election
    changes: list[tuple[bool, float]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        return self.election.leading

    def start(self) -> None:
        self.task = asyncio.create_task(
            self.election.run(lambda leading: self.changes.append((leading, time.monotonic())))
        )

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """End without a word to the API server."""

        async def nothing() -> None:
            return None

        monkeypatch.setattr(self.election, "_release", nothing)
        await self.stop()


Start = Callable[..., Contender]


@pytest.fixture
async def contend(api: HttpKubeApi) -> AsyncIterator[Start]:
    started: list[Contender] = []

    def contend(identity: str, *, keep: bool = True, through: HttpKubeApi = api, **options: Any) -> Contender:
        options = {"lease_seconds": LEASE, "renew_seconds": RENEW, **options}
        contender = Contender(Election(through, NAMESPACE, NAME, identity, keep_when_unreachable=keep, **options))
        contender.start()
        started.append(contender)
        return contender

    yield contend
    await asyncio.gather(*(each.stop() for each in started))


def lease(server: ApiServer) -> Json:
    return server.store.get(LEASES, NAME, NAMESPACE)


def holder(server: ApiServer) -> str:
    return Record.parse(lease(server)).holder


async def leads(contender: Contender) -> None:
    await until(lambda: contender.leading, f"{contender.election.identity} to lead")


async def looks(server: ApiServer, count: int) -> None:
    """Wait until the Lease was asked for so many times more."""
    seen = len(server.requests)
    await until(lambda: len(server.requests) >= seen + count, f"{count} more requests")


# --- what stands in the Lease -----------------------------------------------------------------------------------------


async def test_the_first_writes_a_lease_as_client_go_does(server: ApiServer, contend: Start) -> None:
    await leads(contend("a", labels={"app": "gateway"}))
    written = lease(server)
    assert written["metadata"]["labels"] == {"app": "gateway"}
    spec = written["spec"]
    assert spec["acquireTime"] == spec["renewTime"] and spec["acquireTime"].endswith("Z")
    del spec["acquireTime"], spec["renewTime"]
    assert spec == {"holderIdentity": "a", "leaseDurationSeconds": 2, "leaseTransitions": 0}


async def test_a_renewal_changes_the_time_of_renewal_alone(server: ApiServer, contend: Start) -> None:
    await leads(contend("a"))
    first = lease(server)["spec"]
    await until(lambda: lease(server)["spec"] != first, "a renewal")
    renewed = lease(server)["spec"]
    assert renewed["renewTime"] > first["renewTime"]
    assert {**renewed, "renewTime": ""} == {**first, "renewTime": ""}


async def test_a_change_of_holder_is_a_transition(server: ApiServer, contend: Start) -> None:
    first = contend("a")
    await leads(first)
    await first.stop()
    await leads(contend("b"))
    assert Record.parse(lease(server)).transitions == 1


async def test_renewals_are_all_that_is_written(server: ApiServer, contend: Start) -> None:
    await leads(contend("a"))
    contend("b")
    began, count = time.monotonic(), len(server.writes(LEASES))
    await until(lambda: len(server.writes(LEASES)) >= count + 4, "four renewals")
    assert time.monotonic() - began >= 3 * RENEW
    assert {request.verb for request in server.writes(LEASES)[1:]} == {"patch"}


async def test_a_lease_that_was_deleted_is_written_again(server: ApiServer, contend: Start) -> None:
    first = contend("a")
    await leads(first)
    server.store.delete(LEASES, NAME, NAMESPACE)
    await until(lambda: server.store.all(LEASES), "the Lease")
    assert holder(server) == "a"
    assert [leading for leading, _ in first.changes] == [True]


# --- takeover ---------------------------------------------------------------------------------------------------------


async def test_of_many_that_begin_together_one_leads(server: ApiServer, contend: Start) -> None:
    contenders = [contend(f"c-{n}", keep=n % 2 == 0) for n in range(6)]
    await until(lambda: any(each.leading for each in contenders), "a leader")
    await looks(server, 20)
    assert sum(each.leading for each in contenders) == 1


async def test_after_a_release_another_leads_at_its_next_look(server: ApiServer, contend: Start) -> None:
    first = contend("a")
    await leads(first)
    second = contend("b")
    await looks(server, 2)
    await first.stop()
    released = time.monotonic()
    await leads(second)
    assert second.changes[0][1] - released < LEASE / 2
    assert [leading for leading, _ in first.changes] == [True, False]
    assert first.changes[1][1] <= second.changes[0][1]


async def test_a_released_lease_is_held_by_nobody(server: ApiServer, contend: Start) -> None:
    only = contend("a")
    await leads(only)
    await only.stop()
    spec = lease(server)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("", 1)


async def test_after_a_crash_another_leads_when_the_lease_has_expired(
    server: ApiServer, contend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = contend("a")
    await leads(first)
    second = contend("b")
    await looks(server, 3)
    await first.crash(monkeypatch)
    crashed = time.monotonic()
    await leads(second)
    # the last renewal may be RENEW old, and be seen RENEW later
    assert LEASE - RENEW <= second.changes[0][1] - crashed <= LEASE + RENEW + 0.5


async def test_a_holder_that_is_known_to_be_gone_is_not_waited_for(
    server: ApiServer, contend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, gone = contend("a"), set[str]()
    await leads(first)
    second = contend("b", lease_seconds=10, holder_is_gone=gone.__contains__)
    await looks(server, 2)
    await first.crash(monkeypatch)
    gone.add("a")
    crashed = time.monotonic()
    await leads(second)
    assert second.changes[0][1] - crashed < RENEW + 0.7


async def test_who_comes_back_under_its_name_goes_on(
    server: ApiServer, contend: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = contend("a")
    await leads(first)
    await first.crash(monkeypatch)
    before = Record.parse(lease(server))
    await leads(contend("a"))
    after = Record.parse(lease(server))
    assert (after.transitions, after.acquired) == (before.transitions, before.acquired)


@pytest.mark.parametrize("year", ["1999", "2999"])
async def test_the_holders_clock_is_not_compared_with_ours(server: ApiServer, contend: Start, year: str) -> None:
    at = f"{year}-01-01T00:00:00.000000Z"
    record = Record("elsewhere", 2, at, at)
    server.store.create(LEASES, {"metadata": {"name": NAME}, "spec": record.spec()}, NAMESPACE)
    began = time.monotonic()
    contender = contend("a")
    await leads(contender)
    assert LEASE <= contender.changes[0][1] - began <= LEASE + RENEW + 0.5


async def test_how_long_a_lease_holds_is_what_its_holder_said(server: ApiServer, contend: Start) -> None:
    record = Record("elsewhere", 60, "", "")
    server.store.create(LEASES, {"metadata": {"name": NAME}, "spec": record.spec()}, NAMESPACE)
    contender = contend("a", poll_seconds=0.02)
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > LEASE + RENEW, "the contender's own lease")
    assert not contender.leading


async def test_who_is_not_fit_does_not_contend_and_lets_go(server: ApiServer, contend: Start) -> None:
    fit = {"a": False, "b": True}
    first = contend("a", fit=lambda: fit["a"], poll_seconds=0.02)
    second = contend("b", fit=lambda: fit["b"], poll_seconds=0.02)
    await leads(second)
    fit["b"], fit["a"] = False, True
    changed = time.monotonic()
    await leads(first)
    assert first.changes[0][1] - changed < LEASE / 2
    assert [leading for leading, _ in second.changes] == [True, False]
    assert second.changes[1][1] < first.changes[0][1]


# --- an API server in trouble -----------------------------------------------------------------------------------------


async def test_who_does_without_the_api_server_keeps_the_lease_while_it_is_away(
    server: ApiServer, contend: Start
) -> None:
    first = contend("a")
    await leads(first)
    second = contend("b", poll_seconds=0.05)
    await looks(server, 2)
    await server.stop()
    gone = time.monotonic()
    await until(lambda: time.monotonic() - gone > 2 * LEASE, "two leases' time")
    assert first.leading and not second.leading
    await server.start()
    before = Record.parse(lease(server)).renewed
    await until(lambda: Record.parse(lease(server)).renewed != before, "a renewal")
    await looks(server, 10)
    assert first.leading and not second.leading
    assert [leading for leading, _ in first.changes] == [True]


async def test_who_writes_stops_well_before_another_may_begin(server: ApiServer, contend: Start) -> None:
    first = contend("a", keep=False)
    await leads(first)
    await server.stop()
    renewed = first.election._renewed_at
    await until(lambda: not first.leading, "the end of its time")
    await until(lambda: len(first.changes) == 2, "word of it")
    assert first.changes[1][1] - renewed < LEASE * 2 / 3 + 0.1
    await server.start()
    await leads(first)


async def test_a_loop_that_stood_still_does_not_believe_that_it_leads(api: HttpKubeApi) -> None:
    now = [0.0]
    election = Election(
        api, NAMESPACE, NAME, "a",
        lease_seconds=15, renew_seconds=2, keep_when_unreachable=False, clock=lambda: now[0],
    )  # fmt: skip
    await election._turn(lambda _: None)
    assert election.leading
    now[0] = 9.9
    assert election.leading
    now[0] = 10.1
    assert not election.leading


@pytest.mark.parametrize("status", [409, 429, 500, 0])
async def test_a_renewal_that_fails_once_is_done_again(server: ApiServer, contend: Start, status: int) -> None:
    first = contend("a", keep=False)
    await leads(first)
    contend("b", keep=False)
    for _ in range(2):
        server.fail("patch", LEASES, status, reason="Conflict" if status == 409 else "", retry_after=0.05)
        before = Record.parse(lease(server)).renewed
        await until(lambda before=before: Record.parse(lease(server)).renewed != before, "a renewal")  # type: ignore[misc]
    assert first.leading
    assert [leading for leading, _ in first.changes] == [True]


@pytest.mark.parametrize("status", [500, 0])
async def test_a_write_whose_answer_was_lost_is_found_out(server: ApiServer, contend: Start, status: int) -> None:
    server.fail("create", LEASES, status, after=True)
    first = contend("a", keep=False, poll_seconds=0.05)
    await leads(first)
    server.fail("patch", LEASES, status, after=True, times=2)
    await looks(server, 8)
    assert first.leading
    assert [leading for leading, _ in first.changes] == [True]
    assert Record.parse(lease(server)).transitions == 0


async def test_a_slow_api_server_costs_nobody_the_lease(server: ApiServer, contend: Start) -> None:
    server.delay("*", LEASES, 0.4)  # a read and a write take longer than one call may
    first = contend("a", keep=False)
    await leads(first)
    second = contend("b", keep=False)
    await looks(server, 12)
    assert first.leading and not second.leading
    assert [leading for leading, _ in first.changes] == [True]


async def test_who_reads_that_another_holds_it_stops_whatever_it_does_without(
    server: ApiServer, contend: Start
) -> None:
    first = contend("a")
    await leads(first)
    record = Record("b", 60, "", "", 7)
    server.store.edit(LEASES, NAME, {"spec": record.spec()}, NAMESPACE)
    await until(lambda: not first.leading, "the first to stop")
    assert holder(server) == "b"


async def test_two_that_write_never_both_lead_whatever_the_api_server_does(server: ApiServer, contend: Start) -> None:
    contenders = [contend("a", keep=False), contend("b", keep=False), contend("c", keep=False)]
    both: list[list[str]] = []

    async def look() -> None:
        while True:
            leading = [each.election.identity for each in contenders if each.leading]
            if len(leading) > 1:
                both.append(leading)
            await asyncio.sleep(0)

    watching = asyncio.create_task(look())
    try:
        await until(lambda: any(each.leading for each in contenders), "a leader")
        for verb, status, after in [("patch", 500, True), ("*", 429, False), ("patch", 0, True), ("*", 409, False)]:
            # long enough for the leader to stop, and for another to begin
            server.fail(verb, LEASES, status, times=float("inf"), after=after, reason="Conflict", retry_after=0.1)
            await until(lambda: not any(each.leading for each in contenders), "nobody to lead")
            server.heal()
            await until(lambda: any(each.leading for each in contenders), "a leader again")
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert both == []


async def test_the_lock_is_the_version_that_was_read(server: ApiServer, api: HttpKubeApi, contend: Start) -> None:
    await leads(contend("a"))
    stale = lease(server)["metadata"]["resourceVersion"]
    before = Record.parse(lease(server)).renewed
    await until(lambda: Record.parse(lease(server)).renewed != before, "a renewal")
    thief: Json = {"metadata": {"resourceVersion": stale}, "spec": Record("thief").spec()}
    with pytest.raises(Conflict):
        await api.merge_patch(LEASES, NAME, thief, namespace=NAMESPACE)


# --- what cannot work is refused --------------------------------------------------------------------------------------


def test_an_identity_is_needed(api: HttpKubeApi) -> None:
    with pytest.raises(ValueError, match="identity"):
        Election(api, NAMESPACE, NAME, "", lease_seconds=6, renew_seconds=1.5, keep_when_unreachable=True)


def test_a_lease_that_one_lost_renewal_ends_is_refused(api: HttpKubeApi) -> None:
    with pytest.raises(ValueError, match="renew_seconds"):
        Election(api, NAMESPACE, NAME, "a", lease_seconds=6, renew_seconds=3, keep_when_unreachable=True)
