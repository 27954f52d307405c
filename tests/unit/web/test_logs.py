"""GET /services/N/V/logs: the ends of the logs of a service's session pods, beside a controller and kubelets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import PODS
from sessionpools.web import logs
from sessionpools.web.auth.identity import Role
from support.builders import pod, pool, target_of
from support.kubelet import ImagePullBackOff, Ready
from support.simulation import Simulation
from support.waiting import until
from support.web import NAMESPACE, WebWorld, error_of

LOGS = "/services/Score/v1/logs"
WORKERS = ("worker-1", "worker-2")


class Alive:
    """The web API beside a controller, with a service of Ada's, and its pool: a session pod on each of two nodes."""

    def __init__(self, sim: Simulation, world: WebWorld) -> None:
        self.sim = sim
        self.world = world
        self.admin = world.client()

    def pod(self, node: str) -> str:
        (found,) = self.sim.pods(node=node)
        return str(found["metadata"]["name"])

    def write(self, node: str, text: str) -> None:
        """What the session pod of the node has written."""
        self.sim.server.logs[NAMESPACE, self.pod(node)] = text

    async def read(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.admin.get(LOGS, params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["name"], body["version"], body["notRead"]) == ("Score", "v1", 0)
        pods: list[dict[str, Any]] = body["pods"]
        return pods


@pytest.fixture
async def alive(tmp_path: Path) -> AsyncIterator[Alive]:
    async with Simulation() as sim:
        for name in WORKERS:
            sim.add_node(name)
        async with WebWorld(tmp_path, server=sim.server) as world:
            await world.kubectl_service(annotations={names.ANNOTATION_OWNER: "ada"})
            await world.kubectl_pool(initial=1)
            await until(lambda: len(list(world.parts.cluster.pods("Score", "v1"))) == 2, "the API knows the pods")
            await until(lambda: len(sim.ready_pods()) == 2, "the pods run")
            yield Alive(sim, world)


async def test_the_last_lines_of_each_session_pod_are_told_with_its_node(alive: Alive) -> None:
    alive.write("worker-1", "one\ntwo\nthree\n")
    alive.write("worker-2", "first\n\nlast, without an end")
    first, second = await alive.read(lines=2)
    assert first == {
        "node": "worker-1",
        "computeNodeEndpoint": "http://worker-1:12805/",
        "pod": alive.pod("worker-1"),
        "lines": ["two", "three"],
        "cut": False,
        "error": None,
    }
    assert (second["node"], second["lines"]) == ("worker-2", ["", "last, without an end"])


async def test_a_hundred_lines_are_read_unless_another_number_is_given(alive: Alive) -> None:
    alive.write("worker-1", "".join(f"{number}\n" for number in range(200)))
    assert (await alive.read(node="worker-1"))[0]["lines"] == [str(number) for number in range(100, 200)]
    for lines in ("0", "10001", "many"):
        answer = await alive.admin.get(LOGS, params={"lines": lines})
        assert answer.status_code == 400
        assert "query.lines" in error_of(answer)


async def test_one_node_is_read_alone_and_one_without_sessions_is_named(alive: Alive) -> None:
    assert [each["node"] for each in await alive.read(node="worker-2")] == ["worker-2"]
    answer = await alive.admin.get(LOGS, params={"node": "worker-3"})
    assert answer.status_code == 404
    assert error_of(answer).endswith("no session pod on node 'worker-3'; it has some on: worker-1, worker-2")


async def test_a_session_pod_that_has_not_started_has_no_lines(alive: Alive) -> None:
    alive.sim.kubelet.fate = lambda each: ImagePullBackOff() if each["spec"].get("nodeName") == "worker-3" else Ready()
    alive.sim.add_node("worker-3")
    await until(lambda: alive.world.parts.cluster.pods("Score", "v1")[2:], "the API knows of the pod that joins")
    await until(lambda: alive.sim.pods(node="worker-3")[0]["status"].get("containerStatuses"), "its kubelet knows it")
    alive.write("worker-3", "nobody has written this\n")
    (waiting,) = await alive.read(node="worker-3")
    assert (waiting["lines"], waiting["error"]) == ([], None)


async def test_a_log_that_can_not_be_read_says_why_beside_the_others(alive: Alive) -> None:
    for node in WORKERS:
        alive.write(node, "a line\n")
    alive.sim.server.fail("get", PODS, 403, reason="Forbidden", message="RBAC says no")
    found = await alive.read()
    assert sorted(str(each["error"]) for each in found) == ["None", "RBAC says no (403 Forbidden)"]
    assert sorted(each["lines"] for each in found) == [[], ["a line"]]


async def test_a_kubelet_that_does_not_answer_is_not_waited_for(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SECONDS_EACH", 0.1)
    alive.sim.server.delay("get", PODS, 5)
    assert {each["error"] for each in await alive.read()} == {"its node has not answered for 0.1 s"}


async def test_of_lines_that_are_too_large_the_last_are_told(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BYTES_EACH", 20)
    alive.write("worker-1", "".join(f"line {number}\n" for number in range(8)))
    alive.write("worker-2", f"small\n{'x' * 30}\n")
    first, second = await alive.read(lines=8)
    assert (first["lines"], first["cut"]) == (["line 6", "line 7"], True)
    assert (second["lines"], second["cut"]) == (["x" * 20], True)


async def test_what_is_no_text_is_told_as_far_as_it_is(alive: Alive) -> None:
    alive.write("worker-1", "a\x00\x1b[31m\r\n\u2028b\n")
    assert (await alive.read(node="worker-1"))[0]["lines"] == ["a\x00\x1b[31m\r", "\u2028b"]


async def test_only_owners_and_who_published_it_read_the_logs_of_a_service(alive: Alive) -> None:
    callers = {
        "ada": (Role.CONTRIBUTOR, 200),
        "bob": (Role.CONTRIBUTOR, 403),
        "carl": (Role.READER, 403),
        "admin": (Role.OWNER, 200),
    }
    for name, (role, status) in callers.items():
        answer = await alive.world.client(name, role).get(LOGS)
        assert answer.status_code == status, name
    refused = error_of(await alive.world.client("bob", Role.CONTRIBUTOR).get(LOGS))
    assert refused.endswith("may not read the logs of a service of 'ada': it takes the role Owner, or 'ada'")


async def test_without_a_service_or_a_pool_it_is_said_what_is_missing(
    world: WebWorld, admin: httpx.AsyncClient
) -> None:
    answer = await admin.get(LOGS)
    assert answer.status_code == 404
    assert "there is no service 'Score' version 'v1'" in error_of(answer)
    await world.kubectl_service()
    answer = await admin.get(LOGS)
    assert answer.status_code == 404
    assert "POST /services/Score/v1/pool makes one" in error_of(answer)


async def test_a_pool_without_sessions_has_no_logs(world: WebWorld, admin: httpx.AsyncClient) -> None:
    await world.kubectl_service()
    await world.kubectl_pool()
    assert (await admin.get(LOGS)).json() == {"name": "Score", "version": "v1", "pods": [], "notRead": 0}


def test_of_too_many_pods_those_that_are_not_ready_are_read_and_all_are_told_by_node() -> None:
    of = pool(initial=1, maximum=100)
    target = target_of(of)
    pods = [pod(target, of, slot) for slot in range(logs.PODS_AT_MOST)]
    late = pod(target, of, 0, on="worker-2", ready=False)
    read = logs.chosen([*pods, late])
    assert len(read) == logs.PODS_AT_MOST
    assert read[-1] is late
    assert [each.owner.node for each in read[:-1]] == ["worker-1"] * (logs.PODS_AT_MOST - 1)
