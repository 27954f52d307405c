"""End-to-end: the chart as installed by scripts/deploy, on the real cluster `sessionpools-test`."""

import json
from collections.abc import Iterator

import pytest

from support.cluster import CLUSTER, kubectl, script, temporary_namespace
from support.pools import PodProxy, pod_proxy
from support.secured import Secured, secured_release


@pytest.fixture(scope="session", autouse=True)
def controller(kube_context: str) -> None:
    """The controller runs. `make test` has installed it."""
    done = kubectl(
        "rollout", "status", "deployment/session-pools-controller", "-n", "session-pools", "--timeout=60s", check=False
    )
    if done.returncode:
        pytest.fail(f"Session Pools is not installed: {done.stderr.strip()}\n`make deploy` installs it.", pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def no_controller_restart(controller: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the tests do, the controller does not crash; but for those that kill it themselves."""

    def crashes() -> set[str]:
        """The last end of each container; that of one which was stopped with its node has the reason Unknown."""
        selector = "app.kubernetes.io/component=controller"
        pods = json.loads(kubectl("get", "pods", "-n", "session-pools", "-l", selector, "-o", "json").stdout)["items"]
        ends = (
            status.get("lastState", {}).get("terminated")
            for pod in pods
            for status in pod["status"].get("containerStatuses", [])
        )
        return {json.dumps(end) for end in ends if end and end["reason"] != "Unknown"}

    before = crashes()
    yield
    assert request.module.__name__.endswith("_faults") or crashes() <= before


@pytest.fixture(scope="session")
def proxy(kube_context: str) -> Iterator[PodProxy]:
    with pod_proxy() as made:
        yield made


@pytest.fixture(scope="module")
def restricted() -> Iterator[str]:
    """A namespace of the module's own that enforces the pod security standard `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with temporary_namespace("e2e", labels=labels) as name:
        yield name


@pytest.fixture(scope="session")
def release(controller: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A release with tokens beside the one for everybody, which needs none and leaves its namespace out. The latter is
    as before afterwards."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with temporary_namespace("secured", labels=labels) as namespace:
        try:
            script("deploy", CLUSTER, "--set", f"watch.ignoreNamespaces={{{namespace}}}")
            with secured_release(namespace, tmp_path_factory.mktemp("release")) as made:
                yield made
        finally:
            script("deploy", CLUSTER)
