"""What changes, given what HAProxy has and what it should have."""

from pathlib import Path

import pytest

from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.config import server_options
from sessionpools.gateway.model import OpenSlot, Route
from sessionpools.gateway.runtime import Refused, Server
from sessionpools.gateway.sync import (
    Running,
    Wanted,
    changes,
    deletions,
    excess,
    questions,
    running_of,
    wanted_of,
)

MAP = Path("/run/pools.map")


def slot(n: int = 0, *, pod: str = "pod", address: str = "10.0.0.1", rank: int = 0) -> OpenSlot:
    return OpenSlot(f"node:{pod}:{n}", address, 9000 + n, rank or n * 1000 + 1)


def route(*slots: OpenSlot, queue_seconds: int = 10, pool: str = "score") -> Route:
    return Route("demo", "Score", "v1", pool, "uid" if pool else "", 100, queue_seconds, 60, slots)


def running(*servers: Server, **entries: str) -> Running:
    return Running("1@1", frozenset(["q10-1"]), {(s.backend, s.name): s for s in servers}, dict(entries))


def server(of: OpenSlot, *, backend: str = "q10-1", number: int = 0, opened: bool = True) -> Server:
    return Server(backend, of.server, number or of.rank, of.address, of.port, opened)


def wanted(*slots: OpenSlot, **entries: str) -> Wanted:
    return Wanted({("q10-1", each.server): each for each in slots}, entries)


def commands(want: Wanted, have: Running) -> list[str]:
    return [command for change in changes(want, have, MAP) for command in change.commands]


def test_what_is_right_is_left_alone() -> None:
    assert commands(wanted(slot(0), slot(1), a="x"), running(server(slot(0)), server(slot(1)), a="x")) == []


def test_slots_close_first_then_open_then_the_map_changes() -> None:
    old, new = slot(pod="old"), slot(1, pod="new")
    assert commands(wanted(new, a="x", b="y"), running(server(old), b="z", c="gone")) == [
        "set server q10-1/node:old:0 state maint",
        f"add server q10-1/node:new:1 10.0.0.1:9001 id 1001 {server_options(new)}",
        "enable health q10-1/node:new:1",
        "set server q10-1/node:new:1 state ready",
        "del map /run/pools.map c",
        "add map /run/pools.map a x",
        "set map /run/pools.map b y",
    ]


def test_a_slot_that_opens_again_keeps_its_server() -> None:
    assert commands(wanted(slot()), running(server(slot(), opened=False))) == [
        "set server q10-1/node:pod:0 state ready"
    ]


def test_a_pod_of_the_same_name_at_another_address_is_never_called_at_the_old_one() -> None:
    assert commands(wanted(slot(address="10.0.0.2")), running(server(slot()))) == [
        "set server q10-1/node:pod:0 state maint",
        "set server q10-1/node:pod:0 addr 10.0.0.2 port 9000",
        "set server q10-1/node:pod:0 state ready",
    ]


def test_the_id_of_a_server_that_is_there_is_no_reason_to_change_it() -> None:
    assert commands(wanted(slot(rank=7)), running(server(slot(), number=3))) == []


def test_a_new_server_takes_the_next_id_while_one_that_closes_has_its_own() -> None:
    old = server(slot(pod="old"), opened=False)
    first = commands(wanted(slot(pod="a"), slot(pod="b")), running(old))
    assert [line.split(" id ")[1].split()[0] for line in first if line.startswith("add ")] == ["2", "3"]


def test_two_ways_to_write_an_address_are_one_address() -> None:
    at = Server("q10-1", slot().server, 1, "::ffff:10.0.0.1", 9000, True)
    assert commands(wanted(slot(address="::ffff:a00:1")), running(at)) == []


def test_an_ipv6_address_is_written_as_haproxy_reads_it() -> None:
    assert " [2001:db8::1]:9000 " in commands(wanted(slot(address="2001:db8::1")), running())[0]


def test_only_closed_servers_that_nobody_wants_are_deleted() -> None:
    closed, open_, back = slot(pod="closed"), slot(pod="open"), slot(pod="back")
    have = running(server(closed, opened=False), server(open_), server(back, opened=False))
    assert [s.name for s in excess(wanted(back), have)] == ["node:closed:0"]


def test_changes_are_remembered_only_as_haproxy_confirms_them() -> None:
    have = running()
    (opening,) = changes(wanted(slot()), have, MAP)
    assert opening.confirmed(["New server registered.", "", ""])
    assert not opening.confirmed(["New server registered.", "", "No such server."])
    assert not opening.confirmed(["'id' : custom id 1 already used", "", ""])
    opening.apply(have)
    assert have.servers == {("q10-1", slot().server): server(slot())}
    (deletion,) = deletions(have.servers.values())
    assert not deletion.confirmed(["Server still has connections attached to it, cannot remove it."])
    assert deletion.confirmed(["Server deleted."])
    deletion.apply(have)
    assert have.servers == {}


