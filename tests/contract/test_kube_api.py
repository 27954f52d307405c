"""What the API server does, proved of the in-process one and of a real one by the same tests.

A test here is a promise that the controller and its simulation rely on. The real cluster is the kubeconfig's context
SESSIONPOOLS_TEST_CONTEXT (kind-sessionpools-test); without it that half is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from sessionpools.kube.client import connect
from sessionpools.kube.protocol import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    SESSION_POOLS,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    Json,
    KubeApi,
    NotFound,
    Resource,
    Unreachable,
    WatchEvent,
)
from support.apiserver import ApiServer
from support.kubelet import Kubelet, make_node

CONTEXT = os.environ.get("SESSIONPOOLS_TEST_CONTEXT", "kind-sessionpools-test")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")


@dataclass
class Cluster:
    api: KubeApi
    namespace: str
    node: str  # one that runs pods
    fake: ApiServer | None = None

    def config_map(self, name: str, labels: dict[str, str] | None = None, **metadata: Any) -> Json:
        return {"metadata": {"name": name, "labels": labels or {}, **metadata}, "data": {"key": "value"}}

    async def create(self, name: str, labels: dict[str, str] | None = None, **metadata: Any) -> Json:
        return await self.api.create(CONFIG_MAPS, self.config_map(name, labels, **metadata), namespace=self.namespace)

    async def get(self, name: str, resource: Resource = CONFIG_MAPS) -> Json:
        return await self.api.get(resource, name, namespace=self.namespace)

    async def delete(self, name: str, resource: Resource = CONFIG_MAPS, **options: Any) -> None:
        await self.api.delete(resource, name, namespace=self.namespace, **options)

    async def patch(self, name: str, body: Json, resource: Resource = CONFIG_MAPS) -> Json:
        return await self.api.merge_patch(resource, name, body, namespace=self.namespace)

    async def apply_status(self, name: str, status: Json, manager: str) -> Json:
        body = {"status": status}
        return await self.api.apply_status(
            SESSION_POOLS, name, body, namespace=self.namespace, field_manager=manager
        )  # fmt: skip

    async def pool(self, name: str) -> Json:
        spec = {"serviceName": name, "serviceVersion": "v1", "initialPoolSize": 1, "maxPoolSize": 2}
        return await self.api.create(SESSION_POOLS, {
            "apiVersion": SESSION_POOLS.api_version, "kind": SESSION_POOLS.kind,
            "metadata": {"name": name}, "spec": spec, "status": {"state": "Success"},
        }, namespace=self.namespace)  # fmt: skip

    async def pod(self, name: str, *, bound: bool, **metadata: Any) -> Json:
        """A pod that never runs: on no node, or on one that may not pull its image."""
        container = {"name": "main", "image": "contract.test/none:1", "imagePullPolicy": "Never"}
        spec: Json = {"containers": [container], "automountServiceAccountToken": False}
        spec |= {"nodeName": self.node} if bound else {"nodeSelector": {"contract.test/none": "true"}}
        body = {"metadata": {"name": name, **metadata}, "spec": spec}
        return await self.api.create(PODS, body, namespace=self.namespace)

    def kubelets_act(self) -> None:
        """In the in-process cluster someone has to say so."""
        if self.fake:
            Kubelet(self.fake.store).settle()

    async def names(self, selector: str = "", **options: Any) -> list[str]:
        page = await self.api.list_page(
            CONFIG_MAPS, namespace=self.namespace, label_selector=selector, **options
        )  # fmt: skip
        return [item["metadata"]["name"] for item in page["items"]]

    async def version(self) -> str:
        """A resourceVersion to watch from."""
        page = await self.api.list_page(CONFIG_MAPS, namespace=self.namespace, limit=1)
        return str(page["metadata"]["resourceVersion"])

    def watch(self, version: str, resource: Resource = CONFIG_MAPS, **options: Any) -> AsyncIterator[WatchEvent]:
        return self.api.watch(resource, namespace=self.namespace, resource_version=version, **options)

    async def events(
        self, version: str, count: int, resource: Resource = CONFIG_MAPS, **options: Any
    ) -> list[WatchEvent]:
        """The first `count` events after `version`, bookmarks apart."""
        found: list[WatchEvent] = []
        async with asyncio.timeout(20):
            async for event in self.watch(version, resource, **options):
                if event.type != "BOOKMARK":
                    found.append(event)
                if len(found) == count:
                    break
        return found

    async def gone(self, name: str, resource: Resource = CONFIG_MAPS) -> None:
        async def is_gone() -> bool:
            with contextlib.suppress(NotFound):
                await self.get(name, resource)
                return False
            return True

        await eventually(is_gone, f"{resource} {name} to be gone")


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"waited {seconds} s for {what}")


@pytest.fixture(scope="module")
def real_namespace() -> Iterator[tuple[str, str]]:
    """A namespace on the real cluster for this run, and a node that pods can be put on."""
    name = f"contract-{uuid.uuid4().hex[:8]}"

    async def make() -> str:
        api = await connect(CONTEXT)
        try:
            await api.create(NAMESPACES, {"metadata": {"name": name}})

            async def has_account() -> bool:
                with contextlib.suppress(NotFound):
                    return bool(await api.get(SERVICE_ACCOUNTS, "default", namespace=name))
                return False

            await eventually(has_account, "the namespace's service account")
            nodes = (await api.list_page(NODES))["items"]
            return next(str(node["metadata"]["name"]) for node in nodes if not node["spec"].get("taints"))
        finally:
            await api.close()

    async def remove() -> None:
        api = await connect(CONTEXT)
        await api.delete(NAMESPACES, name)
        await api.close()

    # In a thread of its own: this is asked for from within an event loop, and only if the real cluster is.
    with ThreadPoolExecutor(1) as elsewhere:
        try:
            node = elsewhere.submit(lambda: asyncio.run(make())).result()
        except Unreachable as error:
            pytest.skip(f"no cluster at context {CONTEXT}: {error}")
        yield name, node
        elsewhere.submit(lambda: asyncio.run(remove())).result()


@pytest.fixture(params=["in-process", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    if request.param == "in-process":
        async with ApiServer() as server:
            server.store.create(NODES, make_node("worker-1"))
            yield Cluster(await server.connect(), "contract", "worker-1", server)
    else:
        namespace, node = request.getfixturevalue("real_namespace")
        api = await connect(CONTEXT)
        yield Cluster(api, namespace, node)
        await api.close()


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


# --- create and get ---------------------------------------------------------------------------------------------------


async def test_what_is_created_can_be_read_with_what_the_server_added(cluster: Cluster, name: str) -> None:
    created = await cluster.create(name)
    read = await cluster.get(name)
    assert read == created
    assert read["data"] == {"key": "value"}
    assert {"uid", "resourceVersion", "creationTimestamp", "namespace"} <= read["metadata"].keys()


async def test_a_taken_name_is_refused_as_already_existing(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    with pytest.raises(AlreadyExists, match=f'configmaps "{name}" already exists') as refused:
        await cluster.create(name)
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")


async def test_an_absent_object_is_named_in_the_error(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound, match=f'configmaps "{name}" not found'):
        await cluster.get(name)
    with pytest.raises(NotFound, match=f'sessionpools.sessionpools.dev "{name}" not found'):
        await cluster.get(name, SESSION_POOLS)


async def test_a_resource_that_the_server_does_not_know_is_not_found(cluster: Cluster) -> None:
    unknown = Resource("sessionpools.dev", "v1alpha1", "nothings", "Nothing")
    with pytest.raises(NotFound):
        await cluster.api.list_page(unknown, namespace=cluster.namespace)


@pytest.mark.parametrize("bad", ["Upper", "under_score", "-dash", "a" * 254])
async def test_a_name_that_is_no_dns_name_is_invalid(cluster: Cluster, bad: str) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name") as refused:
        await cluster.create(bad)
    assert refused.value.status == 422


async def test_an_object_for_another_namespace_is_invalid(cluster: Cluster, name: str) -> None:
    with pytest.raises(Invalid, match="namespace"):
        await cluster.create(name, namespace="another")


async def test_a_generated_name_begins_as_asked(cluster: Cluster, name: str) -> None:
    body = cluster.config_map("")
    body["metadata"] = {"generateName": f"{name}-"}
    created = await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace)
    assert created["metadata"]["name"].startswith(f"{name}-")
    assert len(created["metadata"]["name"]) == len(name) + 6


# --- delete -----------------------------------------------------------------------------------------------------------


async def test_a_deleted_object_is_gone_and_cannot_be_deleted_again(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    await cluster.delete(name)
    with pytest.raises(NotFound):
        await cluster.get(name)
    with pytest.raises(NotFound):
        await cluster.delete(name)


async def test_a_delete_for_another_uid_is_a_conflict_and_deletes_nothing(cluster: Cluster, name: str) -> None:
    created = await cluster.create(name)
    with pytest.raises(Conflict, match="UID") as refused:
        await cluster.delete(name, uid=str(uuid.uuid4()))
    assert not isinstance(refused.value, AlreadyExists)
    assert (await cluster.get(name))["metadata"]["uid"] == created["metadata"]["uid"]


async def test_a_delete_for_the_right_uid_deletes(cluster: Cluster, name: str) -> None:
    created = await cluster.create(name)
    await cluster.delete(name, uid=created["metadata"]["uid"])
    with pytest.raises(NotFound):
        await cluster.get(name)


async def test_a_finalizer_keeps_a_deleted_object_until_it_is_taken_away(cluster: Cluster, name: str) -> None:
    await cluster.create(name, finalizers=["contract.test/hold"])
    await cluster.delete(name)
    assert (await cluster.get(name))["metadata"]["deletionTimestamp"]
    with pytest.raises(AlreadyExists):
        await cluster.create(name)
    await cluster.patch(name, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await cluster.get(name)


async def test_a_pod_without_a_node_is_deleted_at_once(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=False)
    await cluster.delete(name, PODS)
    with pytest.raises(NotFound):
        await cluster.get(name, PODS)


async def test_a_pod_on_a_node_is_terminating_until_its_kubelet_has_ended_it(cluster: Cluster, name: str) -> None:
    created = await cluster.pod(name, bound=True, labels={"test": name})
    version = created["metadata"]["resourceVersion"]
    await cluster.delete(name, PODS)
    cluster.kubelets_act()
    await cluster.gone(name, PODS)
    seen: list[WatchEvent] = []
    async with asyncio.timeout(20):
        async for event in cluster.watch(version, PODS, label_selector=f"test={name}"):
            seen += [event] if event.type != "BOOKMARK" else []
            if event.type == "DELETED":
                break
    terminating = next(each.object["metadata"] for each in seen if "deletionTimestamp" in each.object["metadata"])
    assert terminating["deletionGracePeriodSeconds"] == 30
    assert terminating["generation"] == created["metadata"].get("generation", 0) + 1


async def test_a_pod_deleted_without_grace_is_gone_at_once(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=True)
    await cluster.delete(name, PODS, grace_period_seconds=0)
    with pytest.raises(NotFound):
        await cluster.get(name, PODS)


# --- list -------------------------------------------------------------------------------------------------------------


async def test_the_pages_of_a_list_are_of_one_moment(cluster: Cluster, name: str) -> None:
    for number in range(5):
        await cluster.create(f"{name}-{number}", {"test": name})
    found: list[str] = []
    versions: set[str] = set()
    token = ""
    for page_number in range(3):
        page = await cluster.api.list_page(
            CONFIG_MAPS,
            namespace=cluster.namespace,
            label_selector=f"test={name}",
            limit=2,
            continue_token=token,
        )
        token = page["metadata"].get("continue") or ""
        assert bool(token) == (page_number < 2)
        found += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        await cluster.create(f"{name}-later-{page_number}", {"test": name})
    assert found == [f"{name}-{number}" for number in range(5)]
    assert len(versions) == 1


async def test_a_continue_token_that_is_too_old_is_gone(cluster: Cluster) -> None:
    token = {"v": "meta.k8s.io/v1", "rv": 1, "start": "a\0"}
    encoded = base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")
    with pytest.raises(Gone):
        await cluster.names(limit=1, continue_token=encoded)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("tier=a", "ab"),
        ("tier==a", "ab"),
        ("tier!=a", "cd"),
        ("tier in (a, b)", "abc"),
        ("tier notin (a)", "cd"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("tier=a,color=red", "a"),
        ("tier in (a,b),color notin (red)", "bc"),
    ],
)
async def test_label_selectors(cluster: Cluster, name: str, selector: str, selected: str) -> None:
    labels = {"a": {"tier": "a", "color": "red"}, "b": {"tier": "a"}, "c": {"tier": "b"}, "d": {}}
    for key, each in labels.items():
        await cluster.create(f"{name}-{key}", {"test": name, **each})
    assert await cluster.names(f"test={name},{selector}") == [f"{name}-{key}" for key in selected]


async def test_a_selector_that_cannot_be_parsed_is_invalid(cluster: Cluster) -> None:
    with pytest.raises(Invalid):
        await cluster.names("a in (")


async def test_a_field_selector_finds_one_by_name(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    await cluster.create(f"{name}-2")
    assert await cluster.names(field_selector=f"metadata.name={name}") == [name]


async def test_a_list_of_all_namespaces_says_where_each_is(cluster: Cluster, name: str) -> None:
    await cluster.create(name, {"test": name})
    page = await cluster.api.list_page(CONFIG_MAPS, label_selector=f"test={name}")
    assert [item["metadata"]["namespace"] for item in page["items"]] == [cluster.namespace]


# --- watch ------------------------------------------------------------------------------------------------------------


async def test_a_watch_sees_what_happened_after_its_version_in_order(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    await cluster.patch(name, {"data": {"key": "other"}})
    await cluster.delete(name)
    events = await cluster.events(version, 3, label_selector=f"test={name}")
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event.resource_version) for event in events]
    assert versions == sorted(set(versions))
    assert events[2].object["data"] == {"key": "other"}


async def test_a_watch_sees_what_happens_while_it_is_open(cluster: Cluster, name: str) -> None:
    watching = asyncio.create_task(cluster.events(await cluster.version(), 1, label_selector=f"test={name}"))
    await cluster.create(name, {"test": name})
    assert [event.type for event in await watching] == ["ADDED"]


async def test_a_watch_continues_after_the_version_of_an_event(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    first = (await cluster.events(version, 1, label_selector=f"test={name}"))[0]
    await cluster.patch(name, {"data": {"key": "other"}})
    second = (await cluster.events(first.resource_version, 1, label_selector=f"test={name}"))[0]
    assert (second.type, second.object["data"]) == ("MODIFIED", {"key": "other"})


async def test_an_object_that_leaves_the_selection_is_deleted_for_the_watch(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name, {"test": name})
    await cluster.patch(name, {"metadata": {"labels": {"test": "other"}}})
    await cluster.patch(name, {"metadata": {"labels": {"test": name}}})
    events = await cluster.events(version, 3, label_selector=f"test={name}")
    assert [event.type for event in events] == ["ADDED", "DELETED", "ADDED"]


async def test_an_object_of_half_a_mebibyte_comes_through_a_watch(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    body = cluster.config_map(name, {"test": name}) | {"data": {"key": "x" * 2**19}}
    await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace)
    events = await cluster.events(version, 1, label_selector=f"test={name}")
    assert len(events[0].object["data"]["key"]) == 2**19


async def test_bookmarks_move_a_watch_on_that_sees_no_events(cluster: Cluster, name: str) -> None:
    version = await cluster.version()
    await cluster.create(name)
    for _ in range(5):  # towards a watch's end the server sends one if it can: none is promised
        async with asyncio.timeout(20):
            watch = cluster.watch(version, label_selector=f"test={name}", timeout_seconds=6)
            events = [event async for event in watch]
        assert {event.type for event in events} <= {"BOOKMARK"}
        if events:
            break
    assert int(events[-1].resource_version) > int(version)
    assert not events[-1].object["metadata"].get("name")


async def test_a_watch_from_too_long_ago_is_gone(cluster: Cluster) -> None:
    with pytest.raises(Gone):  # at version 1 there was no CRD yet
        await cluster.events("1", 1, SESSION_POOLS)


# --- patches ----------------------------------------------------------------------------------------------------------


async def test_a_merge_patch_changes_what_it_names_and_removes_what_it_nulls(cluster: Cluster, name: str) -> None:
    await cluster.create(name, {"stays": "yes", "goes": "yes"})
    patched = await cluster.patch(name, {"metadata": {"labels": {"goes": None, "new": "yes"}}})
    assert patched["metadata"]["labels"] == {"stays": "yes", "new": "yes"}
    assert patched["data"] == {"key": "value"}


async def test_a_merge_patch_of_an_absent_object_is_not_found(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound, match=name):
        await cluster.patch(name, {"data": {"key": "other"}})


async def test_a_merge_patch_that_changes_nothing_is_no_write(cluster: Cluster, name: str) -> None:
    created = await cluster.create(name)
    patched = await cluster.patch(name, {"data": {"key": "value"}})
    assert patched["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_a_merge_patch_for_another_version_is_a_conflict(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.patch(name, {"metadata": {"resourceVersion": "1"}, "data": {"key": "other"}})


async def test_a_merge_patch_for_another_uid_is_invalid(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    with pytest.raises(Invalid, match=r"metadata\.uid"):
        await cluster.patch(name, {"metadata": {"uid": str(uuid.uuid4())}, "data": {"key": "other"}})


async def test_an_immutable_config_map_cannot_change(cluster: Cluster, name: str) -> None:
    body = cluster.config_map(name) | {"immutable": True}
    await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace)
    with pytest.raises(Invalid, match="immutable"):
        await cluster.patch(name, {"data": {"key": "other"}})


async def test_the_spec_of_a_pod_cannot_change_but_its_annotations_can(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=False)
    with pytest.raises(Invalid, match="pod updates may not change fields"):
        await cluster.patch(name, {"spec": {"nodeSelector": {"contract.test/none": "other"}}}, PODS)
    patched = await cluster.patch(name, {"metadata": {"annotations": {"a": "b"}}}, PODS)
    assert patched["metadata"]["annotations"]["a"] == "b"


# --- status -----------------------------------------------------------------------------------------------------------


def condition(kind: str, status: str = "True") -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": "Test",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


async def test_a_status_sent_with_a_create_is_dropped(cluster: Cluster, name: str) -> None:
    assert "status" not in await cluster.pool(name)


async def test_generation_counts_changes_of_the_spec_only(cluster: Cluster, name: str) -> None:
    generations = [(await cluster.pool(name))["metadata"]["generation"]]
    await cluster.apply_status(name, {"state": "Pending"}, "contract")
    await cluster.patch(name, {"metadata": {"annotations": {"a": "b"}}}, SESSION_POOLS)
    await cluster.patch(name, {"status": {"state": "Success"}}, SESSION_POOLS)  # ignored
    generations.append((await cluster.get(name, SESSION_POOLS))["metadata"]["generation"])
    patched = await cluster.patch(name, {"spec": {"maxPoolSize": 3}}, SESSION_POOLS)
    generations.append(patched["metadata"]["generation"])
    assert generations == [1, 1, 2]
    assert patched["status"]["state"] == "Pending"


async def test_applying_the_same_status_again_is_no_write(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    status = {"state": "Pending", "conditions": [condition("Ready", "False")]}
    first = await cluster.apply_status(name, status, "contract")
    second = await cluster.apply_status(name, status, "contract")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_what_a_manager_no_longer_applies_is_taken_away(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending", "observedGeneration": 1}, "contract")
    applied = await cluster.apply_status(name, {"state": "Success"}, "contract")
    assert applied["status"] == {"state": "Success"}


async def test_managers_share_a_status_and_its_conditions(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending", "conditions": [condition("Ready")]}, "one")
    await cluster.apply_status(name, {"conditions": [condition("Stalled", "False")]}, "two")
    applied = await cluster.apply_status(name, {"state": "Success", "conditions": [condition("Ready", "False")]}, "one")
    states = {each["type"]: each["status"] for each in applied["status"]["conditions"]}
    assert states == {"Ready": "False", "Stalled": "False"}
    managers = {each["manager"] for each in applied["metadata"]["managedFields"] if each.get("subresource") == "status"}
    assert managers == {"one", "two"}
    applied = await cluster.apply_status(name, {}, "one")
    assert [each["type"] for each in applied["status"]["conditions"]] == ["Stalled"]
    assert "state" not in applied["status"]


async def test_force_takes_a_field_from_another_manager(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    await cluster.apply_status(name, {"state": "Pending"}, "one")
    await cluster.apply_status(name, {"state": "Success"}, "two")
    applied = await cluster.apply_status(name, {}, "one")
    assert applied["status"]["state"] == "Success"


async def test_lists_in_a_status_are_replaced_whole(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    rows = [{"name": node, "state": "Pending", "desired": 1, "ready": 0} for node in ("a", "b")]
    await cluster.apply_status(name, {"nodes": rows}, "contract")
    applied = await cluster.apply_status(name, {"nodes": rows[1:]}, "contract")
    assert [row["name"] for row in applied["status"]["nodes"]] == ["b"]


async def test_no_precondition_keeps_a_status_from_an_object_made_anew(cluster: Cluster, name: str) -> None:
    await cluster.pool(name)
    body = {"metadata": {"name": name, "uid": str(uuid.uuid4())}, "status": {"state": "Pending"}}
    applied = await cluster.api.apply_status(
        SESSION_POOLS, name, body, namespace=cluster.namespace, field_manager="contract"
    )
    assert applied["status"] == {"state": "Pending"}  # so whoever writes it must look again


async def test_the_status_of_an_absent_object_is_not_found(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound):
        await cluster.apply_status(name, {"state": "Pending"}, "contract")


# --- ownership --------------------------------------------------------------------------------------------------------


def owned_by(*owners: Json, blocks: bool = False) -> list[Json]:
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": blocks,
        }
        for owner in owners
    ]


async def test_what_a_deleted_object_owned_goes_too(cluster: Cluster, name: str) -> None:
    owner = await cluster.create(name)
    await cluster.create(f"{name}-owned", ownerReferences=owned_by(owner))
    await cluster.delete(name)
    await cluster.gone(f"{name}-owned")


async def test_what_has_another_owner_stays(cluster: Cluster, name: str) -> None:
    first, second = await cluster.create(f"{name}-1"), await cluster.create(f"{name}-2")
    await cluster.create(f"{name}-both", ownerReferences=owned_by(first, second))
    await cluster.create(f"{name}-one", ownerReferences=owned_by(first))
    await cluster.delete(f"{name}-1")
    await cluster.gone(f"{name}-one")
    assert await cluster.get(f"{name}-both")
    await cluster.delete(f"{name}-2")
    await cluster.gone(f"{name}-both")


async def test_what_is_created_for_an_owner_that_is_gone_goes_too(cluster: Cluster, name: str) -> None:
    owner = await cluster.create(name)
    await cluster.delete(name)
    await cluster.create(f"{name}-owned", ownerReferences=owned_by(owner))
    await cluster.gone(f"{name}-owned")


async def test_orphans_stay_when_asked_for(cluster: Cluster, name: str) -> None:
    owner = await cluster.create(name)
    await cluster.create(f"{name}-owned", ownerReferences=owned_by(owner))
    await cluster.delete(name, propagation="Orphan")
    await cluster.gone(name)
    assert not (await cluster.get(f"{name}-owned"))["metadata"].get("ownerReferences")


async def test_foreground_deletion_keeps_the_owner_until_what_blocks_it_is_gone(cluster: Cluster, name: str) -> None:
    owner = await cluster.create(name)
    held = f"{name}-held"
    await cluster.create(held, ownerReferences=owned_by(owner, blocks=True), finalizers=["contract.test/hold"])
    await cluster.delete(name, propagation="Foreground")

    async def dependent_is_terminating() -> bool:
        return "deletionTimestamp" in (await cluster.get(held))["metadata"]

    await eventually(dependent_is_terminating, "the dependent to be deleted")
    assert (await cluster.get(name))["metadata"]["finalizers"] == ["foregroundDeletion"]
    await cluster.patch(held, {"metadata": {"finalizers": None}})
    await cluster.gone(held)
    await cluster.gone(name)
