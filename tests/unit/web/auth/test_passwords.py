"""Passwords are compared in threads, few at a time, and nobody learns from the time it takes who exists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from sessionpools.web.auth import passwords
from sessionpools.web.auth.errors import TooManyAttempts
from sessionpools.web.auth.passwords import Passwords
from support.auth import hashed
from support.waiting import until


@pytest.fixture
def checker() -> Iterator[Passwords]:
    checker = Passwords()
    yield checker
    checker.close()


async def test_only_the_password_that_was_hashed_matches(checker: Passwords) -> None:
    assert await checker.matches("correct horse", hashed("correct horse"))
    assert not await checker.matches("correct horsf", hashed("correct horse"))
    assert not await checker.matches("", hashed("correct horse"))


async def test_a_password_may_have_any_characters(checker: Passwords) -> None:
    assert await checker.matches("pässwörd \U0001f40e\x00", hashed("pässwörd \U0001f40e\x00"))


async def test_what_is_no_text_is_nobodys_password(checker: Passwords) -> None:
    assert not await checker.matches("\ud800", hashed("correct horse"))


async def test_no_password_is_that_of_an_unknown_user(checker: Passwords) -> None:
    assert not await checker.matches("nobody's", None)


async def test_a_user_that_does_not_exist_costs_as_much_as_one_that_does(checker: Passwords) -> None:
    async def cost(hashed: str | None) -> float:
        began = time.process_time()
        await checker.matches("wrong", hashed)
        return time.process_time() - began

    known = [await cost(hashed("correct horse")) for _ in range(3)]
    unknown = [await cost(None) for _ in range(3)]
    assert min(unknown) > 0.5 * min(known)


async def test_the_event_loop_goes_on_while_a_password_is_compared(checker: Passwords) -> None:
    turns = 0
    comparing = asyncio.create_task(checker.matches("correct horse", hashed("correct horse")))
    while not comparing.done():
        turns += 1
        await asyncio.sleep(0)
    assert await comparing
    assert turns > 100


async def test_who_comes_when_too_many_wait_is_told_to_come_again(
    checker: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "WAITING_AT_MOST", 1)
    waiting = [asyncio.create_task(checker.matches("wrong", None)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyAttempts) as refused:
        await checker.matches("correct horse", hashed("correct horse"))
    assert refused.value.retry_after == 1
    assert await asyncio.gather(*waiting) == [False, False, False]
    assert await checker.matches("correct horse", hashed("correct horse"))


async def test_callers_that_go_away_give_their_place_back(checker: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_AT_MOST", 1)
    gone = [asyncio.create_task(checker.matches("wrong", None)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await until(lambda: checker._pending == 0, "the threads to have done what they had begun")
    assert await checker.matches("correct horse", hashed("correct horse"))


async def test_what_nobody_types_is_not_hashed(checker: Passwords) -> None:
    assert not await checker.matches("x" * 1025, hashed("correct horse"))


async def test_a_hash_that_is_none_matches_nothing(checker: Passwords) -> None:
    assert not await checker.matches("secret", "secret")
