"""What may stand in a users file in place of a password."""

from __future__ import annotations

import argon2
import pytest

from sessionpools.core.passwords import hash_password, problem_with_hash
from support.auth import hashed


def test_a_hash_follows_from_password_and_salt() -> None:
    assert hash_password("secret", b"0" * 16) == hash_password("secret", b"0" * 16)
    assert hash_password("secret", b"0" * 16) != hash_password("secret", b"1" * 16)
    assert hash_password("secret", b"0" * 16).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_no_password_is_empty_or_endless() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        hash_password("x" * 1025, b"0" * 16)
    with pytest.raises(ValueError, match="empty"):
        hash_password("", b"0" * 16)


def test_what_the_command_line_makes_may_stand_in_a_users_file() -> None:
    assert problem_with_hash(hashed("correct horse")) == ""


def _hash_with(time_cost: int = 2, memory_cost: int = 19 * 1024) -> str:
    hasher = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_cost, parallelism=1)
    return hasher.hash("secret", salt=b"0" * 16)


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