def test_applying_all_changes_leaves_nothing_to_do() -> None:
    have = running(server(slot(pod="old")), server(slot(2), opened=False), b="z", c="gone")
    want = wanted(slot(2), slot(address="10.9.9.9"), a="x", b="y")
    for change in changes(want, have, MAP):
        change.apply(have)
    assert changes(want, have, MAP) == []
    assert have.map == {"a": "x", "b": "y"}


# --- what is wanted in which backend ----------------------------------------------------------------------------------


def test_the_slots_of_a_pool_are_wanted_in_its_backend() -> None:
    routes = [route(slot())]
    allocation = allocate(Allocation(), routes)
    name = allocation.backend_of(routes[0])
    want = wanted_of(routes, allocation, allocation.backends, ())
    assert list(want.slots) == [(name, slot().server)]
    assert want.map[routes[0].key].startswith(f"{name}|")


def test_a_backend_that_haproxy_does_not_have_yet_is_named_to_nobody() -> None:
    routes = [route(slot())]
    want = wanted_of(routes, allocate(Allocation(), routes), ["q10-99"], ())
    assert want.slots == {}
    assert want.map[routes[0].key].startswith("-|")


def test_a_pool_that_moved_keeps_its_slots_in_the_old_backend_while_calls_wait_there() -> None:
    before, after = [route(slot())], [route(slot(), queue_seconds=3)]
    allocation = allocate(allocate(Allocation(), before), after)
    old, new = allocation.backend_of(before[0]), allocation.backend_of(after[0])
    want = wanted_of(after, allocation, allocation.backends, ())
    assert {backend for backend, _ in want.slots} == {old, new}
    assert want.map[after[0].key].startswith(f"{new}|")
    want = wanted_of(after, allocation, allocation.backends, {old})
    assert {backend for backend, _ in want.slots} == {new}


def test_the_web_api_has_one_server_whose_address_changes() -> None:
    there = Server("web", "web", 1, "10.0.0.1", 12802, True)
    have = Running("1@1", frozenset(), {("web", "web"): there})
    web = OpenSlot("web", "10.0.0.2", 12802, 1)
    want = wanted_of([], Allocation(), (), (), web=web)
    assert commands(want, have) == [
        "set server web/web state maint",
        "set server web/web addr 10.0.0.2 port 12802",
        "set server web/web state ready",
    ]
    assert excess(want, have) == []
    for change in changes(want, have, MAP):
        change.apply(have)
    assert changes(want, have, MAP) == []


def test_a_haproxy_without_a_server_for_the_web_api_is_not_given_one() -> None:
    """It has it from its files."""
    want = wanted_of([], Allocation(), (), (), web=OpenSlot("web", "10.0.0.2", 12802, 1))
    assert commands(want, running()) == []


def test_a_service_without_a_pool_has_no_slot_anywhere() -> None:
    gone = route(pool="")
    allocation = allocate(Allocation(), [route(slot())])
    want = wanted_of([gone], allocation, allocation.backends, ())
    assert want.slots == {}
    assert want.map[gone.key].startswith("-|")


# --- what HAProxy says that it has ------------------------------------------------------------------------------------

STATE = "1\n# be_name srv_id srv_name srv_addr srv_admin_state srv_port\n"
ANSWERS = (
    "Pid: 7\nStart_time_sec: 9",
    "# name\nq10-1\nq10-2\nsuccessor\nweb",
    f"{STATE}q10-1 1 n:p:0 10.0.0.1 0 9000\nweb 1 web 10.0.0.2 0 12802\nsuccessor 1 gateway - 0 0",
    "0x1 a b|c",
    "proc.keys: type=str value=<abc>",
)


def test_what_haproxy_has_is_read_from_its_answers() -> None:
    found = running_of(ANSWERS, {"q10-1", "q30-1"})
    assert (found.process, sorted(found.backends), found.map, found.keys) == ("7@9", ["q10-1"], {"a": "b|c"}, "abc")
    assert set(found.servers) == {("q10-1", "n:p:0"), ("web", "web")}
    assert found.open_servers() == {"q10-1": 1, "web": 1}
    assert len(questions(MAP)) == len(ANSWERS)


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_an_answer_of_another_shape_is_no_answer(number: int) -> None:
    answers = list(ANSWERS)
    answers[number] = "Unknown command"
    with pytest.raises(Refused):
        running_of(answers, ())
