"""An upgrade of chart, controller and gateway over pools that serve: from the commit before this one, under load."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.caller import caller, service_url
from support.cluster import CLUSTER, cluster_script, script
from support.pools import WORKERS, publish, session_pool, web_service
from support.tools import ROOT

_IMAGES = ("session-pools:dev", "session-pools-session:dev")
_SECONDS = 60  # of load: longer than an upgrade whose images are there


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
    script("deploy", CLUSTER, root=commit_before)
    try:
        pools = [
            publish(restricted, web_service(name), session_pool(name, 2, 3, isolation=isolation))
            for name, isolation in (("pods", "Pod"), ("processes", "Process"))
        ]
        for pool in pools:
            pool.until_success()
        before = [pool.lives() for pool in pools]
        script("images")
        cluster_script("load", *_IMAGES)
        with caller(WORKERS[0]) as client:
            arguments = ("--connections", "2", "--rate", "20", "--seconds", str(_SECONDS))
            loads = [client.load(service_url(restricted, pool.name), {"x": 1}, *arguments) for pool in pools]
            began = time.monotonic()
            script("deploy", CLUSTER)
            assert time.monotonic() - began < _SECONDS, "the load has ended before the upgrade"
            statuses = [load.result(_SECONDS + 60)["statuses"] for load in loads]
    finally:
        script("deploy", CLUSTER)
    assert [set(found) for found in statuses] == [{"200"}, {"200"}]
    for pool in pools:
        pool.patch(idleTimeoutSeconds=299)  # so that the new controller has something to say
        pool.until_success()
    assert [pool.lives() for pool in pools] == before


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", "-C", ROOT, *arguments], text=True, capture_output=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.strip()} (a full clone is needed)"
