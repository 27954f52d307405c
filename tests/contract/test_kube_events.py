"""Events as the recorder writes them are accepted, and shown to people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sessionpools.kube.events import EventRecorder, event_name
from sessionpools.kube.protocol import EVENTS, ObjectRef
from support.cluster import kubectl
from support.kube_contract import Cluster


async def test_an_event_is_written_counted_on_and_shown_by_kubectl_describe(cluster: Cluster, name: str) -> None:
    pool = await cluster.pool(name)
    regarding = ObjectRef(cluster.pools.api_version, "SessionPool", name, cluster.namespace, pool["metadata"]["uid"])
    now = datetime.now(UTC) - timedelta(minutes=5)
    recorder = EventRecorder(cluster.api, "session-pools-controller", lambda: now)
    await recorder.record(regarding, "Warning", "SessionFailed", "No module named 'foo'", "StartSession")
    now += timedelta(minutes=5)
    await recorder.record(regarding, "Warning", "SessionFailed", "No module named 'bar'", "StartSession")
    event = await cluster.get(event_name(regarding, "SessionFailed"), EVENTS)
    assert (event["count"], event["message"]) == (2, "No module named 'bar'")
    if not cluster.fake:
        shown = kubectl("describe", str(cluster.pools), name, "--namespace", cluster.namespace).stdout
        assert "SessionFailed" in shown and "No module named 'bar'" in shown and "(x2 over 5m" in shown


async def test_an_event_about_a_node_is_accepted(cluster: Cluster) -> None:
    regarding = ObjectRef("v1", "Node", cluster.node)
    await EventRecorder(cluster.api, "session-pools-controller").record(regarding, "Normal", "ContractTest", "", "Test")
    event = await cluster.api.get(EVENTS, event_name(regarding, "ContractTest"), namespace="default")
    assert event["involvedObject"]["name"] == cluster.node
