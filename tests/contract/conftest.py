"""The two clusters that every test of the contract is run on: the in-process one and the real one."""

from __future__ import annotations

import contextlib
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import yaml

from sessionpools.kube.client import connect
from sessionpools.kube.protocol import NODES, SESSION_POOLS, Json, Resource
from support.apiserver import ApiServer
from support.cluster import CONTEXT, kubectl, temporary_namespace, wait_for
from support.kube_contract import Cluster
from support.kubelet import make_node
from support.tools import ROOT


@pytest.fixture(scope="session")
def real_pools(kube_context: str) -> Iterator[Resource]:
    """The real cluster's SessionPools under another group, that no controller there knows and would meddle with."""
    group = f"contract-{secrets.token_hex(4)}.sessionpools.dev"
    crd = yaml.safe_load((ROOT / "crds" / "sessionpools.dev_sessionpools.yaml").read_text())
    crd["metadata"] = {"name": f"sessionpools.{group}"}
    crd["spec"]["group"] = group
    crd["spec"]["names"] = {key: crd["spec"]["names"][key] for key in ("kind", "listKind", "plural", "singular")}
    kubectl("create", "--filename", "-", input=json.dumps(crd))
    try:
        kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/sessionpools.{group}")
        # until its cache has begun, the API server answers a watch with 429: storage is (re)initializing
        watch = f"/apis/{group}/v1alpha1/sessionpools?watch=1&resourceVersion=0&timeoutSeconds=1"
        wait_for(lambda: kubectl("get", "--raw", watch, check=False).returncode == 0, 60, "the new kind can be watched")
        yield replace(SESSION_POOLS, group=group)
    finally:
        kubectl("delete", "crd", f"sessionpools.{group}", "--wait=false")


@pytest.fixture(scope="module")
def real_namespace(kube_context: str) -> Iterator[str]:
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
            yield Cluster(await server.connect(), "contract", "worker-1", SESSION_POOLS, server)
    else:
        namespace, pools = request.getfixturevalue("real_namespace"), request.getfixturevalue("real_pools")
        async with contextlib.AsyncExitStack() as closing:
            api = await connect(CONTEXT)
            closing.push_async_callback(api.close)
            nodes = (await api.list_page(NODES))["items"]
            node = next(_name(node) for node in nodes if not node["spec"].get("taints"))
            yield Cluster(api, namespace, node, pools)


def _name(body: Json) -> str:
    return str(body["metadata"]["name"])


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"
