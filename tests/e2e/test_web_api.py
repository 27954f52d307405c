"""The web API on the cluster, at the gateway's address: publish, pool, call, batch, update, delete.

Plain requests, to the release that needs no token; tokens and the clients have tests of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from support.caller import Caller, caller
from support.cluster import kubectl, wait_for
from support.pools import READY_SECONDS, WORKERS

GATEWAY = "http://session-pools-gateway.session-pools:12800"
SERVICE = "myWebservice1234"
VERSION = "v1.0.0"
PATH = f"/services/{SERVICE}/{VERSION}"
SCRIPT = {
    "code": "import math\nprint('rounding', x)\nanswer = math.floor(x) + offset\n",
    "initCode": "offset = 1\n",
    "description": "rounds down and adds",
    "operationId": "add",
    "inputParameterDefinitions": [{"name": "x", "type": "numeric"}],
    "outputParameterDefinitions": [{"name": "answer", "type": "numeric"}],
    "outputFileNames": [],
    "runtimeType": "Python",
}


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any  # some answers of the REST API are strings or lists


class Rest:
    """A caller of the REST API."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    def __call__(self, method: str, path: str, body: Any = None) -> Reply:
        content = None if body is None else json.dumps(body)
        status, _, text = self._client.request(
            method, f"{GATEWAY}{path}", content, {"Content-Type": "application/json"}
        )
        return Reply(status, json.loads(text) if text else {})

    def statuses(self) -> set[str]:
        return {row["status"] for row in self("GET", f"{PATH}/pool").body}


@pytest.fixture(scope="module")
def client() -> Iterator[Caller]:
    with caller(WORKERS[0]) as made:
        yield made


@pytest.fixture(scope="module")
def rest(client: Caller) -> Iterator[Rest]:
    made = Rest(client)
    made("DELETE", PATH)  # of a run that was broken off
    yield made
    made("DELETE", PATH)


@pytest.fixture(scope="module")
def published(rest: Rest) -> None:
    answer = rest("POST", PATH, SCRIPT)
    assert answer.status == 201, answer.body


@pytest.fixture(scope="module")
def pooled(rest: Rest, published: None) -> None:
    answer = rest("POST", f"{PATH}/pool", {"InitialPoolSize": 1, "MaxPoolSize": 2})
    assert (answer.status, answer.body) == (200, "Created.")
    assert "Success" not in rest.statuses()
    wait_for(lambda: rest.statuses() == {"Success"}, READY_SECONDS, "the pool is Success on every compute node")


def test_what_is_published_is_a_web_service_that_is_listed(rest: Rest, published: None) -> None:
    (listed,) = rest("GET", PATH).body
    assert (listed["name"], listed["code"], listed["initCode"]) == (SERVICE, SCRIPT["code"], SCRIPT["initCode"])
    assert SERVICE in [service["name"] for service in rest("GET", "/services").body]
    assert rest("POST", PATH, SCRIPT).status == 403
    assert rest("GET", f"/api/{SERVICE}/{VERSION}/swagger.json").body["info"]["title"] == SERVICE


def test_a_pool_is_filled_on_every_compute_node_and_called(rest: Rest, pooled: None) -> None:
    assert len(rest("GET", f"{PATH}/pool").body) == len(WORKERS)
    answer = rest("POST", f"/api/{SERVICE}/{VERSION}", {"x": 41.5})
    assert answer.status == 200, answer.body
    assert (answer.body["success"], answer.body["outputParameters"]) == (True, {"answer": 42})

    def usage() -> Any:
        return rest("GET", f"{PATH}/pool/usage").body

    wait_for(lambda: (usage()["wait"] or {}).get("count"), 30, "the gateways have counted the call")
    assert (usage()["idle"], usage()["status"]) == (len(WORKERS), "Success")


