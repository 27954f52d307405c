"""Which pool has which of HAProxy's backends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessionpools.gateway.backends import Allocation, allocate, release
from sessionpools.gateway.model import Route


def route(uid: str, seconds: int = 10) -> Route:
    return Route("demo", f"service-{uid}", "v1", f"pool-{uid}", uid, 100, seconds, 60)


def routes(count: int, seconds: int = 10) -> list[Route]:
    return [route(f"uid-{n:03}", seconds) for n in range(count)]


def test_a_pool_gets_a_backend_of_its_queue_timeout() -> None:
    allocation = allocate(Allocation(), [route("a"), route("b", 3)])
    assert allocation.backend_of(route("a")) == "q10-1"
    assert allocation.backend_of(route("b", 3)) == "q3-1"


def test_no_two_pools_have_one_backend() -> None:
    wanted = routes(40)
    allocation = allocate(Allocation(), wanted)
    assert len({allocation.backend_of(r) for r in wanted} - {""}) == 40


def test_two_services_of_one_pool_have_one_backend() -> None:
    first, second = route("a"), replace(route("a"), service="other")
    allocation = allocate(Allocation(), [first, second])
    assert allocation.backend_of(first) == allocation.backend_of(second) != ""


def test_a_service_without_a_pool_has_no_backend() -> None:
    orphan = replace(route(""), pool="")
    assert allocate(Allocation(), [orphan]).backend_of(orphan) == ""


def test_the_order_of_the_routes_does_not_matter() -> None:
    wanted = routes(30)
    assert allocate(Allocation(), wanted) == allocate(Allocation(), wanted[::-1])


def test_pools_that_come_and_go_do_not_move_others() -> None:
    before = allocate(Allocation(), routes(5))
    after = allocate(before, [*routes(5)[2:], route("new")])
    assert all(after.backend_of(r) == before.backend_of(r) for r in routes(5)[2:])


def test_there_are_spares_from_the_beginning() -> None:
    assert list(allocate(Allocation(), []).backends) == [f"q10-{n}" for n in range(1, 17)]


@pytest.mark.parametrize(
    ("seconds", "pools", "backends"), [(10, 16, 16), (10, 17, 32), (10, 33, 64), (3, 4, 4), (3, 5, 8)]
)
def test_the_backends_are_doubled_when_the_spares_are_used_up(seconds: int, pools: int, backends: int) -> None:
    allocation = Allocation()
    for count in range(pools + 1):
        allocation = allocate(allocation, routes(count, seconds))
    assert sum(name.startswith(f"q{seconds}-") for name in allocation.backends) == backends


def test_only_new_backends_need_a_reload() -> None:
    running = allocate(Allocation(), routes(15))
    assert not allocate(running, routes(16)).needs_reload(running)
    assert allocate(running, routes(17)).needs_reload(running)


def test_the_backend_of_a_pool_that_is_gone_is_not_lent_before_it_is_quiet() -> None:
    gone, new = route("gone"), route("new")
    allocation = allocate(Allocation(), [gone])
    kept = release(allocation, [], quiet=())
    assert allocate(kept, [new]).backend_of(new) == "q10-2"
    freed = release(allocation, [], quiet={"q10-1"})
    assert allocate(freed, [new]).backend_of(new) == "q10-1"


def test_a_backend_in_use_is_not_taken_away_when_it_is_quiet() -> None:
    allocation = allocate(Allocation(), [route("a")])
    assert release(allocation, [route("a")], quiet={"q10-1"}) == allocation


def test_a_pool_whose_queue_timeout_changes_moves_and_its_old_backend_waits_to_be_quiet() -> None:
    allocation = allocate(allocate(Allocation(), [route("a")]), [route("a", 3)])
    assert allocation.backend_of(route("a", 3)) == "q3-1"
    assert allocation.backends["q10-1"] == "a"
    assert release(allocation, [route("a", 3)], quiet={"q10-1"}).backends["q10-1"] == ""


def test_a_foreign_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="stats"):
        allocate(Allocation({"stats": ""}), [])
