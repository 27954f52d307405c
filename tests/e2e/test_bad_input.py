"""Pools that can not work: each says why, nothing is churned, and the rest of the cluster goes on.

All of them are applied at once, beside a pool that works; then it is watched which of them says what, and when.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.cluster import apply, get, kubectl, temporary_namespace, wait_for
from support.healing import AT_ONCE_SECONDS, FIRST_BACK_OFF_SECONDS, well_again
from support.pools import POOLS, SERVICES, PodProxy, Pool, publish, session_pool, web_service

SEEN_WITHIN_SECONDS = 10.0  # from Kubernetes showing it to the pool saying it
WATCHED_SECONDS = 240.0
NEEDS_MEMORY = """
def load():
    global kept
    kept = [bytearray(b"x" * 2**20) for _ in range(200)]


def predict(x: float) -> float:
    return 2 * x
"""


def limited(memory: str) -> dict[str, Any]:
    return {"init": "service:load", "resources": {"requests": {"memory": "32Mi"}, "limits": {"memory": memory}}}


@dataclass(frozen=True)
class Case:
    """What is applied, and what its user reads: the Stalled condition's reason and words of the message."""

    name: str
    reason: str
    words: str
    service: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)
    # what Kubernetes shows first, in the pod's status: the reason of a container state, or Unschedulable
    shown_as: tuple[str, ...] = ("Error",)


def code(text: str, **spec: Any) -> dict[str, Any]:
    return {"code": text, **spec}


CASES = [
    Case("no-function", "EntrypointNotFound", "predict", code("def other(x): return x\n")),
    Case("generator", "EntrypointInvalid", "generator", code("def predict(x: float):\n    yield x\n")),
    Case("syntax-error", "SyntaxError", "service.py, line 1", code("def predict(x:\n")),
    Case("no-module", "SessionFailed", "ModuleNotFoundError: No module named 'foo'", code("import foo\n")),
    Case("no-listed-module", "SessionFailed", "No module named 'foo'", {"modules": ["foo"]}),
    Case(
        "init-raises", "SessionFailed", "ValueError: no model here",
        code("def load():\n    raise ValueError('no model here')\ndef predict(x): return x\n", init="service:load"),
    ),
    Case(
        "init-hangs", "StartTimeout", "init",
        code("import time\ndef load():\n    time.sleep(999)\ndef predict(x): return x\n", init="service:load"),
        {"startTimeoutSeconds": 25},
    ),
    Case(
        "init-needs-memory", "OOMKilled", "memory",
        code(NEEDS_MEMORY, **limited("96Mi")),
        shown_as=("Error", "OOMKilled"),
    ),
    Case("warm-up-fails", "SessionFailed", "ZeroDivisionError", code("def predict(x): return 1 / 0\n")),
    Case(
        "no-image", "ImagePullBackOff", "localhost:1/none:1", {"image": "localhost:1/none:1"},
        shown_as=("ErrImagePull", "ImagePullBackOff"),
    ),
    Case(
        "too-large", "Unschedulable", "Insufficient memory", {"resources": {"requests": {"memory": "4Ti"}}},
        shown_as=("Unschedulable",),
    ),
    Case(
        "no-node", "NoEligibleNodes", "nodeSelector", pool={"placement": {"nodeSelector": {"no-such": "label"}}},
        shown_as=(),
    ),
    Case("no-account", "PodRefused", "serviceaccount", {"serviceAccountName": "nobody"}, shown_as=()),
    Case(
        "no-server", "BundleUnreachable", "https://localhost/a.zip: Connection refused",
        {"bundle": "https://localhost/a.zip"}, {"startTimeoutSeconds": 20},
    ),
    Case(
        "no-scheme-of-ours", "InvalidCode", "use https, http, file", {"bundle": "s3://bucket/a.zip"}, shown_as=(),
    ),
]  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


@dataclass
class Watched:
    namespace: str
    began: float
    shown: dict[str, float] = field(default_factory=dict)  # by pool: when Kubernetes first showed it
    said: dict[str, float] = field(default_factory=dict)  # by pool: when a condition first had the reason
    stalled: set[str] = field(default_factory=set)
    hang_seen_at: float = 0.0  # when the phase that hangs was first in a row

    def pool(self, name: str) -> Pool:
        return Pool(name, self.namespace)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with temporary_namespace("bad", labels=labels) as namespace:
        objects = []
        for case in CASES:
            given = dict(case.service)
            text, url = given.pop("code", None), given.pop("bundle", "")
            service = web_service(case.name, **({"code": text} if text else {}), **given)
            if url:
                service["spec"]["code"] = {"bundle": {"url": url, "sha256": "0" * 64}}
            objects += [service, session_pool(case.name, **case.pool)]
        objects += [web_service("good"), session_pool("good")]
        apply(*objects, namespace=namespace)
        seen = Watched(namespace, time.monotonic())
        while time.monotonic() - seen.began < WATCHED_SECONDS and len(seen.stalled) < len(CASES):
            look(seen)
            time.sleep(0.3)
        yield seen


