"""GET /services/N/V/pool/usage: figures of real gateways' text, of session pods' control ports, and of both in one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web as aiohttp_web

from sessionpools.api.v1alpha1 import SessionPoolStatus, State
from sessionpools.core.model import SessionReport
from sessionpools.kube.protocol import PODS
from sessionpools.web.usage import GatewayFigures, figures, pool_usage
from support.builders import pod, pool, process_pool, target_of
from support.waiting import until
from support.web import RELEASE, SCRIPT, WebWorld

METRICS = """\
# HELP sessionpools_gateway_queue_seconds How long calls waited.
# TYPE sessionpools_gateway_queue_seconds histogram
sessionpools_gateway_queue_seconds_bucket{namespace="demo",pool="score",le="0.001"} 50
sessionpools_gateway_queue_seconds_bucket{namespace="demo",pool="score",le="0.1"} 96
sessionpools_gateway_queue_seconds_bucket{namespace="demo",pool="score",le="+Inf"} 100
sessionpools_gateway_queue_seconds_count{namespace="demo",pool="score"} 100
sessionpools_gateway_queue_seconds_sum{namespace="demo",pool="score"} 2.5
sessionpools_gateway_queue_seconds_count{namespace="demo",pool="other"} 7
# HELP sessionpools_gateway_busy Calls that sessions work on.
# TYPE sessionpools_gateway_busy gauge
sessionpools_gateway_busy{namespace="demo",pool="score"} 3
sessionpools_gateway_busy{namespace="another",pool="score"} 9
# TYPE sessionpools_gateway_queued gauge
sessionpools_gateway_queued{namespace="demo",pool="score"} 4
"""


def report(ready: int, busy: int) -> SessionReport:
    return SessionReport(ready, busy, "ready", 0.0, 2, 4)


def test_a_gateways_figures_are_those_of_one_pool() -> None:
    found = figures(METRICS, "demo", "score")
    assert (found.busy, found.queued, found.waits, found.wait_seconds) == (3, 4, 100, 2.5)
    assert found.buckets == {0.001: 50, 0.1: 96, float("inf"): 100}
    assert figures(METRICS, "demo", "unknown") == GatewayFigures()


def test_what_is_no_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        figures("<html>{", "demo", "score")


def test_sessions_are_counted_by_node_and_added_up() -> None:
    of = pool(initial=1, maximum=4)
    target = target_of(of)
    pods = [
        pod(target, of, 0),
        pod(target, of, 1),
        pod(target, of, 2, ready=False),
        pod(target, of, 0, on="worker-2"),
        pod(target, of, 1, on="worker-2", ended=True, ready=False),
    ]
    reports = {pods[0].uid: report(1, 1), pods[1].uid: report(1, 0)}
    states = {"worker-1": State.SUCCESS, "worker-2": State.SUCCESS}
    usage = pool_usage(of, states, pods, reports, [figures(METRICS, "demo", "score")])
    first, second = usage.nodes
    assert (first.busy, first.idle, first.starting, first.grown) == (1, 1, 1, 1)
    assert (second.busy, second.idle, second.starting, second.grown) == (0, 1, 0, 0)
    # the gateway knows of a busy one more, of a pod that did not answer
    assert (usage.busy, usage.idle, usage.starting, usage.queued, usage.grown) == (3, 0, 1, 4, 1)
    assert usage.status == "Success"


def test_a_process_pods_sessions_are_those_it_reports() -> None:
    of = process_pool(initial=2, maximum=5)
    target = target_of(of)
    grown = pod(target, of)
    usage = pool_usage(of, {"worker-1": State.SUCCESS}, [grown], {grown.uid: report(4, 3)}, [])
    assert (usage.busy, usage.idle, usage.grown) == (3, 1, 2)
    assert (usage.gateways, usage.wait, usage.wait_seconds) == (0, None, None)


def test_waiting_times_of_several_gateways_are_added_up() -> None:
    one = figures(METRICS, "demo", "score")
    usage = pool_usage(pool(), {}, [], {}, [one, one])
    assert usage.wait is not None
    assert (usage.wait.count, usage.wait_seconds) == (200, 0.025)
    assert (usage.wait.p50_seconds, usage.wait.p95_seconds, usage.wait.p99_seconds) == (0.001, 0.1, None)
    nothing = pool_usage(pool(), {}, [], {}, [GatewayFigures()])
    assert nothing.wait is not None
    assert (nothing.wait_seconds, nothing.wait.p99_seconds) == (None, None)


def test_why_a_pool_is_not_ready_is_said() -> None:
    status = SessionPoolStatus.model_validate(
        {
            "state": "Pending",
            "nodes": [{"name": "worker-1", "state": "Pending", "desired": 2, "message": "ImportError: foo"}],
            "conditions": [
                {
                    "type": "Stalled",
                    "status": "True",
                    "reason": "SessionFailed",
                    "message": "ImportError: foo",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        }
    )
    of = pool().model_copy(update={"status": status})
    usage = pool_usage(of, {"worker-1": State.PENDING}, [], {}, [])
    assert (usage.status, usage.nodes[0].desired, usage.nodes[0].message) == ("Pending", 2, "ImportError: foo")
    assert usage.conditions[0].reason == "SessionFailed"


@pytest.fixture
async def gateway_port() -> AsyncIterator[int]:
    """A gateway's /metrics on loopback."""

    async def metrics(_: aiohttp_web.Request) -> aiohttp_web.Response:
        return aiohttp_web.Response(text=METRICS.replace('"score"', '"made-by-hand"'))

    app = aiohttp_web.Application()
    app.router.add_get("/metrics", metrics)
    runner = aiohttp_web.AppRunner(app)
    await runner.setup()
    await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_usage_is_asked_of_the_gateways_that_there_are(tmp_path: Path, gateway_port: int) -> None:
    async with WebWorld(tmp_path, gateway_port=gateway_port) as world:
        labels = {"app.kubernetes.io/name": "session-pools", "app.kubernetes.io/component": "gateway"}
        for name, address in (("gateway-1", "127.0.0.1"), ("gateway-2", "")):
            world.server.store.create(PODS, {"metadata": {"name": name, "labels": labels}, "spec": {}}, RELEASE)
            world.server.store.edit(PODS, name, {"status": {"podIP": address}}, RELEASE)
        await until(lambda: world.parts.gateways.count == 1, "the gateway is known")
        await world.kubectl_service()
        await world.kubectl_pool()
        admin = world.client()
        usage = (await admin.get("/services/Score/v1/pool/usage")).json()
        assert (usage["gateways"], usage["queued"], usage["waitSeconds"]) == (1, 4, 0.025)
        assert [node["node"] for node in usage["nodes"]] == ["worker-1", "worker-2"]
        assert usage["nodes"][0]["computeNodeEndpoint"] == "http://worker-1:12805/"


async def test_without_a_gateway_usage_says_what_is_not_known(admin: httpx.AsyncClient) -> None:
    await admin.post("/services/Score/v1", json=SCRIPT)
    await admin.post("/services/Score/v1/pool", json={"InitialPoolSize": 1, "MaxPoolSize": 2})
    usage = (await admin.get("/services/Score/v1/pool/usage")).json()
    assert (usage["gateways"], usage["wait"], usage["status"]) == (0, None, "Pending")
