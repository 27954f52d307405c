"""The real cluster that contract and end-to-end tests run on, through kubectl. Used by tests and by tests/conftest.py.

Nothing here starts a cluster: `make test` does that before pytest. A test that needs the cluster and can't reach it
fails and says so; it is never skipped, as a skipped proof looks like a proof.
"""

import contextlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from support.tools import ROOT, tool

CONTEXT: Final = os.environ.get("SESSIONPOOLS_TEST_CONTEXT", "kind-sessionpools-test")
CLUSTER: Final = CONTEXT.removeprefix("kind-")
SESSION_IMAGE: Final = "docker.io/library/session-pools-session:dev"  # in full, as containerd has it
COMMAND_SECONDS: Final = 120  # what hangs longer than this on a busy machine hangs for ever
SCRIPT_SECONDS: Final = 280  # building or loading an image, joining a node
POLL_SECONDS: Final = 0.2

T = TypeVar("T")


class KubectlError(Exception):
    """kubectl failed; the text is what its user reads."""


def kubectl(
    *args: str, input: str | None = None, context: str = CONTEXT, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl against the test cluster; raises KubectlError with what it said, unless `check` is false."""
    done = subprocess.run(
        [tool("kubectl"), "--context", context, *args],
        input=input,
        text=True,
        capture_output=True,
        timeout=COMMAND_SECONDS,
    )
    if check and done.returncode:
        raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done


def get(kind: str, name: str, namespace: str = "", context: str = CONTEXT) -> dict[str, Any]:
    """An object as the API server has it."""
    where = ["--namespace", namespace] if namespace else []
    found: dict[str, Any] = json.loads(kubectl("get", kind, name, *where, "--output", "json", context=context).stdout)
    return found


def apply(*objects: Mapping[str, Any], namespace: str, context: str = CONTEXT) -> None:
    """Applies objects as a user does."""
    documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "--namespace", namespace, "--filename", "-", input=documents, context=context)


def cluster_script(*command: str) -> None:
    """Runs a script of tests/cluster for the test cluster: `cluster_script("load", "image:tag")`."""
    _run(str(ROOT / "tests/cluster" / command[0]), *command[1:])


def script(*command: str, root: Path = ROOT) -> None:
    """Runs a script of scripts/, of this checkout or of another: `script("deploy", CLUSTER)`."""
    _run(str(root / "scripts" / command[0]), *command[1:], root=root)


def helm(*command: str) -> None:
    _run(tool("helm"), "--kube-context", CONTEXT, *command)


def docker(*command: str) -> None:
    _run("docker", *command)


@contextlib.contextmanager
def another_name(node: str, image: str, name: str) -> Iterator[None]:
    """An image that the node has is there by a second name as well. Names are in full, as containerd has them."""
    ctr = ("exec", node, "ctr", "--namespace", "k8s.io", "images")
    docker(*ctr, "tag", "--force", image, name)
    try:
        yield
    finally:
        docker(*ctr, "remove", name)


def _run(*command: str, root: Path = ROOT) -> None:
    environment = os.environ | {"CLUSTER": CLUSTER}
    done = subprocess.run(command, env=environment, cwd=root, text=True, capture_output=True, timeout=SCRIPT_SECONDS)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")


def require_cluster(context: str = CONTEXT) -> None:
    """Fails the test that asks when the cluster can't be reached."""
    try:
        done = kubectl("get", "--raw", "/readyz", "--request-timeout", "20s", context=context, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the test cluster (kubectl context {context}) does not answer", pytrace=False)
    if done.returncode:
        pytest.fail(
            f"this test needs the test cluster, but the kubectl context {context} can't be reached: "
            f"{done.stderr.strip()}\n`make test` brings it up; SESSIONPOOLS_TEST_CONTEXT names another one.",
            pytrace=False,
        )


@contextlib.contextmanager
def temporary_namespace(
    prefix: str = "test", *, labels: Mapping[str, str] | None = None, context: str = CONTEXT
) -> Iterator[str]:
    """A namespace of a name that nobody else has; its deletion is not waited for."""
    name = f"{prefix}-{secrets.token_hex(4)}"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}
    kubectl("create", "--filename", "-", input=json.dumps(namespace), context=context)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found", context=context)


def wait_for(predicate: Callable[[], T], deadline_seconds: float, what: str) -> T:
    """What `predicate` returns once that is true; after the deadline fails with `what` and the last answer."""
    deadline = time.monotonic() + deadline_seconds
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {deadline_seconds:g} s in vain for {what}; last seen: {answer!r}")
        time.sleep(POLL_SECONDS)
    return answer
