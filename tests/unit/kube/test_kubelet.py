"""Pods of the in-process cluster live as a test says."""

from __future__ import annotations

from typing import Any

import pytest

from support import kubelet
from support.apiserver_objects import NODES, PODS, Json
from support.apiserver_store import Store
from support.kubelet import Fate, Kubelet, make_node


@pytest.fixture
def store() -> Store:
    return Store(seed=1)


def add_pod(store: Store, node: str = "worker-1", **spec: Any) -> None:
    """Pinned to a node, as the controller pins session pods."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}
    body = {"containers": [{"name": "session"}], "affinity": {"nodeAffinity": required}, **spec}
    store.create(PODS, {"metadata": {"name": "a"}, "spec": body}, "demo")


def pod(store: Store) -> Json:
    return store.get(PODS, "a", "demo")


def conditions(store: Store) -> dict[str, str]:
    return {each["type"]: each["status"] for each in pod(store)["status"]["conditions"]}


def test_a_pod_that_fits_is_bound_to_its_node_and_becomes_ready(store: Store) -> None:
    store.create(NODES, make_node("worker-1"))
    store.create(NODES, make_node("worker-2"))
    add_pod(store, "worker-2")
    Kubelet(store).settle()
    assert pod(store)["spec"]["nodeName"] == "worker-2"
    assert conditions(store)["Ready"] == "True"
    assert pod(store)["status"]["podIP"]


@pytest.mark.parametrize(
    "node",
    [
        make_node("worker-2"),
        make_node("worker-1", unschedulable=True),
        make_node("worker-1", ready=False),
        make_node("worker-1", taints=[{"key": "gpu", "effect": "NoSchedule"}]),
    ],
)
def test_a_pod_that_fits_nowhere_stays_unschedulable(store: Store, node: Json) -> None:
    store.create(NODES, node)
    add_pod(store)
    Kubelet(store).settle()
    assert "nodeName" not in pod(store)["spec"]
    (scheduled,) = pod(store)["status"]["conditions"]
    assert (scheduled["type"], scheduled["status"], scheduled["reason"]) == ("PodScheduled", "False", "Unschedulable")


def test_a_pod_that_tolerates_a_taint_is_bound(store: Store) -> None:
    store.create(NODES, make_node("worker-1", taints=[{"key": "gpu", "value": "a", "effect": "NoSchedule"}]))
    add_pod(store, tolerations=[{"key": "gpu", "operator": "Exists"}])
    Kubelet(store).settle()
    assert conditions(store)["Ready"] == "True"


@pytest.mark.parametrize(
    ("fate", "waiting", "last"),
    [
        (kubelet.Crash("ImportError: foo"), "CrashLoopBackOff", {"message": "ImportError: foo", "exitCode": 1}),
        (kubelet.OOMKilled(), "CrashLoopBackOff", {"reason": "OOMKilled", "exitCode": 137}),
        (kubelet.ImagePullBackOff(), "ImagePullBackOff", {}),
    ],
)
def test_a_pod_meets_its_fate_and_stays_with_it(store: Store, fate: Fate, waiting: str, last: Json) -> None:
    store.create(NODES, make_node("worker-1"))
    add_pod(store)
    Kubelet(store, fate=lambda _: fate).settle()
    (status,) = pod(store)["status"]["containerStatuses"]
    assert status["state"]["waiting"]["reason"] == waiting
    assert last.items() <= status["lastState"].get("terminated", {}).items()
    assert conditions(store)["Ready"] == "False"


def test_a_deleted_pod_ends_when_its_kubelet_acts(store: Store) -> None:
    store.create(NODES, make_node("worker-1"))
    add_pod(store)
    acting = Kubelet(store, finish_deletions=False)
    acting.settle()
    store.delete(PODS, "a", "demo")
    acting.settle()
    assert pod(store)["metadata"]["deletionTimestamp"]
    acting.finish_deletions = True
    acting.settle()
    assert store.all(PODS) == []


def test_pods_of_a_lost_node_do_not_end_and_those_of_a_removed_node_do(store: Store) -> None:
    store.create(NODES, make_node("worker-1"))
    add_pod(store)
    acting = Kubelet(store)
    acting.settle()
    acting.lose_node("worker-1")
    store.delete(PODS, "a", "demo")
    acting.settle()
    assert conditions(store)["Ready"] == "False"
    store.delete(NODES, "worker-1")
    acting.settle()
    assert store.all(PODS) == []
