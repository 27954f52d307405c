"""The process: bundles for session pods, probes and metrics, start, faults at start, end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from sessionpools.kube.protocol import NODES, WEB_SERVICES
from sessionpools.web.app import create_app
from sessionpools.web.bundleserver import create_bundle_server
from sessionpools.web.health import create_health_server
from sessionpools.web.metrics import Metrics
from support.apiserver import ApiServer
from support.careless_s3 import URL, careless_s3
from support.kubelet import make_node
from support.tools import ROOT
from support.web import ADMIN_PASSWORD, SCRIPT, WebWorld


def asgi(app: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")  # type: ignore[arg-type]


async def test_a_bundle_is_served_by_its_digest_without_a_token(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    bundle = world.service()["spec"]["code"]["bundle"]
    async with asgi(create_bundle_server(world.parts.bundles)) as pods:
        answer = await pods.get(f"/bundles/{bundle['sha256']}.tar.gz")
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest() == bundle["sha256"]
        assert int(answer.headers["content-length"]) == len(answer.content)
        for path in (f"/bundles/{'0' * 64}.tar.gz", "/bundles/..%2fblobs", f"/bundles/{bundle['sha256']}", "/bundles/"):
            assert (await pods.get(path)).status_code == 404
        assert (await pods.post(f"/bundles/{bundle['sha256']}.tar.gz")).status_code == 405
        (world.folder / "store").rename(world.folder / "gone")
        (world.folder / "store").write_text("no directory")
        answer = await pods.get(f"/bundles/{bundle['sha256']}.tar.gz")
        assert answer.status_code == 503
        (world.folder / "store").unlink()


async def test_readiness_says_why_and_metrics_count_by_route(world: WebWorld) -> None:
    metrics = Metrics()
    async with asgi(create_health_server(metrics, lambda: "the caches are not complete yet")) as probe:
        assert (await probe.get("/livez")).status_code == 200
        answer = await probe.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "the caches are not complete yet")
        metrics.count("GET", None, 404, 0.1)
        metrics.count("INVENTED", None, 405, 0.1)
        text = (await probe.get("/metrics")).text
        assert 'sessionpools_web_requests_total{method="GET",route="",status="404"} 1.0' in text
        assert "INVENTED" not in text


async def test_requests_are_counted_by_the_template_of_their_route(tmp_path: Path) -> None:
    async with WebWorld(tmp_path) as world:
        metrics = Metrics()
        app = create_app(world.parts, metrics)
        async with asgi(app) as client:
            client.headers.update(world.client().headers)
            await client.get("/services/Score/v1")
            await client.get("/nothing/here")
        samples = {
            (sample.labels["route"], sample.labels["status"])
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "sessionpools_web_requests_total"
        }
        assert samples == {("/services/{name}/{version}", "404"), ("", "404")}


# --- the process -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment(folder: Path, server: ApiServer, **changes: str) -> dict[str, str]:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    (folder / "password").write_text(ADMIN_PASSWORD)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(folder / "kubeconfig"),
        "POD_NAMESPACE": "session-pools",
        "SESSIONPOOLS_API_NAMESPACE": "demo",
        "SESSIONPOOLS_STORE_URL": str(folder / "store"),
        "SESSIONPOOLS_ADMIN_PASSWORD_FILE": str(folder / "password"),
        "SESSIONPOOLS_REST_PORT": str(free_port()),
        "SESSIONPOOLS_BUNDLES_PORT": str(free_port()),
        "SESSIONPOOLS_HTTP_PORT": str(free_port()),
    } | changes


@asynccontextmanager
async def running(env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sessionpools.web",
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_ready(env: Mapping[str, str]) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{env['SESSIONPOOLS_HTTP_PORT']}/readyz")
                if answer.status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def test_the_process_serves_three_ports_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.store.create(NODES, make_node("worker-1"))
        env = environment(tmp_path, server)
        async with running(env) as process:
            await until_ready(env)
            rest = f"http://127.0.0.1:{env['SESSIONPOOLS_REST_PORT']}"
            async with httpx.AsyncClient(base_url=rest, timeout=30) as client:
                login = await client.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD})
                client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
                assert (await client.post("/services/Score/v1", json=SCRIPT)).status_code == 201
                (listed,) = (await client.get("/services")).json()
                assert listed["code"] == SCRIPT["code"]
            sha256 = server.store.all(WEB_SERVICES, "demo")[0]["spec"]["code"]["bundle"]["sha256"]
            async with httpx.AsyncClient() as pods:
                bundles = f"http://127.0.0.1:{env['SESSIONPOOLS_BUNDLES_PORT']}"
                assert (await pods.get(f"{bundles}/bundles/{sha256}.tar.gz")).status_code == 200
                metrics = (await pods.get(f"http://127.0.0.1:{env['SESSIONPOOLS_HTTP_PORT']}/metrics")).text
                assert 'route="/services"' in metrics
            process.send_signal(signal.SIGTERM)
            out, err = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, err.decode()
            lines = [json.loads(line) for line in out.decode().splitlines()]
            assert any(line["logger"] == "sessionpools.audit" and line["verb"] == "publish" for line in lines)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"POD_NAMESPACE": ""}, "POD_NAMESPACE is not set"),
        ({"SESSIONPOOLS_AUTH_ENABLED": "maybe"}, "SESSIONPOOLS_AUTH_ENABLED is 'maybe'"),
        ({"SESSIONPOOLS_STORE_URL": "ftp://x/y"}, "SESSIONPOOLS_STORE_URL"),
    ],
)
async def test_a_wrong_setting_ends_the_process_with_its_name(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    async with ApiServer() as server, running(environment(tmp_path, server, **changes)) as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        assert said in err.decode()
        assert "Traceback" not in err.decode()


async def test_a_store_that_can_not_be_made_ends_the_process_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    store = str(tmp_path / "file" / "store")
    async with (
        ApiServer() as server,
        running(environment(tmp_path, server, SESSIONPOOLS_STORE_URL=store)) as process,
    ):
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    where = f"SESSIONPOOLS_STORE_URL: store file://{store}"
    assert err.decode() == f"session-pools-web: {where}: Not a directory: make the directory writable\n"


async def test_a_port_that_is_taken_ends_the_process_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        async with (
            ApiServer() as server,
            running(environment(tmp_path, server, SESSIONPOOLS_BUNDLES_PORT=str(port))) as process,
        ):
            _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert err.decode() == f"session-pools-web: SESSIONPOOLS_BUNDLES_PORT: port {port}: Address already in use\n"


async def test_a_store_that_ignores_conditions_ends_the_process_with_its_setting(tmp_path: Path) -> None:
    async with ApiServer() as server, careless_s3() as environ:
        env = environment(tmp_path, server, SESSIONPOOLS_STORE_URL=URL) | environ
        async with running(env) as process:
            _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith(f"session-pools-web: SESSIONPOOLS_STORE_URL: store {URL}: ignores the conditions of writes")