def test_what_code_prints_is_in_the_log_of_its_session(rest: Rest, pooled: None) -> None:
    assert rest("POST", f"/api/{SERVICE}/{VERSION}", {"x": 4711.5}).status == 200

    def printed() -> list[str]:
        """The nodes whose sessions have printed it."""
        answer = rest("GET", f"{PATH}/logs?lines=200")
        assert answer.status == 200, answer.body
        assert {pod["node"]: pod["error"] for pod in answer.body["pods"]} == dict.fromkeys(WORKERS)
        return [pod["node"] for pod in answer.body["pods"] if any("rounding 4711.5" in line for line in pod["lines"])]

    wait_for(lambda: bool(printed()), 30, "the line is in a log")
    (node,) = printed()
    there = rest("GET", f"{PATH}/logs?node={node}&lines=1").body["pods"]
    assert {(pod["node"], len(pod["lines"])) for pod in there} == {(node, 1)}
    assert rest("GET", f"{PATH}/logs?node=nowhere").status == 404


def test_a_batch_is_answered_by_the_pool(rest: Rest, pooled: None) -> None:
    batch = f"/api/{SERVICE}/{VERSION}/batch"
    started = rest("POST", f"{batch}?parallelCount=2", [{"x": number} for number in range(10)])
    assert started.status == 202, started.body
    path = f"{batch}/{started.body['BatchExecutionId']}"
    wait_for(lambda: rest("GET", path).body["state"] == "complete", 60, "the batch is complete")
    results = rest("GET", path).body["batchExecutionResults"]
    assert [result["outputParameters"]["answer"] for result in results] == [number + 1 for number in range(10)]
    assert rest("DELETE", path).status == 200


def test_an_update_replaces_the_sessions_without_a_failed_call(rest: Rest, pooled: None) -> None:
    assert rest("PATCH", PATH, {"initCode": "offset = 2\n"}).status == 200

    def answered() -> Any:
        answer = rest("POST", f"/api/{SERVICE}/{VERSION}", {"x": 40})
        assert answer.status == 200, answer.body
        return answer.body["outputParameters"]["answer"]

    wait_for(lambda: answered() == 42, READY_SECONDS, "a session of the new revision answers")


def test_what_a_pipeline_manages_is_left_alone_unless_it_is_forced(rest: Rest, published: None) -> None:
    listed = json.loads(kubectl("get", "webservices.sessionpools.dev", "-A", "-o", "json").stdout)["items"]
    (service,) = [each for each in listed if each["spec"]["name"] == SERVICE]
    where = ("-n", service["metadata"]["namespace"])
    name = service["metadata"]["name"]
    kubectl("annotate", "webservices.sessionpools.dev", name, *where, "sessionpools.dev/managed-by=a pipeline")
    try:
        refused = rest("PATCH", PATH, {"description": "mine"})
        assert refused.status == 409
        assert "a pipeline" in refused.body["message"]
        assert rest("PATCH", f"{PATH}?force=true", {"description": "mine"}).status == 200
    finally:
        kubectl("annotate", "webservices.sessionpools.dev", name, *where, "sessionpools.dev/managed-by-")


def test_a_deleted_pool_is_not_found_in_the_end_and_then_the_service_goes(rest: Rest, pooled: None) -> None:
    assert rest("DELETE", f"{PATH}/pool").status == 200
    wait_for(lambda: rest.statuses() == {"NotFound"}, READY_SECONDS, "no compute node has a session")
    answer = rest("POST", f"/api/{SERVICE}/{VERSION}", {"x": 1})
    assert answer.status == 503
    assert "has no pool" in answer.body["errorMessage"]
    assert rest("DELETE", PATH).status == 200
    assert rest("GET", PATH).status == 404
    wait_for(lambda: rest("POST", f"/api/{SERVICE}/{VERSION}", {"x": 1}).status == 404, 10, "its calls are not found")


def test_names_may_be_anything_that_a_path_can_carry(rest: Rest) -> None:
    name = quote("Größe 1")
    assert rest("POST", f"/services/{name}/v1", SCRIPT).status in (201, 403)
    (listed,) = rest("GET", f"/services/{name}/v1").body
    assert listed["name"] == "Größe 1"
    assert rest("DELETE", f"/services/{name}/v1").status == 200
