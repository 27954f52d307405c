"""An upgrade of chart, controller, gateway and default session image over pools that serve: from the commit before this
one, under load.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.caller import caller, service_url
from support.cluster import CLUSTER, SESSION_IMAGE, another_name, cluster_script, script
from support.faults import release_pods
from support.pools import WORKERS, publish, session_pool, web_service
from support.tools import ROOT

_IMAGES = ("session-pools:dev", "session-pools-session:dev")
_BEFORE = "session-pools-session:before"  # the default session image until the upgrade
# What rolls controller and gateway where the commit before has changed neither.
_OTHERWISE = ("--set", "controller.podAnnotations.before=upgrade", "--set", "gateway.podAnnotations.before=upgrade")
_LONGEST_SECONDS = 240  # of load at most: it ends when the upgrade is done


@pytest.fixture
def commit_before(tmp_path: Path) -> Iterator[Path]:
    """The project as it was, with the wheels that have been downloaded for the images of today."""
    place = tmp_path / "before"
    _git("worktree", "add", "--detach", str(place), "HEAD~1")
    try:
        shutil.copytree(ROOT / "images/wheels", place / "images/wheels", dirs_exist_ok=True)
        yield place
    finally:
        _git("worktree", "remove", "--force", str(place))


def test_an_upgrade_restarts_no_session_and_fails_no_call(commit_before: Path, restricted: str) -> None:
    with ExitStack() as stack:
        stack.callback(script, "deploy", CLUSTER)
        script("deploy", CLUSTER, *_OTHERWISE, "--set", "sessionImage.tag=before", root=commit_before)
        for worker in WORKERS:
            stack.enter_context(another_name(worker, SESSION_IMAGE, f"docker.io/library/{_BEFORE}"))
        pools = [
            publish(restricted, web_service(name), session_pool(name, 2, 3, isolation=isolation))
            for name, isolation in (("pods", "Pod"), ("processes", "Process"))
        ]
        for pool in pools:
            pool.until_success()
        before, parts = [pool.lives() for pool in pools], _parts()
        script("images")
        cluster_script("load", *_IMAGES)
        with caller(WORKERS[0]) as client:
            arguments = ("--connections", "2", "--rate", "20", "--seconds", str(_LONGEST_SECONDS))
            loads = [client.load(service_url(restricted, pool.name), {"x": 1}, *arguments) for pool in pools]
            script("deploy", CLUSTER)
            for pool in pools:
                pool.patch(idleTimeoutSeconds=299)  # so that the new controller has something to say
                pool.until_success()
            statuses = [load.end()["statuses"] for load in loads]
        assert not parts & _parts()  # they are others, all of them
        assert [set(found) for found in statuses] == [{"200"}, {"200"}]
        assert [pool.lives() for pool in pools] == before
        assert [pool.status()["image"] for pool in pools] == [_BEFORE, _BEFORE]


def _parts() -> set[str]:
    """Uids of the release's own pods."""
    return {pod["metadata"]["uid"] for component in ("controller", "gateway") for pod in release_pods(component)}


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", "-C", ROOT, *arguments], text=True, capture_output=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.strip()} (a full clone is needed)"
