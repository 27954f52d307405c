"""What nobody does any more: controllers that stand still, a cluster without its API server."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Final

from support.cluster import docker, kubectl, wait_for
from support.faults import CONTROL_PLANE, frozen, release_pods

_UNANSWERED_SECONDS: Final = 50  # the kubelet would start a container anew whose probe fails for longer
_AWAY_SECONDS: Final = 50
# The kubelet starts what has its manifest in the one directory, and ends what has it there no more. Scheduler and
# controller manager can do nothing meanwhile: they would crash again and again, and come back minutes later than the
# API server. Runs in the node to its end even if the test does not.
_OUTAGE: Final = f"""
cd /etc/kubernetes/manifests
mv kube-scheduler.yaml kube-controller-manager.yaml ..
pkill -STOP kube-apiserver
sleep {_UNANSWERED_SECONDS}
mv kube-apiserver.yaml ..
pkill -KILL kube-apiserver
sleep {_AWAY_SECONDS}
mv ../kube-apiserver.yaml .
for ((waited = 0; waited < 90; waited++)); do
	! curl --insecure --silent --fail --max-time 2 https://localhost:6443/readyz >/dev/null || break
	sleep 1
done
mv ../kube-scheduler.yaml ../kube-controller-manager.yaml .
"""
_OVER_SECONDS: Final = _UNANSWERED_SECONDS + _AWAY_SECONDS + 100


@contextlib.contextmanager
def frozen_controllers() -> Iterator[None]:
    """Both, so that nobody sees what changes."""
    with contextlib.ExitStack() as stack:
        for pod in release_pods("controller"):
            stack.enter_context(frozen(pod, "session-pools-c"))
        yield


def begin_two_minutes_without_api_server() -> None:
    """It does not answer from now on, and is not there later."""
    docker("exec", "--detach", CONTROL_PLANE, "bash", "-c", _OUTAGE)
    wait_for(lambda: not _answers(), 20, "the API server stands still")


def until_the_api_server_is_back() -> None:
    wait_for(_is_over, _OVER_SECONDS, "the control plane has been started again")
    wait_for(_answers, 60, "the API server answers")
    # what watches nodes for the routes between them has crashed meanwhile, and would be let wait for long
    kubectl("delete", "pods", "-n", "kube-system", "-l", "app=pod-network", "--wait=false", "--ignore-not-found")


def _answers() -> bool:
    return kubectl("get", "--raw", "/readyz", "--request-timeout=2s", check=False).returncode == 0


def _is_over() -> bool:
    last = "/etc/kubernetes/manifests/kube-controller-manager.yaml"
    return not subprocess.run(["docker", "exec", CONTROL_PLANE, "test", "-e", last], timeout=60).returncode
