"""The clients against the real web API: its application over HTTP, an API server, a controller and kubelets in this
process. Calls are the gateway's, which is not here (tests/e2e): batches meet one that answers them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sessionpools.client import AsyncClient, Conflict, Forbidden, NotFound, PoolStalled, Unauthorized
from sessionpools.client.cli.credentials import FileStore
from sessionpools.kube.protocol import NODES
from sessionpools_azureml.deploy import DeployClient
from sessionpools_azureml.deploy.server import MLServer
from support.batch_gateway import BatchGateway
from support.environments import Environment
from support.simulation import Simulation
from support.waiting import until
from support.web import ADMIN_PASSWORD, NAMESPACE, WebWorld


class Served:
    """The web API at an address."""

    def __init__(self, url: str, world: WebWorld, sim: Simulation) -> None:
        self.url = url
        self.world = world
        self.sim = sim

    def client(self, **credentials: Any) -> AsyncClient:
        return AsyncClient(self.url, **(credentials or {"user": "admin", "password": ADMIN_PASSWORD}))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Simulation() as sim, BatchGateway() as gateway:
        for name in ("worker-1", "worker-2"):
            sim.add_node(name)
        async with WebWorld(tmp_path, server=sim.server, gateway_url=gateway.url) as world:
            listening = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(world.app, log_level="warning", lifespan="off"))
            running = asyncio.create_task(server.serve([listening]))
            await until(lambda: server.started, "the web API listens")
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", world, sim)
            server.should_exit = True
            await running


def scored(folder: Path) -> Path:
    path = folder / "score.py"
    path.write_text("def load(): ...\n\ndef predict(n: float) -> float:\n    return n\n")
    return path


async def test_a_file_is_published_updated_and_deleted(served: Served, tmp_path: Path) -> None:
    async with served.client() as client:
        made = await client.services.publish(
            "Größe", "v 1", scored(tmp_path), inputs={"n": float}, description="one", warmup={"n": 1}, alias="score"
        )
        assert (made.label, made.published_by, made.alias, made.description) == ("Größe v 1", "admin", "score", "one")
        spec = served.world.service("Größe", "v 1")["spec"]
        assert (spec["entrypoint"], spec["init"], spec["warmup"]) == ("score:predict", "score:load", {"n": 1})
        with pytest.raises(Forbidden, match="exists: PATCH it"):
            await client.services.publish("Größe", "v 1", scored(tmp_path))
        changed = await client.services.update("Größe", "v 1", description="two")
        assert (changed.description, changed.inputs[0].type) == ("two", "numeric")
        assert served.world.service("Größe", "v 1")["spec"]["code"] == spec["code"]
        assert [each.label for each in await client.services.list("Größe")] == ["Größe v 1"]
        assert (await client.services.get("Größe")).version == "v 1"
        assert (await client.swagger("Größe", "v 1"))["info"]["title"] == "Größe"
        await client.services.delete("Größe", "v 1")
        with pytest.raises(NotFound):
            await client.services.get("Größe", "v 1")
        assert await client.services.list() == []


async def test_a_large_folder_goes_file_by_file_and_leaves_nothing_behind(served: Served, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "models").mkdir(parents=True)
    scored(folder)
    with (folder / "models" / "large.bin").open("wb") as file:
        file.truncate(33 << 20)
    async with served.client() as client:
        await client.services.publish("Large", "v1", folder)
    assert served.world.service("Large", "v1")["spec"]["code"]["bundle"]["sha256"]
    admin = served.world.client()
    assert (await admin.get("/sessions")).json() == (await admin.get("/snapshots")).json() == []


async def test_a_pool_is_awaited_resized_told_and_ended(served: Served) -> None:
    async with served.client() as client:
        await served.world.kubectl_service()
        assert (await client.pools.status("Score", "v1")).status == "NotFound"
        with pytest.raises(NotFound, match="has no pool"):
            await client.pools.usage("Score", "v1")
        await client.pools.create_or_update("Score", "v1", 2, 4)
        seen: list[str] = []
        ready = await client.pools.wait_until_ready(
            "Score", "v1", timeout=60, progress=lambda pool: seen.append(pool.status)
        )
        assert seen[-1] == "Success"
        assert (ready.ready, ready.desired, ready.initial_pool_size, ready.max_pool_size) == (4, 4, 2, 4)
        assert [node.node for node in ready.nodes] == ["worker-1", "worker-2"]
        await client.pools.create_or_update("Score", "v1", 3, 4)
        assert (await client.pools.wait_until_ready("Score", "v1", timeout=60)).ready == 6
        assert [pool.label for pool in await client.pools.list()] == ["Score v1"]
        await client.pools.delete("Score", "v1")
        gone = await client.pools.wait_until_gone("Score", "v1", timeout=60)
        assert {node.name for node in gone.nodes} == {"worker-1", "worker-2"}


async def test_what_sessions_print_is_told_by_node(served: Served) -> None:
    async with served.client() as client:
        await served.world.kubectl_service()
        await client.pools.create_or_update("Score", "v1", 1, 1)
        await client.pools.wait_until_ready("Score", "v1", timeout=60)
        for pod in served.sim.pods():
            served.sim.server.logs[NAMESPACE, pod["metadata"]["name"]] = "one\ntwo\n"
        told = [(each.node, each.lines, each.error) for each in (await client.services.logs("Score", "v1", 1)).pods]
        assert told == [("worker-1", ("two",), ""), ("worker-2", ("two",), "")]
        with pytest.raises(NotFound, match="no session pod on node 'worker-9'"):
            await client.services.logs("Score", "v1", node="worker-9")


async def test_a_pool_that_can_not_become_ready_says_why(served: Served) -> None:
    async with served.client() as client:
        await served.world.kubectl_service()
        for node in ("worker-1", "worker-2"):
            served.sim.server.store.delete(NODES, node)
        await client.pools.create_or_update("Score", "v1", 1, 1)
        with pytest.raises(PoolStalled, match="pool of Score v1: "):
            await client.pools.wait_until_ready("Score", "v1", timeout=60)


async def test_what_others_manage_is_left_alone_unless_forced(served: Served) -> None:
    await served.world.kubectl_service("Managed", labels={"app.kubernetes.io/managed-by": "Helm"})
    async with served.client() as client:
        with pytest.raises(Conflict, match="Helm"):
            await client.services.delete("Managed", "v1")
        await client.services.delete("Managed", "v1", force=True)


async def test_a_batch_runs_and_its_files_are_had(served: Served, tmp_path: Path) -> None:
    async with served.client() as client:
        await client.services.publish("Score", "v1", scored(tmp_path), output_files=["plot.png", "more/plot.png"])
        records: list[dict[str, Any]] = [{"n": n} for n in range(10)]
        records[3] |= {"files": {"plot.png": "one", "more/plot.png": "two"}}
        records[4] |= {"fail": "ValueError: no"}
        batch = await client.batches.start("Score", "v1", records, parallel=3)
        status = await client.batches.wait(batch, timeout=60)
        assert (status.completed, status.total, [item.index for item in status.failed]) == (10, 10, [4])
        assert status.results[9].output("answer") == 9
        assert await client.batches.files(batch, 3) == ["plot.png", "more/plot.png"]  # as the service declares them
        assert await client.batches.file(batch, 3, "more/plot.png") == b"two"
        assert await client.batches.list("Score", "v1") == [batch]
        await client.batches.cancel(batch)
        with pytest.raises(NotFound):
            await client.batches.poll(batch)


async def test_tokens_are_renewed_and_revoked(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    store = FileStore(served.url)
    async with served.client(user="admin", password=ADMIN_PASSWORD, store=store) as client:
        assert (await client.login()).role == "Owner"
    first = store.load()
    assert first is not None
    store.save(type(first)(first.access, 0.0, first.refresh, first.lifetime))  # as if it had expired
    async with served.client(store=store) as client:
        assert await client.services.list() == []
        second = store.load()
        assert second is not None
        assert second.refresh not in ("", first.refresh)
        await client.logout()
    async with served.client(token="nonsense") as client:
        with pytest.raises(Unauthorized):
            await client.services.list()
    store.save(type(first)(second.access, 0.0, second.refresh, second.lifetime))
    async with served.client(store=store) as client:
        with pytest.raises(Exception, match="log in again"):
            await client.services.list()


async def test_the_servers_parts_and_nodes_are_told(served: Served) -> None:
    async with served.client() as client:
        status = await client.status()
        assert "backends" in {part.name for part in status.components}
        assert [node.name for node in await client.nodes()] == ["worker-1", "worker-2"]


LINES = """
client.list_services()
client.create_or_update_service_pool(name="myWebservice1234", version="v1.0.0", initial_pool_size=5, max_pool_size=10)
client.get_service_pool_status(name="myWebservice1234", version="v1.0.0")
client.delete_service_pool(name="myWebservice1234", version="v1.0.0")
"""


async def test_the_old_client_publishes_pools_redeploys_and_deletes(served: Served) -> None:
    def lived() -> None:
        client: Any = DeployClient(served.url, use=MLServer, auth=("admin", ADMIN_PASSWORD))
        named = {"name": "myWebservice1234", "version": "v1.0.0"}
        service = (
            client.service(named["name"])
            .version(named["version"])
            .code_str("answer = x + offset")
            .objects(offset=1)
            .inputs(x=float)
            .outputs(answer=float)
            .description("adds")
            .alias("add")
            .deploy()
        )
        assert service.capabilities()["inputs"] == [{"name": "x", "type": "numeric"}]
        assert callable(service.add)
        assert '"/api/myWebservice1234/v1.0.0"' in service.swagger()
        before = served.world.service(**named)["spec"]["code"]
        assert client.redeploy_service(**named, description="more").capabilities()["description"] == "more"
        assert served.world.service(**named)["spec"]["code"] == before
        client.redeploy_service(**named, code_str="answer = x - offset")
        assert served.world.service(**named)["spec"]["code"] != before
        answers = [eval(line, {"client": client}) for line in LINES.strip().splitlines()]
        assert [each["name"] for each in answers[0]] == [named["name"]]
        assert [repr(answers[place]) for place in (1, 3)] == ["<Response [200]>"] * 2
        assert {row["computeNodeEndpoint"] for row in answers[2]} == {
            "http://worker-1:12805/",
            "http://worker-2:12805/",
        }
        batch = client.get_service(**named).batch([{"n": 1}]).start()
        assert batch.state() in ("pending", "inProgress", "complete")
        with pytest.raises(Exception, match=r"501|engine"):
            client.deploy_realtime("rt", version="v1", serialized_model=b"blob")
        assert client.delete_service(**named) is True

    await asyncio.to_thread(lived)
    admin = served.world.client()
    assert (await admin.get("/sessions")).json() == (await admin.get("/snapshots")).json() == []


async def test_the_command_line_works_against_it(served: Served, installed: Environment, tmp_path: Path) -> None:
    async def sessionpools(*arguments: str, typed: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            str(installed.folder / "bin" / "sessionpools"),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        out, err = await process.communicate(typed.encode())
        assert process.returncode == 0, err.decode()
        return out.decode()

    await sessionpools("login", served.url, "--password-stdin", typed=f"{ADMIN_PASSWORD}\n")
    assert (await sessionpools("whoami")).splitlines()[1].split()[:2] == ["admin", "Owner"]
    assert (await sessionpools("publish", str(scored(tmp_path)))).startswith("score v1: published")
    await served.world.kubectl_service()
    shown = await sessionpools("pools", "set", "Score", "v1", "--initial", "1", "--max", "2", "--watch")
    assert "worker-2  Success  1" in shown
    assert (await sessionpools("usage", "Score")).splitlines()[1].split()[:4] == ["Score", "v1", "all", "0"]
    await sessionpools("services", "delete", "score", "v1")
    await sessionpools("logout")
