"""The process of the controller, whole, with kopf, against an API server that can misbehave."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import kopf
import pytest
from kubernetes.config import kube_config

from sessionpools.controller import news, nodes, shell
from sessionpools.controller.config import Config, ConfigError
from sessionpools.controller.store import Key, Kind
from sessionpools.kube.protocol import LEASES, NODES, SESSION_POOLS, WEB_SERVICES
from support.apiserver_faults import Request
from support.simulation import NAMESPACE, Simulation

HOME = "session-pools"
KOPFS_OWN: Sequence[float] = kopf.OperatorSettings().networking.error_backoffs  # type: ignore[assignment]


class Cluster(Simulation):
    """Without a controller of the simulation's own."""

    async def start_controller(self) -> None:
        return


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "BEGIN_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(news, "BACKOFF_AT_MOST_SECONDS", 0.2)
    monkeypatch.setattr("sessionpools.kube.reflector.BACKOFF_MOST_SECONDS", 0.5)


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    # where kopf looks: read from the environment when it is imported
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    async with Cluster() as made:
        made.add_node("worker-1")
        (tmp_path / "kubeconfig").write_text(f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{made.server.url}"}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
""")
        yield made
        did = {request.verb for request in of_kopf(made)}
        assert did <= {"get", "list", "watch"}, "kopf's client writes nothing: only the leader does, with its own"


def config(name: str = "a", **fields: Any) -> Config:
    return Config(
        session_image="session:1", http_port=0, pod_name=name, pod_namespace=HOME, lease="controllers", **fields
    )


@asynccontextmanager
async def running(settings: Config) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(shell.run(settings))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def of_kopf(cluster: Cluster) -> list[Request]:
    return [request for request in cluster.server.requests if request.user_agent.startswith("kopf/")]


def kopf_asked(cluster: Cluster, verb: str, resource: Any = SESSION_POOLS) -> int:
    return sum(request.verb == verb and request.resource == resource for request in of_kopf(cluster))


def holder(cluster: Cluster) -> str:
    found = cluster.server.store.all(LEASES)
    return found[0]["spec"]["holderIdentity"] if found else ""


async def test_it_fills_a_pool_and_on_sigterm_gives_the_lease_back_at_once(cluster: Cluster) -> None:
    async with running(config()) as task:
        cluster.apply(cluster.service(), cluster.pool())
        await cluster.until_success()
        assert holder(cluster) == "a"
        await cluster.until(lambda: kopf_asked(cluster, "watch"), "kopf watches")
        began = asyncio.get_running_loop().time()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - began < 3
    assert cluster.server.store.all(LEASES)[0]["spec"]["holderIdentity"] == ""


async def test_two_of_them_are_one_after_the_other_the_leader(cluster: Cluster) -> None:
    async with running(config("a")):
        await cluster.until(lambda: holder(cluster) == "a", "the first leads")
        async with running(config("b")) as second:
            cluster.apply(cluster.service(), cluster.pool())
            await cluster.until_success()
            assert (holder(cluster), second.done()) == ("a", False)


@pytest.mark.parametrize("status", [0, 403, 500])
async def test_an_api_server_that_refuses_everything_for_longer_than_kopf_would_wait_ends_nothing(
    cluster: Cluster, status: int
) -> None:
    cluster.server.fail("*", None, status, times=float("inf"))
    async with running(config()) as task:
        await cluster.until(lambda: kopf_asked(cluster, "list") > 2 * len(KOPFS_OWN) + 2, "more tries than kopf's own")
        cluster.server.heal()
        cluster.apply(cluster.service(), cluster.pool())
        await cluster.until_success()
        await cluster.until(lambda: kopf_asked(cluster, "watch"), "kopf watches")
        assert not task.done()


@pytest.mark.parametrize("status", [500, 403, 410])
async def test_an_error_in_a_watch_ends_neither_the_controller_nor_its_workers(cluster: Cluster, status: int) -> None:
    async with running(config()) as task:
        cluster.apply(cluster.service(), cluster.pool())
        await cluster.until_success()
        await cluster.until(lambda: kopf_asked(cluster, "watch") and kopf_asked(cluster, "watch", WEB_SERVICES))
        cluster.server.fail_watches(status)
        await cluster.until(lambda: kopf_asked(cluster, "watch") > 1, "kopf has begun again")
        cluster.edit_pool(initialPoolSize=4)
        await cluster.until(lambda: len(cluster.ready_pods()) == 4, "the workers work")
        assert not task.done()


async def test_what_changes_is_told_by_its_key(cluster: Cluster) -> None:
    told: list[Key] = []
    before = set(threading.enumerate())
    task = asyncio.create_task(news.follow(config(), told.append))
    try:
        await cluster.until(lambda: kopf_asked(cluster, "watch") and kopf_asked(cluster, "watch", WEB_SERVICES))
        cluster.apply(cluster.service("s"), cluster.pool("p"))
        await cluster.until(lambda: len(told) >= 2, "both keys")
        assert set(told) == {Key(Kind.POOL, NAMESPACE, "p"), Key(Kind.SERVICE, NAMESPACE, "s")}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # the one that waited for kopf's end is this event loop's own
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"asyncio_0"}


ROLES_ONLY: dict[str, Any] = {"namespaces": (NAMESPACE,), "nodes": ("worker-1",)}


async def test_with_rights_in_namespaces_only_it_serves_these_on_the_nodes_that_are_named(cluster: Cluster) -> None:
    cluster.server.fail("*", None, 403, times=float("inf"), outside=(NAMESPACE, HOME))
    async with running(config(**ROLES_ONLY)):
        cluster.apply(cluster.service(), cluster.pool())
        await cluster.until_success()
        await cluster.until(lambda: kopf_asked(cluster, "watch") and kopf_asked(cluster, "watch", WEB_SERVICES))
    refused = {(request.verb, request.resource.plural) for request in cluster.server.requests if request.status == 403}
    assert refused == set(), "nothing was asked for that a Role can not give"


async def test_without_nodes_it_ends_at_once_and_says_what_to_do(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "RIGHTS_AGAIN_SECONDS", 0.01)
    cluster.server.fail("*", None, 403, times=float("inf"), outside=(NAMESPACE, HOME))
    with pytest.raises(ConfigError, match=r"SESSIONPOOLS_NODES .* watch\.nodes.* bind a ClusterRole"):
        await asyncio.wait_for(shell.run(config(namespaces=(NAMESPACE,))), 10)


async def test_a_right_to_nodes_that_comes_a_moment_later_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "RIGHTS_AGAIN_SECONDS", 0.01)
    cluster.server.fail("*", NODES, 403, times=nodes.RIGHTS_TRIES - 1)
    async with running(config(namespaces=(NAMESPACE,))):
        cluster.apply(cluster.service(), cluster.pool())
        await cluster.until_success()


def test_kopf_never_tires_of_trying() -> None:
    delays = list(islice(news._Backoffs(), 1000))
    assert all(0 < delay <= max(1.0, news.BACKOFF_AT_MOST_SECONDS) for delay in delays)
    assert not hasattr(news._Backoffs(), "__len__")  # of one that has a length, kopf counts the tries
    assert list(islice(news._Backoffs(), 3)) != delays[:3]
