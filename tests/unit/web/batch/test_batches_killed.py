"""Replicas that are killed at any moment: no item runs twice, and every one has a result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Mapping

import orjson

from sessionpools.web.batch import state as states
from sessionpools.web.batch.batches import Batches, Service
from sessionpools.web.store.objects import ObjectStore
from support.batch_gateway import BatchGateway
from support.tools import ROOT
from support.waiting import until

SERVICE = Service("demo", "Score", "v1.0")
LEASE_SECONDS = 3.0
ITEMS = 1500
KILLS = 6


async def headers(service: Service, owner: str) -> Mapping[str, str]:
    return {}


def replica(store_url: str, gateway_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.batch_replica", store_url, gateway_url, str(LEASE_SECONDS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT / "tests")])},
    )


async def test_no_item_runs_twice_however_often_replicas_are_killed(store_url: str) -> None:
    rng = random.Random(1)
    async with BatchGateway() as gateway:
        batches = Batches(ObjectStore.open(store_url), gateway.url, headers, "caller")  # works on none
        batch_id = await batches.start(SERVICE, "ann", [{"n": n, "ms": 50} for n in range(ITEMS)], 10)
        processes = [replica(store_url, gateway.url) for _ in range(2)]
        try:
            for kill in range(KILLS):
                goal = min(gateway.calls.total() + rng.randrange(20, 150), ITEMS - 50)
                await until(lambda: gateway.calls.total() >= goal, f"calls before kill {kill}", 60)  # noqa: B023
                processes[kill % 2].kill()
                processes[kill % 2].wait()
                processes[kill % 2] = replica(store_url, gateway.url)
            async with asyncio.timeout(120):
                while (status := await batches.poll(SERVICE, batch_id, "ann")).state != "complete":
                    await asyncio.sleep(0.1)
        finally:
            for process in processes:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
    results = [orjson.loads(result) for result in status.results]
    assert [result["index"] for result in results] == list(range(ITEMS))
    assert max(gateway.runs.values()) == 1
    unknown = [result["index"] for result in results if not result["success"]]
    assert {results[index]["errorMessage"] for index in unknown} <= {states.LOST}
    for result in results:
        if result["success"]:
            assert result["outputParameters"]["answer"] == result["index"]
            assert gateway.runs[result["index"]] == 1
    # under way or claimed when their replica died: half a second's calls, 200 of which are made in a second at most
    assert 0 < len(unknown) <= KILLS * (10 + 100 + 10)
