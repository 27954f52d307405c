"""The two programs of a gateway pod, as its containers start them."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import aiohttp

from support.gateway_world import NAMESPACE, World
from support.runtime_pod import OPERATOR, free_ports


def _start(command: str, env: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "sessionpools.gateway", command]
    return subprocess.Popen(program, env=env, stdout=log, stderr=log)


async def test_the_programs_of_a_gateway_pod_serve_what_the_cluster_says(world: World, tmp_path: Path) -> None:
    world.publish("score")
    await world.start_pod("score", name="score-a")
    cluster = {"name": "c", "cluster": {"server": world.server.url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        str({"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
             "users": [{"name": "u", "user": {}}], "current-context": "c"})
    )  # fmt: skip
    http_port = free_ports()
    env = {
        **os.environ,
        "PYTHONPATH": str(OPERATOR),
        "KUBECONFIG": str(kubeconfig),
        "SESSIONPOOLS_GATEWAY_DIR": str(world.settings.directory),
        "SESSIONPOOLS_GATEWAY_PORT": str(world.settings.port),
        "SESSIONPOOLS_HTTP_PORT": str(http_port),
        "SESSIONPOOLS_API_NAMESPACE": NAMESPACE,
        "SESSIONPOOLS_MAX_CONNECTIONS": "500",
        "SESSIONPOOLS_AUTH_ENABLED": "false",
        "POD_NAME": "",
    }
    log = (tmp_path / "programs.log").open("wb")
    with log:
        haproxy = await asyncio.to_thread(_start, "haproxy", env, log)
        agent = await asyncio.to_thread(_start, "agent", env, log)
        try:
            async with aiohttp.ClientSession() as http:

                async def get(path: str) -> tuple[int, str]:
                    try:
                        async with http.get(f"http://127.0.0.1:{http_port}{path}") as response:
                            return response.status, await response.text()
                    except aiohttp.ClientError:
                        return 0, ""

                async def ready() -> bool:
                    return await get("/readyz") == (200, "ok")

                await world.until(ready, "/readyz", 30)
                assert await world.call("score") == (200, "score-a")
                assert (await get("/livez"))[0] == 200

                async def counted() -> bool:
                    return 'outcome="ok"} 1' in (await get("/metrics"))[1]

                await world.until(counted, "the call is counted")

                async def demand() -> bool:
                    return world.uid("score") in (await get("/demand"))[1]

                await world.until(demand, "the demand is offered")
            agent.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(agent.wait, 10) == 0, (tmp_path / "programs.log").read_text()
            assert await world.call("score") == (200, "score-a"), "HAProxy serves on"
        finally:
            for process in (agent, haproxy):
                process.terminate()
                await asyncio.to_thread(process.wait, 20)
