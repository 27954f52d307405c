"""The store's index: pools and web services find each other by name and version, whatever came and went before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sessionpools.api.v1alpha1 import SessionPool, WebService
from sessionpools.controller.store import SHOWN_WITHIN_SECONDS, Key, Kind, Store
from sessionpools.core.model import Failure, NodeView, PodView
from support import builders


@pytest.fixture
def enqueued() -> list[Key]:
    return []


@pytest.fixture
def store(enqueued: list[Key]) -> Store:
    unused: Any = None
    return Store(unused, [], enqueued.append)


def pool(name: str, served: str = "Score", namespace: str = "a", uid: str = "") -> SessionPool:
    spec = {"serviceName": served, "serviceVersion": "v1", "initialPoolSize": 1, "maxPoolSize": 1}
    metadata = {"name": name, "namespace": namespace, "uid": uid or name}
    return SessionPool.model_validate({"metadata": metadata, "spec": spec})


def service(name: str, served: str = "Score", namespace: str = "a") -> WebService:
    spec = {"name": served, "version": "v1", "code": {"inline": {"s.py": "x"}}, "entrypoint": "s:f"}
    metadata = {"name": name, "namespace": namespace, "uid": name}
    return WebService.model_validate({"metadata": metadata, "spec": spec})


P = pool("score")


def told(of: Store, kind: Kind) -> Callable[[Any, Any], None]:
    """How the reflector tells of a change."""
    return (of.pools if kind is Kind.POOL else of.services)._on_change


def test_pools_of_one_service_are_found_by_namespace_name_and_version(store: Store) -> None:
    change = told(store, Kind.POOL)
    for each in (pool("one"), pool("two"), pool("lower", "score"), pool("one", namespace="b")):
        change(None, each)
    assert [each.metadata.name for each in store.pools_of(("a", "Score", "v1"))] == ["one", "two"]
    assert [each.metadata.name for each in store.pools_of(("a", "score", "v1"))] == ["lower"]
    assert store.pools_of(("a", "Score", "v2")) == []


def test_the_newest_state_of_an_object_is_found_and_none_of_one_that_is_gone(store: Store) -> None:
    change = told(store, Kind.POOL)
    first, second = pool("one", uid="1"), pool("one", uid="2")
    change(None, first)
    change(first, second)
    assert store.pools_of(("a", "Score", "v1")) == [second]
    moved = pool("one", "Other", uid="2")
    change(second, moved)
    assert store.pools_of(("a", "Score", "v1")) == []
    assert store.pools_of(("a", "Other", "v1")) == [moved]
    change(moved, None)
    assert store.pools_of(("a", "Other", "v1")) == []


def test_a_change_concerns_the_other_objects_of_its_key_only(store: Store, enqueued: list[Key]) -> None:
    told(store, Kind.SERVICE)(None, service("score"))
    told(store, Kind.SERVICE)(None, service("other", "Other"))
    told(store, Kind.POOL)(None, pool("mine"))
    told(store, Kind.POOL)(None, pool("other", "Other"))
    enqueued.clear()
    told(store, Kind.SERVICE)(service("score"), None)
    assert set(enqueued) == {Key(Kind.SERVICE, "a", "score"), Key(Kind.POOL, "a", "mine")}
    enqueued.clear()
    told(store, Kind.POOL)(pool("other", "Other"), None)
    assert set(enqueued) == {Key(Kind.POOL, "a", "other"), Key(Kind.SERVICE, "a", "other")}


def test_a_pod_that_was_created_and_never_shown_is_awaited_for_a_while_and_then_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for number in range(3):
        store.creation_sent(P, f"pod-{number}", "worker-1")
    assert store.awaits(P, "pod-0") and not store.awaits(P, "pod-3")
    now += SHOWN_WITHIN_SECONDS
    assert not store.awaits(P, "pod-0")
    store.creation_sent(P, "pod-3", "worker-1")
    assert list(store._created) == [("a", "pod-3")]


def test_a_pod_that_came_and_went_before_its_creation_was_answered_is_not_awaited(store: Store) -> None:
    p = builders.pool(1, 1)
    shown = builders.pod(builders.target_of(p), p, 0)
    store.creation_sent(p, shown.name, "worker-1")
    assert store.awaits(p, shown.name)
    store.pods._on_change(None, shown)
    store.pods._on_change(shown, None)
    assert not store.awaits(p, shown.name)


def test_a_pod_whose_creation_failed_is_not_awaited(store: Store) -> None:
    store.creation_sent(P, "pod-0", "worker-1")
    store.creation_failed(P, "pod-0")
    assert not store.awaits(P, "pod-0")


def test_what_is_awaited_of_a_pool_is_counted_by_node(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store.creation_sent(P, "pod-0", "worker-1")
    store.creation_sent(pool("other"), "other-0", "worker-1")
    now += SHOWN_WITHIN_SECONDS / 2
    store.creation_sent(P, "pod-1", "worker-1")
    store.creation_sent(P, "pod-2", "worker-2")
    assert store.awaited(P) == {"worker-1": 2, "worker-2": 1}
    assert store.awaited(P, but=["pod-2"]) == {"worker-1": 2}
    now += SHOWN_WITHIN_SECONDS / 2
    assert store.awaited(P) == {"worker-1": 1, "worker-2": 1}


class TestPodsThatLeave:
    """It is said of each once, when it begins to."""

    P = builders.pool(1, 1)
    POD = builders.pod(builders.target_of(P), P, 0)

    @pytest.fixture
    def left(self) -> list[str]:
        return []

    @pytest.fixture
    def changed(self, left: list[str]) -> Callable[[PodView | None, PodView | None], None]:
        unused: Any = None
        return Store(unused, [], lambda key: None, lambda pod: left.append(pod.uid)).pods._on_change

    def test_one_that_is_deleted_with_grace(self, changed: Any, left: list[str]) -> None:
        going = replace(self.POD, deleting=True)
        changed(None, self.POD)
        changed(self.POD, replace(self.POD, ready=False))
        assert left == []
        changed(self.POD, going)
        changed(going, None)
        assert left == [self.POD.uid]

    def test_one_that_is_deleted_at_once_or_replaced_under_its_name(self, changed: Any, left: list[str]) -> None:
        changed(None, self.POD)
        changed(self.POD, replace(self.POD, uid="other"))
        assert left == [self.POD.uid]
        changed(replace(self.POD, uid="other"), None)
        assert left == [self.POD.uid, "other"]

    def test_not_one_that_had_ended(self, changed: Any, left: list[str]) -> None:
        ended = replace(self.POD, ended=True)
        changed(self.POD, ended)
        changed(ended, None)
        assert left == []


def test_a_pod_that_was_created_again_is_awaited_from_then_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store.creation_sent(P, "pod-0", "worker-1")
    now += SHOWN_WITHIN_SECONDS / 2
    store.creation_sent(P, "pod-1", "worker-1")
    store.creation_sent(P, "pod-0", "worker-1")
    now += SHOWN_WITHIN_SECONDS / 2
    store.creation_sent(P, "pod-2", "worker-1")
    assert store.awaits(P, "pod-0")
    assert list(store._created) == [("a", "pod-1"), ("a", "pod-0"), ("a", "pod-2")]


def test_a_pod_that_was_shown_after_a_plan_was_made_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    p = builders.pool(1, 1)
    shown = builders.pod(builders.target_of(p), p, 0)
    held = {(shown.namespace, shown.name): shown}
    monkeypatch.setattr(store.pods, "get", lambda *key: held.get(key))
    assert store.has(p, shown.name) and not store.has(p, "another")
    assert not store.has(pool(p.metadata.name, namespace=shown.namespace, uid="made anew"), shown.name)
    held[shown.namespace, shown.name] = replace(shown, deleting=True)
    assert not store.has(p, shown.name)


def test_a_node_is_no_concern_of_a_pool_that_does_not_belong_there(
    store: Store, enqueued: list[Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(old: NodeView | None, new: NodeView | None) -> bool:
        enqueued.clear()
        store.nodes._on_change(old, new)  # type: ignore[union-attr]
        return bool(enqueued)

    p = builders.pool(1, 1, placement={"nodeSelector": {"disk": "ssd"}})
    monkeypatch.setattr(store.pools, "values", lambda: iter([p]))
    plain = builders.node("a")
    fitting = replace(plain, labels={"disk": "ssd"})
    cordoned = replace(plain, schedulable=False)
    assert not changed(None, plain) and not changed(plain, cordoned) and not changed(plain, None)
    assert changed(None, fitting) and changed(plain, fitting) and changed(fitting, plain) and changed(fitting, None)
    store.pods._on_change(None, builders.pod(builders.target_of(p), p, 0, on="a"))
    assert changed(plain, cordoned), "a session of the pool is there"


def test_a_pod_that_starts_is_told_of_apart_and_one_that_fails_or_leaves_is_not() -> None:
    unused: Any = None
    enqueued: list[Key] = []
    starting: list[int] = []
    store = Store(unused, [], enqueued.append, starts=lambda key, count: starting.append(count))
    change = store.pods._on_change
    view = replace(builders.pod(builders.target_of(P, service("score")), P, 0, ready=False), started=False)
    running, ready = replace(view, started=True), replace(view, started=True, ready=True)
    failing = replace(view, failure=Failure("ImagePullBackOff", "no such image"))
    change(None, view)
    change(view, running)
    change(running, ready)
    assert (starting, enqueued) == ([1, 1, 0], [])
    others: tuple[tuple[PodView, PodView | None], ...] = (
        (ready, running),
        (view, failing),
        (failing, running),
        (running, replace(running, deleting=True)),
        (replace(ready, deleting=True), replace(ready, deleting=True, ready=False)),
        (ready, None),
        (view, replace(running, uid="another")),
    )
    for old, new in others:
        starting.clear()
        enqueued.clear()
        change(old, new)
        assert enqueued, (old, new)
        assert starting == []
