"""From `kubectl apply` to Success on the kind cluster: the diabetes example, 3 sessions on each compute node.

The images are on the nodes and the controller runs. Each run has a namespace of its own, as a pool leaves pods behind
that end slowly.
"""

import json
import time
from typing import Any

import yaml

from bench.figures import Figure, median_of, progress
from support.cluster import get, kubectl, temporary_namespace
from support.tools import ROOT

_EXAMPLE = ROOT / "manifests/examples/diabetes"
_POOLS = "sessionpools.sessionpools.dev"  # in full: another test's kind may have the same short name
_DEADLINE = "110s"  # below that of a kubectl command


def measure(quick: bool) -> list[Figure]:
    runs = 1 if quick else 3
    figures = []
    for isolation in ("Pod", "Process"):
        times = []
        for number in range(runs):
            times.append(_apply_to_success(isolation))
            progress(f"cluster: {isolation}, run {number + 1} of {runs}: {times[-1]:.1f} s")
        figures.append(median_of(f"kubectl apply to Success, 3 sessions per node, {isolation}", times, "s"))
    return figures


def _apply_to_success(isolation: str) -> float:
    with temporary_namespace("bench") as namespace:
        objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(isolation)})
        started = time.monotonic()
        kubectl("apply", "--namespace", namespace, "--filename", "-", input=objects)
        wait = ("wait", "--for=jsonpath={.status.state}=Success", f"--timeout={_DEADLINE}")
        kubectl(*wait, f"{_POOLS}/diabetes", "--namespace", namespace)
        seconds = time.monotonic() - started
        ready = get(_POOLS, "diabetes", namespace)["status"]["sessions"]["ready"]
        progress(f"cluster: {ready} sessions are ready")
        kubectl("delete", _POOLS, "diabetes", "--namespace", namespace, "--cascade=foreground", "--timeout=110s")
        return seconds


def _objects(isolation: str) -> list[dict[str, Any]]:
    items = [yaml.safe_load((_EXAMPLE / name).read_text()) for name in ("webservice.yaml", "sessionpool.yaml")]
    for item in items:
        del item["metadata"]["namespace"]
    items[1]["spec"]["isolation"] = isolation
    return items
