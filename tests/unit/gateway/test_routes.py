"""Which slots are open and which services are published, given what the cluster holds."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import Isolation, SessionPool
from sessionpools.core.model import PodView
from sessionpools.gateway.model import Route
from sessionpools.gateway.routes import routes
from support.builders import pod, pool, process_pool, service, target_of


def pod_of(pool_: SessionPool, slot: int = 0, *, created_at: float = 0.0, address: str = "", **fields: Any) -> PodView:
    view = pod(target_of(pool_), pool_, slot, **fields)
    owner = replace(view.owner, pool_uid=pool_.metadata.uid)
    return replace(view, owner=owner, created_at=created_at, address=address or view.address)


def only(*args: Any) -> Route:
    found = routes(*args)
    assert len(found) == 1
    return found[0]


def servers(route: Route) -> list[str]:
    return [slot.server.split(":", 1)[0] + ":" + slot.server.rsplit(":", 1)[1] for slot in route.slots]


def test_a_published_service_is_routed_to_the_ready_pod_of_its_pool() -> None:
    p = pool(queue={"maxLength": 7, "timeoutSeconds": 3}, requestTimeoutSeconds=9)
    found = only([p], [service()], [pod_of(p)], {})
    assert (found.namespace, found.service, found.version) == ("demo", "Score", "v1")
    assert (found.pool, found.pool_uid) == ("score", "pool-uid")
    assert (found.queue_length, found.queue_seconds, found.request_seconds) == (7, 3, 9)
    (slot,) = found.slots
    assert slot.server.startswith("worker-1:score-")
    assert (slot.address, slot.port, slot.rank) == ("10.0.0.1", 9000, 1)


def test_without_its_web_service_a_pool_is_not_routed() -> None:
    p = pool()
    assert routes([p], [], [pod_of(p)], {}) == ()
    assert routes([p], [service(version="v2")], [pod_of(p)], {})[0].pool == ""


def test_a_web_service_that_is_being_deleted_is_not_routed() -> None:
    leaving = service(meta={"deletionTimestamp": datetime.now(UTC)})
    assert routes([pool()], [leaving], [], {}) == ()


def test_a_service_whose_pool_is_gone_or_going_is_published_without_a_pool() -> None:
    leaving = pool(meta={"deletionTimestamp": datetime.now(UTC)})
    for pools in ([], [leaving]):
        found = only(pools, [service()], [pod_of(leaving)], {})
        assert (found.pool, found.pool_uid, found.slots) == ("", "", ())


def test_of_two_pools_of_one_service_the_oldest_serves() -> None:
    old = pool(meta={"name": "old", "uid": "old", "creationTimestamp": "2026-01-01T00:00:00Z"})
    new = pool(meta={"name": "new", "uid": "new", "creationTimestamp": "2026-01-02T00:00:00Z"})
    found = only([new, old], [service()], [pod_of(new), pod_of(old, address="10.0.0.9")], {})
    assert found.pool == "old"
    assert [slot.address for slot in found.slots] == ["10.0.0.9"]


def test_two_web_services_of_one_key_are_one_route() -> None:
    two = [service(), service(meta={"name": "other", "uid": "other"})]
    assert len(routes([pool()], two, [], {})) == 1


def test_case_and_namespace_tell_services_apart() -> None:
    p = pool()
    services = [
        service(),
        service(meta={"name": "b", "uid": "b"}, name="score"),
        service(meta={"namespace": "other", "uid": "c"}),
    ]
    found = {(r.namespace, r.service): r.pool for r in routes([p], services, [pod_of(p)], {})}
    assert found == {("demo", "Score"): "score", ("demo", "score"): "", ("other", "Score"): ""}


@pytest.mark.parametrize(
    "changed",
    [{"ready": False}, {"deleting": True}, {"ended": True}],
    ids=["not ready", "deleted", "ended"],
)
def test_the_slots_of_a_pod_that_cannot_serve_are_closed(changed: dict[str, Any]) -> None:
    p = pool()
    assert only([p], [service()], [replace(pod_of(p), **changed)], {}).slots == ()


@pytest.mark.parametrize("address", ["", "10.0.0.1;quit", "host.example", "fe80::1%eth0"])
def test_a_pod_without_an_ip_address_is_no_server(address: str) -> None:
    p = pool()
    assert only([p], [service()], [replace(pod_of(p), address=address)], {}).slots == ()


def test_a_name_that_kubernetes_would_not_give_reaches_no_command() -> None:
    p = pool()
    view = pod_of(p)
    odd = replace(view, owner=replace(view.owner, node="worker;del server"))
    assert only([p], [service()], [odd], {}).slots == ()


def test_a_pod_of_another_pool_or_namespace_gets_no_call() -> None:
    p = pool()
    other = replace(pod_of(p), owner=replace(pod_of(p).owner, pool_uid="another"))
    elsewhere = replace(pod_of(p), namespace="elsewhere")
    assert only([p], [service()], [other, elsewhere], {}).slots == ()


def test_load_spreads_over_the_nodes_before_it_climbs() -> None:
    p = process_pool(initial=2)
    pods = [pod_of(p, on=node) for node in ("b", "a", "c")]
    assert servers(only([p], [service()], pods, {})) == ["a:0", "b:0", "c:0", "a:1", "b:1", "c:1"]


def test_ranks_are_unique_and_rise_even_on_many_nodes() -> None:
    p = process_pool(initial=2)
    pods = [pod_of(p, on=f"node-{n:04}") for n in range(1500)]
    ranks = [slot.rank for slot in only([p], [service()], pods, {}).slots]
    assert len(ranks) == 3000
    assert all(a < b for a, b in itertools.pairwise(ranks))


def test_until_a_process_pod_has_said_its_maximum_its_initial_slots_are_open() -> None:
    p = process_pool(initial=2, maximum=4)
    assert servers(only([p], [service()], [pod_of(p)], {})) == ["worker-1:0", "worker-1:1"]


def test_growth_opens_slots_only_as_far_as_the_pod_has_read_the_new_maximum() -> None:
    p = process_pool(initial=1, maximum=8)
    view = pod_of(p)
    assert len(only([p], [service()], [view], {view.uid: 4}).slots) == 4
    assert len(only([p], [service()], [view], {view.uid: 8}).slots) == 8


def test_a_shrunk_maximum_closes_the_highest_slots_at_once() -> None:
    p = process_pool(initial=1, maximum=2)
    view = pod_of(p)
    assert [slot.port for slot in only([p], [service()], [view], {view.uid: 8}).slots] == [9000, 9001]


def test_a_shrunk_maximum_closes_the_pods_with_the_highest_slots() -> None:
    p = pool(maximum=2)
    pods = [pod_of(p, slot, created_at=100.0 - slot) for slot in (3, 1, 0, 2)]
    found = only([p], [service()], pods, {})
    assert sorted(slot.server.split("-")[-2] for slot in found.slots) == ["0", "1"]


def test_a_new_revision_gets_the_slots_of_a_node_when_the_old_one_lets_go() -> None:
    p = process_pool(initial=2, maximum=3)
    old, new = pod_of(p, revision="old", created_at=1.0), pod_of(p, revision="new", created_at=2.0)
    seen = {old.uid: 3, new.uid: 3}
    both = only([p], [service()], [new, old], seen)
    assert {slot.server.split(":")[1] for slot in both.slots} == {old.name}
    after = only([p], [service()], [new, replace(old, deleting=True)], seen)
    assert {slot.server.split(":")[1] for slot in after.slots} == {new.name}
    assert len(after.slots) == 3


def test_a_pod_has_the_slots_of_its_own_isolation_whatever_its_pools_is_now() -> None:
    p = process_pool(initial=2, maximum=4)
    single = [pod_of(p, slot, revision="old", isolation=Isolation.POD, created_at=1.0) for slot in range(3)]
    new = pod_of(p, created_at=2.0)
    both = only([p], [service()], [*single, new], {new.uid: 4})
    ports = {(slot.server.split(":")[1], slot.port) for slot in both.slots}
    assert ports == {(one.name, 9000) for one in [*single, new]}
    assert len(both.slots) == 4
    back = pool(initial=2, maximum=4)
    whole = pod_of(back, revision="old", isolation=Isolation.PROCESS)
    assert len(only([back], [service()], [whole], {whole.uid: 4}).slots) == 4


def test_pods_are_counted_by_revision_also_those_that_older_ones_leave_no_room() -> None:
    p = pool(initial=2, maximum=2)
    old = [pod_of(p, slot, revision="old", created_at=1.0) for slot in (0, 1)]
    new, starting = pod_of(p, 0, revision="new", created_at=2.0), pod_of(p, 1, revision="new", ready=False)
    elsewhere = replace(pod_of(p, 2, revision="new"), namespace="elsewhere")
    found = only([p], [service()], [*old, new, starting, elsewhere], {})
    assert found.pods == (("new", 1), ("old", 2))
    assert {slot.server.split(":")[1] for slot in found.slots} == {one.name for one in old}


def test_pods_of_two_revisions_in_one_slot_have_ranks_of_their_own() -> None:
    p = pool(maximum=2)
    pods = [pod_of(p, revision="old", created_at=1.0), pod_of(p, revision="new", created_at=2.0)]
    assert [slot.rank for slot in only([p], [service()], pods, {}).slots] == [1, 2]


def test_a_pool_of_no_sessions_has_no_slot() -> None:
    assert only([pool(0, 0)], [service()], [pod_of(pool(0, 0))], {}).slots == ()


def test_the_order_of_what_is_given_changes_nothing() -> None:
    p = process_pool()
    pods = [pod_of(p, on=node) for node in ("a", "b", "c")]
    services = [service(), service(meta={"uid": "z"}, name="Z")]
    assert routes([p], services, pods, {}) == routes([p], services[::-1], pods[::-1], {})
