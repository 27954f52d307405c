"""Every example that needs no image of its own, as its README applies it, in the namespace that it names."""

import json
from pathlib import Path

import pytest

from support.cluster import kubectl
from support.pools import PodProxy, Pool
from support.tools import ROOT

EXAMPLES = ROOT / "manifests/examples"
# own-image is built and loaded by hand, diabetes is the demo's and test_main_job's
APPLIED = ("diabetes-process", "script-service", "configmap-code", "data-frame")


@pytest.mark.parametrize("name", APPLIED)
def test_an_example_gets_ready_and_answers_its_own_warm_up_call(name: str, proxy: PodProxy) -> None:
    rendered = kubectl("kustomize", str(EXAMPLES / name)).stdout
    kubectl("apply", "--filename", "-", input=rendered)
    namespace = _namespace(EXAMPLES / name)
    try:
        listed = json.loads(kubectl("get", "sessionpools.sessionpools.dev", "-n", namespace, "-o", "json").stdout)
        (found,) = listed["items"]
        pool = Pool(found["metadata"]["name"], namespace)
        pool.until_success(240)
        services = json.loads(kubectl("get", "webservices.sessionpools.dev", "-n", namespace, "-o", "json").stdout)
        answer = proxy.call(pool.ready_pods()[0], services["items"][0]["spec"]["warmup"])
        assert answer.status == 200
        assert answer.body["success"], answer.body
        assert answer.body["outputParameters"]
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def _namespace(example: Path) -> str:
    found = kubectl("create", "--dry-run=client", "-o", "json", "-f", str(example / "namespace.yaml")).stdout
    name: str = json.loads(found)["metadata"]["name"]
    return name