def look(seen: Watched) -> None:
    pods = json.loads(kubectl("get", "pods", "-n", seen.namespace, "-o", "json").stdout)["items"]
    now = time.monotonic()
    for pod in pods:
        case = BY_NAME.get(pod["metadata"]["labels"].get("sessionpools.dev/pool", ""))
        if case and reasons(pod) & set(case.shown_as):
            seen.shown.setdefault(case.name, now)
    pools = json.loads(kubectl("get", POOLS, "-n", seen.namespace, "-o", "json").stdout)["items"]
    now = time.monotonic()
    for pool in pools:
        case, status = BY_NAME.get(pool["metadata"]["name"]), pool.get("status") or {}
        for condition in status.get("conditions", []) if case else []:
            assert case is not None
            if condition["reason"] == case.reason:
                seen.said.setdefault(case.name, now)
                seen.stalled |= {case.name} if condition["type"] == "Stalled" else set()
        if case and case.name == "init-hangs" and not seen.hang_seen_at:
            rows = [row["message"] for row in status.get("nodes", [])]
            seen.hang_seen_at = now if any(row.startswith("init for more than") for row in rows) else 0.0


def reasons(pod: dict[str, Any]) -> set[str]:
    status = pod["status"]
    found = {c.get("reason", "") for c in status.get("conditions", []) if c["type"] == "PodScheduled"}
    for container in status.get("containerStatuses", []):
        for state in (container.get("state", {}), container.get("lastState", {})):
            found |= {each.get("reason", "") for each in state.values()}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_says_why_soon_after_kubernetes_does(watched: Watched, case: Case) -> None:
    pool = watched.pool(case.name)
    assert case.name in watched.stalled, pool.status()
    assert case.words in pool.condition("Stalled")["message"]

    def every_row_says_it() -> bool:
        return all(case.words in message or case.reason in message for message in pool.messages())

    wait_for(every_row_says_it, 30, "so does every node's row, also of one where the first start takes longer")
    if case.shown_as:
        shown = watched.shown.get(case.name, watched.said[case.name])  # kubectl may have been the slower one
        assert watched.said[case.name] - shown <= SEEN_WITHIN_SECONDS


def test_a_hang_shows_its_phase_before_it_fails(watched: Watched) -> None:
    assert 0 < watched.hang_seen_at < watched.said["init-hangs"]


def test_nothing_is_churned_and_each_reason_is_one_event(watched: Watched) -> None:
    for case in CASES:
        pool = watched.pool(case.name)
        assert len(pool.pods()) <= 2, case.name  # one a worker: the pods of the first moment are still there
        assert pool.warnings().get(case.reason, 0) == 1, (case.name, pool.warnings())


def test_the_pool_beside_them_works(watched: Watched, proxy: PodProxy) -> None:
    pool = watched.pool("good")
    assert pool.until_success()["sessions"]["ready"] == 2
    assert proxy.call(pool.pods()[0], {"x": 2}).body["success"]


@pytest.mark.parametrize(
    "service",
    [
        web_service("no-module"),
        web_service("no-image"),
        web_service("init-needs-memory", NEEDS_MEMORY, **limited("512Mi")),
    ],
    ids=["code", "image", "limits"],
)
def test_what_is_repaired_in_the_spec_is_well_again_at_once(watched: Watched, service: dict[str, Any]) -> None:
    apply(service, namespace=watched.namespace)
    well_again(watched.pool(service["metadata"]["name"]), AT_ONCE_SECONDS)


def test_publishing_the_missing_service_heals_the_pool(restricted: str) -> None:
    apply(session_pool("early"), namespace=restricted)
    pool = Pool("early", restricted)
    status = pool.until_stalled("ServiceNotFound", 30)
    assert status["state"] == "NotFound"
    assert "'early'" in pool.condition("Stalled")["message"]
    apply(web_service("early"), namespace=restricted)
    pool.until_success()


def test_of_two_services_with_one_name_the_older_is_served_and_the_newer_says_so(restricted: str) -> None:
    publish(restricted, web_service("first", name="Same"), session_pool("first", serviceName="Same")).until_success()
    time.sleep(1.1)  # creation times have whole seconds
    apply(web_service("second", name="Same"), namespace=restricted)

    def stalled() -> dict[str, Any] | None:
        conditions = get(SERVICES, "second", restricted).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Stalled" and c["status"] == "True"), None)

    found = wait_for(stalled, 30, "the newer service is Stalled")
    assert found is not None
    assert found["reason"] == "DuplicateService"
    assert "'first'" in found["message"]
    assert Pool("first", restricted).condition("Ready")["status"] == "True"


def test_the_generic_pool_is_answered_by_a_condition(restricted: str) -> None:
    pool = session_pool("generic")
    del pool["spec"]["serviceName"], pool["spec"]["serviceVersion"]
    apply(pool, namespace=restricted)
    assert Pool("generic", restricted).until_stalled("GenericPoolNotSupported", 30)["state"] == "NotFound"


def test_a_quota_that_is_reached_is_said_and_the_pool_heals_when_it_is_raised() -> None:
    def quota(pods: int) -> dict[str, Any]:
        spec = {"hard": {"pods": str(pods)}}
        return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec}

    with temporary_namespace("quota") as namespace:
        apply(quota(0), namespace=namespace)
        wait_for(lambda: get("resourcequota", "few", namespace).get("status", {}).get("hard"), 30, "the quota is known")
        pool = publish(namespace, web_service("many"), session_pool("many"))
        status = pool.until_stalled("QuotaExceeded", 30)
        assert "exceeded quota: few" in status["nodes"][0]["message"]
        apply(quota(10), namespace=namespace)
        well_again(pool, FIRST_BACK_OFF_SECONDS)
