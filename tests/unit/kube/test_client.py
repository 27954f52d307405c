"""The client keeps its promises over a bad line."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import certifi
import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import incluster_config

from sessionpools.kube import client
from sessionpools.kube.answers import error_of
from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.credentials import Credentials
from sessionpools.kube.protocol import (
    CONFIG_MAPS,
    PODS,
    AlreadyExists,
    Forbidden,
    Invalid,
    Json,
    NotFound,
    NotLeading,
    Resource,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from support.apiserver import ApiServer
from support.waiting import until


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)


def config_map(name: str = "a") -> Json:
    return {"metadata": {"name": name}, "data": {"key": "value"}}


def verbs(server: ApiServer) -> list[str]:
    return [request.verb for request in server.requests]


@pytest.mark.parametrize("status", [0, 500, 503])
async def test_a_read_is_tried_again(server: ApiServer, api: HttpKubeApi, status: int) -> None:
    server.store.create(CONFIG_MAPS, config_map(), "demo")
    server.fail("get", CONFIG_MAPS, status, times=2)
    assert (await api.get(CONFIG_MAPS, "a", namespace="demo"))["data"] == {"key": "value"}


@pytest.mark.parametrize("status", [0, 500])
async def test_a_log_is_read_as_it_is_and_again_if_the_line_is_bad(
    server: ApiServer, api: HttpKubeApi, status: int
) -> None:
    spec = {"containers": [{"name": "session"}], "nodeName": "worker-1"}
    server.store.create(PODS, {"metadata": {"name": "a"}, "spec": spec}, "demo")
    running = {"name": "session", "state": {"running": {}}}
    server.store.edit(PODS, "a", {"status": {"containerStatuses": [running]}}, "demo")
    server.logs["demo", "a"] = "one\n{not JSON\n"
    server.fail("get", PODS, status)
    assert await api.log("a", "session", namespace="demo", lines=1, limit_bytes=100) == b"{not JSON\n"


async def test_a_read_that_keeps_failing_fails_with_the_servers_words(server: ApiServer, api: HttpKubeApi) -> None:
    server.fail("list", CONFIG_MAPS, 500, times=100, message="etcdserver: no leader")
    with pytest.raises(ServerError, match="etcdserver: no leader"):
        await api.list_page(CONFIG_MAPS)
    assert verbs(server) == ["list"] * client.ATTEMPTS


@pytest.mark.parametrize("status", [0, 500])
async def test_a_write_whose_answer_was_lost_is_not_sent_twice(
    server: ApiServer, api: HttpKubeApi, status: int
) -> None:
    server.fail("create", CONFIG_MAPS, status, after=True)
    with pytest.raises(ServerError if status else Unreachable):
        await api.create(CONFIG_MAPS, config_map(), namespace="demo")
    assert verbs(server) == ["create"]
    with pytest.raises(AlreadyExists):
        await api.create(CONFIG_MAPS, config_map(), namespace="demo")


async def test_a_write_that_is_told_to_come_later_comes_later(server: ApiServer, api: HttpKubeApi) -> None:
    server.fail("create", CONFIG_MAPS, 429, times=1, retry_after=0.2)
    began = time.monotonic()
    await api.create(CONFIG_MAPS, config_map(), namespace="demo")
    assert time.monotonic() - began >= 0.2
    assert verbs(server) == ["create", "create"]


async def test_a_deletion_is_left_to_who_decides_anew(server: ApiServer, api: HttpKubeApi) -> None:
    await api.create(CONFIG_MAPS, {"metadata": {"name": "kept"}}, namespace="demo")
    server.fail("delete", CONFIG_MAPS, 429, times=1, retry_after=0.1)
    with pytest.raises(TooManyRequests):
        await api.delete(CONFIG_MAPS, "kept", namespace="demo")
    assert (await api.get(CONFIG_MAPS, "kept", namespace="demo"))["metadata"]["name"] == "kept"


async def test_who_is_told_to_come_much_later_hears_it(server: ApiServer, api: HttpKubeApi) -> None:
    server.fail("create", CONFIG_MAPS, 429, times=1, retry_after=60)
    with pytest.raises(TooManyRequests) as refused:
        await api.create(CONFIG_MAPS, config_map(), namespace="demo")
    assert refused.value.retry_after == 60


async def test_what_is_refused_for_good_is_not_tried_again(server: ApiServer, api: HttpKubeApi) -> None:
    server.fail("*", CONFIG_MAPS, 403, times=1, reason="Forbidden", message="RBAC says no")
    with pytest.raises(Forbidden, match="RBAC says no"):
        await api.list_page(CONFIG_MAPS)
    with pytest.raises(Invalid):
        await api.create(CONFIG_MAPS, config_map("_"), namespace="demo")
    assert verbs(server) == ["list", "create"]


async def test_a_server_that_is_not_there_is_unreachable_for_writes_too(server: ApiServer, api: HttpKubeApi) -> None:
    await server.stop()
    with pytest.raises(Unreachable, match="POST /api/v1/namespaces/demo/configmaps"):
        await api.create(CONFIG_MAPS, config_map(), namespace="demo")


async def test_a_write_is_sent_once_the_server_is_back(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.2)
    api = await server.connect()
    await server.stop()
    creating = asyncio.create_task(api.create(CONFIG_MAPS, config_map(), namespace="demo"))
    await asyncio.sleep(0)
    await server.start()
    await creating
    assert verbs(server) == ["create"]


async def test_a_call_that_takes_too_long_is_unreachable(server: ApiServer) -> None:
    api = await server.connect(call_timeout_seconds=0.1)
    server.delay("create", CONFIG_MAPS, 5)
    with pytest.raises(Unreachable, match="POST"):
        await api.create(CONFIG_MAPS, config_map(), namespace="demo")


async def test_at_most_sixteen_writes_are_in_flight_and_reads_do_not_wait(server: ApiServer, api: HttpKubeApi) -> None:
    server.delay("create", CONFIG_MAPS, 0.3, times=16)
    creating = [asyncio.create_task(api.create(CONFIG_MAPS, config_map(f"c-{n}"), namespace="demo")) for n in range(40)]
    await until(lambda: len(server.requests) >= 16, "sixteen writes")
    await api.list_page(CONFIG_MAPS)
    assert verbs(server) == ["create"] * 16 + ["list"]
    await asyncio.gather(*creating)
    assert len(server.writes()) == 40


async def test_a_watch_that_is_silent_ends(server: ApiServer) -> None:
    api = await server.connect(watch_silence_seconds=0.1)
    server.pause_watches()
    assert [event async for event in api.watch(CONFIG_MAPS, resource_version=str(server.store.version))] == []


async def test_a_watch_that_is_not_answered_is_unreachable(server: ApiServer) -> None:
    api = await server.connect(call_timeout_seconds=0.1)
    server.delay("watch", CONFIG_MAPS, 5)
    with pytest.raises(Unreachable):
        await anext(api.watch(CONFIG_MAPS, resource_version="1000"))


async def test_a_watch_whose_connection_breaks_is_unreachable(server: ApiServer, api: HttpKubeApi) -> None:
    async def follow() -> None:
        async for _ in api.watch(CONFIG_MAPS, resource_version=str(server.store.version)):
            server.drop_watches()

    with pytest.raises(Unreachable, match="WATCH /api/v1/configmaps"):
        await asyncio.wait_for(follow(), 10)


async def test_an_answer_that_is_not_the_api_servers_is_quoted(server: ApiServer, api: HttpKubeApi) -> None:
    with pytest.raises(NotFound, match="could not find"):
        await api.get(Resource("x.dev", "v1", "nothings", "Nothing"), "a")
    page = error_of(502, b"<html>bad gateway</html>", "", PODS)
    assert isinstance(page, ServerError)
    assert "bad gateway" in str(page)
    missing = error_of(404, b"404 page not found\n", "", Resource("x.dev", "v1", "nothings", "Nothing"))
    assert "is its CRD installed?" in str(missing)


async def test_the_server_is_told_who_calls(server: ApiServer, api: HttpKubeApi) -> None:
    await api.list_page(CONFIG_MAPS)
    assert server.requests[0].user_agent.startswith("session-pools-controller/")


async def test_every_call_is_observed(server: ApiServer) -> None:
    seen: list[tuple[str, str, int]] = []
    api = await server.connect(observe=lambda verb, resource, status, _: seen.append((verb, str(resource), status)))
    await api.list_page(CONFIG_MAPS)
    with pytest.raises(NotFound):
        await api.delete(CONFIG_MAPS, "a", namespace="demo")
    assert seen == [("list", "configmaps", 200), ("delete", "configmaps", 404)]


# --- credentials ------------------------------------------------------------------------------------------------------


class Rotating(Credentials):
    """Credentials whose token is a new one each time it is read."""

    def __init__(self, url: str, tokens: list[str]) -> None:
        self.read: list[str] = []

        async def load(configuration: Configuration) -> None:
            configuration.host = url
            self.read.append(tokens[min(len(self.read), len(tokens) - 1)])
            configuration.api_key = {"BearerToken": f"Bearer {self.read[-1]}"}

        super().__init__(load)


async def test_a_rotated_token_is_read_again_once_for_all_calls(server: ApiServer) -> None:
    credentials = Rotating(server.url, ["old", "new"])
    api = await HttpKubeApi.open(credentials, rng=random.Random(1))
    server.fail("*", None, 401, times=3, reason="Unauthorized")
    try:
        await asyncio.gather(*(api.list_page(CONFIG_MAPS) for _ in range(3)))
    finally:
        await api.close()
    assert credentials.read == ["old", "new"]


async def test_an_account_that_is_not_accepted_is_unauthorized(server: ApiServer) -> None:
    credentials = Rotating(server.url, ["revoked"])
    api = await HttpKubeApi.open(credentials, rng=random.Random(1))
    server.fail("*", None, 401, times=100, reason="Unauthorized", message="Unauthorized")
    try:
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await api.list_page(CONFIG_MAPS)
    finally:
        await api.close()
    assert len(credentials.read) == 2  # not once a call: an exec plugin may take a second


async def test_no_configuration_is_unreachable_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unreachable, match="no usable Kubernetes configuration"):
        await client.connect(kubeconfig=str(tmp_path / "none"))


async def test_a_context_that_does_not_exist_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\ncurrent-context: ''\n")
    with pytest.raises(Unreachable, match="other"):
        await client.connect("other", kubeconfig=str(config))


async def test_in_a_cluster_a_rotated_token_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certifi.where())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    credentials = Credentials.discover()
    await credentials.load()
    assert (credentials.url, credentials.authorization()) == ("https://10.96.0.1:443", "bearer one")
    token.write_text("two\n")
    assert await credentials.renew("bearer one")
    assert credentials.authorization() == "bearer two"


# --- only the leader writes -------------------------------------------------------------------------------------------


async def test_who_does_not_lead_reads_and_sends_no_write(server: ApiServer) -> None:
    api = await server.connect(may_write=lambda: False)
    server.store.create(CONFIG_MAPS, config_map(), "demo")
    await api.get(CONFIG_MAPS, "a", namespace="demo")
    writes = [
        api.create(CONFIG_MAPS, config_map("b"), namespace="demo"),
        api.delete(CONFIG_MAPS, "a", namespace="demo"),
        api.merge_patch(CONFIG_MAPS, "a", {"data": {"key": "b"}}, namespace="demo"),
        api.apply_status(PODS, "a", {"status": {}}, namespace="demo", field_manager="m"),
    ]
    for write in writes:
        with pytest.raises(NotLeading, match="not sent"):
            await write
    assert verbs(server) == ["get"]


@pytest.mark.parametrize("status", [401, 429])
async def test_a_write_that_is_to_be_sent_again_is_not_when_its_sender_no_longer_leads(
    server: ApiServer, status: int
) -> None:
    leading = True

    def answered(*_: object) -> None:
        nonlocal leading
        leading = False

    api = await HttpKubeApi.open(
        Rotating(server.url, ["old", "new"]), rng=random.Random(1), observe=answered, may_write=lambda: leading
    )
    server.fail("create", CONFIG_MAPS, status, times=1, reason="Unauthorized" if status == 401 else "")
    try:
        with pytest.raises(NotLeading):
            await api.create(CONFIG_MAPS, config_map(), namespace="demo")
    finally:
        await api.close()
    assert verbs(server) == ["create"]


async def test_writes_that_wait_for_their_turn_are_not_sent_when_their_sender_no_longer_leads(
    server: ApiServer,
) -> None:
    leading = True
    api = await server.connect(may_write=lambda: leading)
    server.delay("create", CONFIG_MAPS, 0.2)
    creating = [asyncio.create_task(api.create(CONFIG_MAPS, config_map(f"c-{n}"), namespace="demo")) for n in range(40)]
    await until(lambda: len(server.requests) >= client.WRITES_IN_FLIGHT, "sixteen writes")
    leading = False
    results = await asyncio.gather(*creating, return_exceptions=True)
    assert sum(isinstance(result, NotLeading) for result in results) == 40 - client.WRITES_IN_FLIGHT
    assert len(server.writes()) == client.WRITES_IN_FLIGHT
