"""What the web API asks of the API server to show what sessions have printed: the end of a container's log."""

from __future__ import annotations

import pytest

from sessionpools.kube.protocol import PODS, Invalid, NotFound
from support.kube_contract import Cluster, eventually
from support.kubelet import Kubelet

TEXT = "one\ntwo\nthrée\n"


async def printed(cluster: Cluster, name: str) -> None:
    await cluster.printing(name, TEXT)

    async def all_is_there() -> bool:
        try:
            return await cluster.log(name) == TEXT
        except NotFound:  # its kubelet has not heard of it yet
            return False

    await eventually(all_is_there, "the container to have written all", 120)


async def test_a_log_is_read_from_its_end_line_by_line(cluster: Cluster, name: str) -> None:
    await printed(cluster, name)
    assert await cluster.log(name, lines=2) == "two\nthrée\n"
    assert await cluster.log(name, lines=1) == "thrée\n"
    await cluster.delete(name, PODS, grace_period_seconds=0)


async def test_of_more_bytes_than_are_asked_for_the_first_come(cluster: Cluster, name: str) -> None:
    await printed(cluster, name)
    assert await cluster.log(name, lines=2, limit_bytes=5) == "two\nt"
    await cluster.delete(name, PODS, grace_period_seconds=0)


async def test_a_container_that_has_not_started_has_no_lines(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=True)
    if cluster.fake:
        Kubelet(cluster.fake.store).step()
        cluster.fake.logs[cluster.namespace, name] = TEXT  # that nobody must see

    async def is_known() -> bool:
        statuses = (await cluster.get(name, PODS))["status"].get("containerStatuses")
        return bool(statuses and "waiting" in statuses[0]["state"])

    await eventually(is_known, "its kubelet to know the pod")
    assert await cluster.log(name) == ""
    await cluster.delete(name, PODS, grace_period_seconds=0)


async def test_a_pod_that_is_on_no_node_has_no_lines(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=False)
    assert await cluster.log(name) == ""


async def test_a_container_that_the_pod_has_not_is_refused(cluster: Cluster, name: str) -> None:
    await cluster.pod(name, bound=False)
    with pytest.raises(Invalid, match=f"container other is not valid for pod {name}"):
        await cluster.log(name, "other")


async def test_a_log_of_no_pod_is_not_found(cluster: Cluster, name: str) -> None:
    with pytest.raises(NotFound, match=f'pods "{name}" not found'):
        await cluster.log(name)
