"""Passwords are compared in threads, few at a time, and nobody learns from the time it takes who exists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import argon2
import pytest

from sessionpools.web.auth import passwords
from sessionpools.web.auth.errors import TooManyAttempts
from sessionpools.web.auth.passwords import Passwords, hash_password, problem_with_hash
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
    with pytest.raises(ValueError, match="at most 1024"):
        hash_password("x" * 1025)
    with pytest.raises(ValueError, match="empty"):
        hash_password("")


async def test_a_hash_that_is_none_matches_nothing(checker: Passwords) -> None:
    assert not await checker.matches("secret", "secret")


def test_hashes_of_one_password_differ_unless_the_salt_is_given() -> None:
    assert hash_password("secret") != hash_password("secret")
    assert hash_password("secret", salt=b"0" * 16) == hash_password("secret", salt=b"0" * 16)


def test_what_the_command_line_makes_may_stand_in_a_users_file() -> None:
    assert problem_with_hash(hashed("correct horse")) == ""


def _hash_with(**parameters: int) -> str:
    given = {"time_cost": 2, "memory_cost": 19 * 1024, "parallelism": 1} | parameters
    return argon2.PasswordHasher(**given).hash("secret")


def test_a_hash_of_the_least_strength_may_stand_in_a_users_file() -> None:
    assert problem_with_hash(_hash_with()) == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("secret", "is no argon2 hash"),
        ("$2b$12$abcdefghijklmnopqrstuv", "is no argon2 hash"),
        ("", "is no argon2 hash"),
        (_hash_with(memory_cost=1024), "is too weak"),
        (_hash_with(time_cost=1), "is too weak"),
        ("$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHRzYWx0$" + "A" * 43, "is too costly"),
        ("$argon2id$v=19$m=65536,t=1000,p=4$c2FsdHNhbHRzYWx0$" + "A" * 43, "is too costly"),
        ("$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$" + "A" * 43, "is argon2i: use argon2id"),
    ],
)
def test_a_hash_that_would_not_do_is_refused_and_not_repeated(text: str, problem: str) -> None:
    said = problem_with_hash(text)
    assert said.startswith(problem)
    assert not text or text not in said
