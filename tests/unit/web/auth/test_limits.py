"""Guessing passwords is slow, for whoever guesses; the owner of an account gets in all the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionpools.web.auth import limits
from sessionpools.web.auth.errors import TooManyAttempts
from sessionpools.web.auth.limits import PER_ADDRESS, PER_NAME, Bucket, LoginLimit, Rate
from support.auth import DAY, Clock

HOME, ATTACKER = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def limit(clock: Clock) -> LoginLimit:
    return LoginLimit(clock=clock)


def fail(limit: LoginLimit, name: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        limit.admit(name, address)


def succeed(limit: LoginLimit, name: str, address: str) -> None:
    limit.succeeded(limit.admit(name, address))


def wait(limit: LoginLimit, name: str, address: str) -> int:
    """Seconds until a login is let in; 0: it is (and takes a token)."""
    try:
        limit.admit(name, address)
    except TooManyAttempts as error:
        return error.retry_after
    return 0


def test_ten_failures_from_an_address_are_let_in_and_then_one_each_20_seconds(limit: LoginLimit, clock: Clock) -> None:
    for number in range(10):
        fail(limit, f"user-{number}", ATTACKER)
    assert wait(limit, "another", ATTACKER) == 20
    clock.pass_by(19)
    assert wait(limit, "another", ATTACKER) == 1
    clock.pass_by(1)
    assert wait(limit, "another", ATTACKER) == 0
    assert wait(limit, "another", ATTACKER) == 20


def test_other_addresses_are_not_concerned(limit: LoginLimit) -> None:
    fail(limit, "ada", ATTACKER, 10)
    assert wait(limit, "ada", HOME) == 0


def test_a_name_that_many_addresses_guess_at_is_slowed_down(limit: LoginLimit, clock: Clock) -> None:
    for number in range(30):
        fail(limit, "admin", f"198.51.100.{number}")
    assert wait(limit, "admin", "203.0.113.1") == 3
    clock.pass_by(3)
    assert wait(limit, "admin", "203.0.113.1") == 0


def test_one_attacker_alone_is_never_in_the_way_of_a_name(limit: LoginLimit, clock: Clock) -> None:
    for _ in range(600):
        wait(limit, "admin", ATTACKER)
        clock.pass_by(1)
        if int(clock.now) % 60 == 0:
            succeed(limit, "admin", f"203.0.113.{int(clock.now) // 60 % 250}")


def test_where_one_has_logged_in_before_attackers_elsewhere_are_not_in_the_way(limit: LoginLimit, clock: Clock) -> None:
    succeed(limit, "admin", HOME)
    for number in range(30):
        fail(limit, "admin", f"198.51.100.{number}")
    assert wait(limit, "admin", "203.0.113.1") > 0
    assert wait(limit, "admin", HOME) == 0


def test_where_one_has_logged_in_before_a_program_behind_the_same_proxy_is_not_in_the_way(limit: LoginLimit) -> None:
    succeed(limit, "admin", HOME)
    fail(limit, "robot", HOME, 10)
    assert wait(limit, "robot", HOME) > 0
    assert wait(limit, "admin", HOME) == 0


def test_where_one_has_logged_in_before_guessing_is_slow_too(limit: LoginLimit) -> None:
    succeed(limit, "admin", HOME)
    fail(limit, "admin", HOME, 10)
    assert wait(limit, "admin", HOME) == 20


def test_logins_that_succeed_cost_nothing(limit: LoginLimit) -> None:
    for number in range(100):
        succeed(limit, "ada", HOME)
        succeed(limit, "ada", f"203.0.113.{number}")
        succeed(limit, f"user-{number}", HOME)


def test_logins_that_are_still_being_verified_count(limit: LoginLimit) -> None:
    attempts = [limit.admit("ada", HOME) for _ in range(10)]
    assert wait(limit, "ada", HOME) == 20
    for attempt in attempts:
        limit.succeeded(attempt)
    assert wait(limit, "ada", HOME) == 0


def test_what_came_to_no_answer_is_given_back(limit: LoginLimit) -> None:
    for _ in range(100):
        limit.forget(limit.admit("ada", HOME))


def test_a_refused_login_takes_nothing(limit: LoginLimit, clock: Clock) -> None:
    fail(limit, "ada", ATTACKER, 10)
    for _ in range(100):
        assert wait(limit, "ada", ATTACKER) == 20
    clock.pass_by(20)
    assert wait(limit, "ada", ATTACKER) == 0


def test_no_attack_locks_anybody_out_for_long(limit: LoginLimit, clock: Clock) -> None:
    for _ in range(50):
        for number in range(250):
            wait(limit, "admin", f"198.51.100.{number}")
        clock.pass_by(1)
    clock.pass_by(3)
    assert wait(limit, "admin", "203.0.113.1") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:0::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_an_address_is_what_one_customer_has(limit: LoginLimit, one: str, other: str, same: bool) -> None:
    for number in range(10):
        fail(limit, f"user-{number}", one)
    assert (wait(limit, "ada", other) > 0) is same


def test_memory_is_bounded_however_many_names_and_addresses_there_are(
    limit: LoginLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENTRIES_AT_MOST", 100)
    for number in range(1000):
        fail(limit, f"user-{number}", f"2001:db8:{number:x}::1")
        succeed(limit, f"user-{number}", f"2001:db8:{number:x}::1")
    assert [len(each) for each in (limit._addresses, limit._names, limit._pairs)] == [100, 100, 100]
    fail(limit, "user-999", "2001:db8:1::1", 10)
    assert wait(limit, "user-5", "2001:db8:1::1") > 0, "the latest are kept"


@given(
    st.lists(st.floats(0, DAY), min_size=1, max_size=60),
    st.sampled_from([PER_ADDRESS, PER_NAME, Rate(1, 0.5)]),
)
def test_a_bucket_never_gives_more_than_its_rate(steps: list[float], rate: Rate) -> None:
    bucket, now, taken = Bucket(rate), 0.0, 0
    for step in steps:
        now += step
        while bucket.wait(now) == 0:
            bucket, taken = bucket.less_one(now), taken + 1
        assert 0 < bucket.wait(now) <= rate.seconds_per_token + 1e-6
    assert taken <= rate.burst + now / rate.seconds_per_token + 1e-6


def test_what_is_given_back_to_a_full_bucket_is_not_kept() -> None:
    bucket = Bucket(Rate(1, 10.0)).less_one(100.0).plus_one().plus_one()
    assert bucket.less_one(100.0).wait(100.0) == 10.0
