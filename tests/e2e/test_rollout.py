"""New code under load: whatever becomes of it, callers are answered, by as many sessions as they were promised."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest

from support.caller import Caller, Load, caller, service_url
from support.cluster import apply, wait_for
from support.onlooker import looked_at
from support.pools import READY_SECONDS, WORKERS, Json, Pool, publish, session_pool, web_service

AT_ONCE_SECONDS: Final = 10.0  # what is there already has to be found, not to be started
ISOLATIONS: Final = {"single": "Pod", "forked": "Process"}


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


def answering(answer: str) -> str:
    """Code that takes 20 ms and says this."""
    return f"import time\n\n\ndef predict(x: float = 0) -> str:\n    time.sleep(0.02)\n    return {answer!r}\n"


def calls(client: Caller, pool: Pool, seconds: int) -> Load:
    arguments = ("--connections", "4", "--rate", "20", "--seconds", str(seconds))
    return client.load(service_url(pool.namespace, pool.name), {"x": 1}, *arguments)


def roll_out(pool: Pool, code: str) -> None:
    apply(web_service(pool.name, code), namespace=pool.namespace)


def test_old_sessions_serve_while_a_revision_fails_and_a_good_one_goes_on_and_a_revert_is_instant(
    restricted: str, client: Caller
) -> None:
    pools = [
        publish(restricted, web_service(name, answering("first")), session_pool(name, 2, 2, isolation=isolation))
        for name, isolation in ISOLATIONS.items()
    ]
    for pool in pools:
        pool.until_success()
    loads = [calls(client, pool, 45) for pool in pools]
    good = [pool.lives() for pool in pools]
    fails(pools, good, "no model in this one")
    for pool in pools:
        roll_out(pool, answering("second"))
    for pool in pools:
        until_rolled_out(pool, READY_SECONDS)
    better = [pool.lives() for pool in pools]
    assert not any(before.keys() & after.keys() for before, after in zip(good, better, strict=True))
    fails(pools, better, "nor in this one")
    began = time.monotonic()
    for pool in pools:
        roll_out(pool, answering("second"))
    for pool, sessions in zip(pools, better, strict=True):
        until_rolled_out(pool, AT_ONCE_SECONDS)
        wait_for(partial(has_lives, pool, sessions), AT_ONCE_SECONDS, "what failed is gone, and nothing else")
    print(f"reverted after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < AT_ONCE_SECONDS
    for load in loads:
        found = load.result()
        assert set(found["statuses"]) == {"200"}, found
        assert set(found["answers"]) == {"first", "second"}, found


def until_rolled_out(pool: Pool, seconds: float) -> None:
    """Waits until all four sessions are of the newest revision and nothing else is meant to happen."""

    def settled() -> bool:
        conditions = [pool.condition(each)["status"] for each in ("Ready", "Reconciling", "Stalled")]
        wanted = {"desired": 4, "ready": 4, "updated": 4, "old": 0}
        return conditions == ["True", "False", "False"] and pool.status()["sessions"] == wanted

    wait_for(settled, seconds, f"{pool.name} is rolled out")


def has_lives(pool: Pool, lives: dict[str, int]) -> bool:
    return pool.lives() == lives


def fails(pools: list[Pool], serving: list[dict[str, int]], why: str) -> None:
    """Rolls out code that raises; it is said, and the sessions that serve stay."""
    for pool in pools:
        roll_out(pool, f"raise RuntimeError({why!r})\n")
    for pool, sessions in zip(pools, serving, strict=True):
        status = pool.until_stalled("RevisionFailed", 60)
        assert f"RuntimeError: {why}" in pool.condition("Stalled")["message"]
        assert pool.condition("Ready")["status"] == "True"
        assert (status["state"], status["sessions"]["old"], status["sessions"]["updated"]) == ("Success", 4, 0)
        assert any(f"RuntimeError: {why}" in message for message in pool.messages())
        assert sessions.items() <= pool.lives().items()  # all of them, none started again


@pytest.mark.parametrize(
    ("update", "floor", "most_pods"),
    [({"maxSurge": 1, "maxUnavailable": 0}, 2, 3), ({"maxSurge": 0, "maxUnavailable": 1}, 1, 2)],
    ids=["by surge", "without surge"],
)
def test_a_rollout_under_load_keeps_enough_sessions_ready_and_no_more_slots_open_than_the_maximum(
    restricted: str, client: Caller, update: Json, floor: int, most_pods: int
) -> None:
    name = f"full-{floor}"
    pool = publish(restricted, web_service(name, answering("old")), session_pool(name, 2, 2, update=update))
    pool.until_success()
    before = pool.lives()
    with looked_at(pool) as seen:
        load = calls(client, pool, 20)
        time.sleep(1)
        roll_out(pool, answering("new"))
        wait_for(lambda: pool.condition("Reconciling")["status"] == "True", 20, "the rollout has begun")
        until_rolled_out(pool, READY_SECONDS)
        found = load.result()
    assert set(found["statuses"]) == {"200"}, found
    assert set(found["answers"]) == {"old", "new"}, found
    assert not before.keys() & pool.lives().keys()
    assert seen.fewest_ready >= floor
    assert seen.most_pods == most_pods
    assert seen.most_open == 2
    assert seen.looks_at_slots > 100
