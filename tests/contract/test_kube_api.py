"""What the API server does, proved of the in-process one and of a real one by the same tests.

A test here is a promise that the controller and its simulation rely on. For the real cluster see support.cluster.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid

import pytest

from sessionpools.kube.protocol import (
    CONFIG_MAPS,
    PODS,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    Json,
    NotFound,
    Resource,
    WatchEvent,
)
from support.faults import forget_history
from support.kube_contract import Cluster, eventually

# --- create and get ---------------------------------------------------------------------------------------------------


async def test_what_is_created_can_be_read_with_what_the_server_added(cluster: Cluster, name: str) -> None:
    created = await cluster.create(name)
    read = await cluster.get(name)
    assert read == created
    assert read["data"] == {"key": "value"}
    assert {"uid", "resourceVersion", "creationTimestamp", "namespace"} <= read["metadata"].keys()


async def test_what_is_created_unseen_is_there_all_the_same(cluster: Cluster, name: str) -> None:
    body = cluster.config_map(name)
    assert await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace, unseen=True) == {}
    assert (await cluster.get(name))["data"] == {"key": "value"}
    with pytest.raises(AlreadyExists, match=f'configmaps "{name}" already exists'):
        await cluster.api.create(CONFIG_MAPS, body, namespace=cluster.namespace, unseen=True)


async def test_a_taken_name_is_refused_as_already_existing(cluster: Cluster, name: str) -> None:
    await cluster.create(name)
    with pytest.raises(AlreadyExists, match=f'configmaps "{name}" already exists') as refused:
        await cluster.create(name)
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")


async def test_an_absent_object_is_named_in_the_error(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound, match=f'configmaps "{name}" not found'):
        await cluster.get(name)
    with pytest.raises(NotFound, match=f'{cluster.pools} "{name}" not found'):
        await cluster.get(name, cluster.pools)


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


async def test_a_delete_for_an_older_version_is_a_conflict_and_deletes_nothing(cluster: Cluster, name: str) -> None:
    older = (await cluster.create(name))["metadata"]["resourceVersion"]
    changed = await cluster.patch(name, {"data": {"changed": "yes"}})
    with pytest.raises(Conflict, match=r"(?i)resourceversion"):
        await cluster.delete(name, version=older)
    await cluster.delete(name, version=changed["metadata"]["resourceVersion"])
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
    if cluster.fake is None:
        forget_history()  # a new cluster knows all of its own
    # Not of one of Kubernetes' own kinds: the API server's cache of these has begun with the first version there was,
    # and since Kubernetes 1.34 it answers such lists itself, until its own compaction minutes later.
    token = {"v": "meta.k8s.io/v1", "rv": 1, "start": "a\0"}
    encoded = base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")
    with pytest.raises(Gone):
        await cluster.api.list_page(cluster.pools, namespace=cluster.namespace, limit=1, continue_token=encoded)


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


async def test_an_update_puts_the_whole_object_in_place_of_the_one_that_was_read(cluster: Cluster, name: str) -> None:
    read = await cluster.create(name, {"app": "contract"})
    changed = {**read, "data": {"other": "value"}, "metadata": {**read["metadata"], "labels": {}}}
    written = await cluster.api.update(CONFIG_MAPS, changed, namespace=cluster.namespace)
    assert written["data"] == {"other": "value"}
    assert not written["metadata"].get("labels")
    assert written["metadata"]["uid"] == read["metadata"]["uid"]
    assert await cluster.get(name) == written


async def test_an_update_of_what_was_changed_since_is_a_conflict(cluster: Cluster, name: str) -> None:
    read = await cluster.create(name)
    await cluster.patch(name, {"data": {"key": "newer"}})
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.api.update(CONFIG_MAPS, {**read, "data": {"key": "mine"}}, namespace=cluster.namespace)
    assert (await cluster.get(name))["data"] == {"key": "newer"}


async def test_an_update_of_an_absent_object_is_not_found(cluster: Cluster, name: str) -> None:
    read = await cluster.create(name)
    await cluster.delete(name)
    with pytest.raises(NotFound, match=f'configmaps "{name}" not found'):
        await cluster.api.update(CONFIG_MAPS, read, namespace=cluster.namespace)


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
