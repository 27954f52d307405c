"""What the web API's name means, found and kept."""

import asyncio
import logging
import socket

import pytest

from sessionpools.gateway import lookup
from sessionpools.gateway.lookup import Lookup, addresses
from sessionpools.gateway.model import OpenSlot
from sessionpools.gateway.options import WebApi
from support.waiting import until

WEB = WebApi("session-pools-web", 12802)


class Names:
    """Answers in turn; the last one again and again."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, _: WebApi) -> list[str]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(lookup, "UNKNOWN_AGAIN_SECONDS", 0.001)


async def followed(*answers: list[str] | Exception) -> tuple[Lookup, list[str]]:
    """After all answers, and what changes were told."""
    told: list[str] = []
    names = Names(*answers)
    found = Lookup(WEB, lambda: told.append(found.address), names.resolve)
    task = asyncio.create_task(found.run())
    await until(lambda: names.asked > len(answers), "all is asked")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found, told


GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_name_is_asked_for_until_it_is_found() -> None:
    found, told = await followed(GONE, UnicodeError("label too long"), [], ["10.0.0.1"])
    assert told == ["10.0.0.1"]
    assert found.server == OpenSlot("web", "10.0.0.1", 12802, 1)


async def test_an_address_stays_while_the_name_has_it_and_when_nothing_answers() -> None:
    _, told = await followed(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"], GONE, [], OSError("no name server"))
    assert told == ["10.0.0.1"]


async def test_another_address_is_told_once() -> None:
    _, told = await followed(["10.0.0.1"], ["10.0.0.3"], ["10.0.0.3"], ["fd00::1"])
    assert told == ["10.0.0.1", "10.0.0.3", "fd00::1"]


async def test_a_lasting_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await followed(GONE, GONE, GONE, ["10.0.0.1"], GONE, GONE)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the web API's name session-pools-web is not found"
    ] * 2


async def test_until_it_is_found_requests_go_where_nobody_answers() -> None:
    server = Lookup(WEB, lambda: None).server
    assert server is not None
    with pytest.raises(ConnectionRefusedError), socket.create_connection((server.address, server.port), 5):
        pass


async def test_without_a_web_api_nothing_is_asked() -> None:
    none = Lookup(None, lambda: None, Names(GONE).resolve)
    await asyncio.wait_for(none.run(), 5)
    assert none.server is None


async def test_the_system_knows_addresses_and_this_machine() -> None:
    assert await addresses(WebApi("10.1.2.3", 80)) == ["10.1.2.3"]
    assert {"127.0.0.1", "::1"} & set(await addresses(WebApi("localhost", 80)))
