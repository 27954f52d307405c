"""Every example, as its README applies it, in the namespace that it names; diabetes is in test_main_job."""

import json
import subprocess

import pytest
import yaml

from support.cluster import cluster_script, docker, kubectl
from support.pools import PodProxy, Pool
from support.tools import ROOT

EXAMPLES = ROOT / "manifests/examples"
APPLIED = ("diabetes-process", "script-service", "configmap-code", "data-frame", "own-image", "bundle")


@pytest.mark.parametrize("name", APPLIED)
def test_an_example_gets_ready_and_answers_its_own_warm_up_call(name: str, proxy: PodProxy) -> None:
    if name == "own-image":
        # with the wheels that our own images are built with; where they can't be downloaded the build takes its own
        had = subprocess.run([ROOT / "scripts/wheels"], timeout=280).returncode == 0
        wheels = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels") if had else ()
        arguments = [word for wheel in wheels for word in ("--build-arg", wheel)]
        docker("build", "-f", "manifests/examples/own-image/Containerfile", "-t", "sentiment:v1", *arguments, ".")
        cluster_script("load", "sentiment:v1")
    rendered = kubectl("kustomize", str(EXAMPLES / name)).stdout
    (namespace,) = (body["metadata"]["name"] for body in yaml.safe_load_all(rendered) if body["kind"] == "Namespace")
    kubectl("apply", "--filename", "-", input=rendered)
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
