"""The two clusters that every test of the contract is run on: the in-process one and the real one."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from sessionpools.kube.client import connect
from sessionpools.kube.protocol import NODES, Json
from support.apiserver import ApiServer
from support.cluster import CONTEXT, kubectl, temporary_namespace, wait_for
from support.kube_contract import Cluster
from support.kubelet import make_node


@pytest.fixture(scope="module")
def real_namespace(crds: None) -> Iterator[str]:
    """A namespace on the real cluster for a module of tests, fit for pods."""
    with temporary_namespace("contract") as name:
        account = ("get", "serviceaccount", "default", "--namespace", name)
        wait_for(lambda: kubectl(*account, check=False).returncode == 0, 30, "the namespace's service account")
        yield name


@pytest.fixture(params=["in-process", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    if request.param == "in-process":
        async with ApiServer() as server:
            server.store.create(NODES, make_node("worker-1"))
            yield Cluster(await server.connect(), "contract", "worker-1", server)
    else:
        namespace = request.getfixturevalue("real_namespace")
        async with contextlib.AsyncExitStack() as closing:
            api = await connect(CONTEXT)
            closing.push_async_callback(api.close)
            nodes = (await api.list_page(NODES))["items"]
            yield Cluster(api, namespace, next(_name(node) for node in nodes if not node["spec"].get("taints")))


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"
