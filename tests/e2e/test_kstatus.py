"""What others wait for: Helm, which goes by kstatus (as Flux and Argo CD do), and `kubectl wait`."""

import json
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from support.cluster import CONTEXT, apply, get, kubectl
from support.faults import rollout_settles
from support.outage import frozen_controllers
from support.pools import DOUBLE, POOLS, SERVICES, Json, Pool, publish, session_pool, web_service
from support.tools import tool

RELEASE: Final = "waited"
BROKEN: Final = "raise RuntimeError('no model in this one')\n"
# The objects are the chart's values.
TEMPLATE: Final = "{{- range .Values.objects }}\n---\n{{ toJson . }}\n{{- end }}\n"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/objects.yaml").write_text(TEMPLATE)
    (tmp_path / "Chart.yaml").write_text(f"apiVersion: v2\nname: {RELEASE}\nversion: 0.1.0\n")
    return tmp_path


def upgrade(chart: Path, namespace: str, code: str, seconds: int, **sizes: int) -> subprocess.CompletedProcess[str]:
    """What somebody does who has a pool and its web service in a chart of their own."""
    objects = [web_service(RELEASE, code), session_pool(RELEASE, **sizes)]
    (chart / "values.yaml").write_text(json.dumps({"objects": objects}))
    command = [tool("helm"), "--kube-context", CONTEXT, "upgrade", "--install", RELEASE, str(chart)]
    options = ["--namespace", namespace, "--wait", "--timeout", f"{seconds}s"]
    return subprocess.run([*command, *options], text=True, capture_output=True, timeout=seconds + 60)


def test_helm_waits_until_the_pool_is_as_asked_and_says_that_a_revision_fails(restricted: str, chart: Path) -> None:
    pool = Pool(RELEASE, restricted)

    def assert_done(sessions: int) -> None:
        status = pool.status()  # at the first look after Helm is done
        assert status["sessions"] == {"desired": sessions, "ready": sessions, "updated": sessions, "old": 0}
        assert pool.condition("Ready")["status"] == "True"
        assert pool.condition("Reconciling")["status"] == "False"

    done = upgrade(chart, restricted, DOUBLE, 120, initial=1, maximum=2)
    assert done.returncode == 0, done.stderr
    assert_done(2)
    done = upgrade(chart, restricted, f"{DOUBLE}# changed\n", 120, initial=2, maximum=2)  # new code and a new size
    assert done.returncode == 0, done.stderr
    assert_done(4)
    began = time.monotonic()
    done = upgrade(chart, restricted, BROKEN, 60, initial=2, maximum=2)
    print(f"Helm gave up after {time.monotonic() - began:.0f} s: {done.stderr}")
    assert done.returncode != 0
    assert RELEASE in done.stderr
    assert pool.condition("Stalled")["reason"] == "RevisionFailed"
    assert pool.status()["sessions"]["old"] == 4
    done = upgrade(chart, restricted, f"{DOUBLE}# repaired\n", 120, initial=2, maximum=2)
    assert done.returncode == 0, done.stderr
    assert_done(4)


def is_ready(kind: str, name: str, namespace: str, seconds: int) -> bool:
    """By `kubectl wait`; false after so many seconds."""
    options = ("--for=condition=Ready", f"--timeout={seconds}s")
    return kubectl("wait", *options, f"{kind}/{name}", "-n", namespace, check=False).returncode == 0


def test_nothing_is_ready_for_kubectl_wait_before_the_controller_has_looked(restricted: str) -> None:
    rollout_settles("controller")
    service, pool = web_service("unseen"), session_pool("unseen", 1, 2)
    changed: list[Json] = [web_service("unseen", f"{DOUBLE}# changed\n"), session_pool("unseen", 2, 2)]
    with frozen_controllers():
        publish(restricted, service, pool)
        assert not is_ready(POOLS, "unseen", restricted, 2)
        assert not is_ready(SERVICES, "unseen", restricted, 2)
    assert is_ready(POOLS, "unseen", restricted, 90)
    assert get(POOLS, "unseen", restricted)["status"]["sessions"]["ready"] == 2
    assert is_ready(SERVICES, "unseen", restricted, 10)
    with frozen_controllers():
        apply(*changed, namespace=restricted)
        assert not is_ready(POOLS, "unseen", restricted, 2)
        assert not is_ready(SERVICES, "unseen", restricted, 2)
    assert is_ready(POOLS, "unseen", restricted, 90)
    # a rollout is the condition Reconciling: until it is over an old session may serve beside the four
    assert get(POOLS, "unseen", restricted)["status"]["sessions"]["ready"] >= 4
    assert Pool("unseen", restricted).until_success()["sessions"]["ready"] == 4
    assert is_ready(SERVICES, "unseen", restricted, 30)
