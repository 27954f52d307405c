"""A burst on a `Pod` pool that has to grow on both compute nodes, against as many bare pods which import and load the
same and are created at once. On the kind cluster, through the gateway.

Both are held to what the last of them takes: from the burst to the time when a session has the last call, and from
`kubectl create` to the time when all bare pods are ready.
"""

import json
import time
from contextlib import ExitStack
from typing import Any, Final

from bench import bars
from bench.compare import interleaved
from bench.figures import Figure, median_of, progress
from support.caller import Caller, caller, service_url
from support.cluster import kubectl, temporary_namespace, wait_for
from support.pools import RESOURCES, WORKERS, Pool, publish, session_pool, web_service

_INITIAL: Final = 1
_MAXIMUM: Final = 5
_NEW: Final = (_MAXIMUM - _INITIAL) * len(WORKERS)
_SETTLE_SECONDS: Final = 5.0  # what the pods of the block before have left is cleaned up in
_HOLD_SECONDS: Final = 30.0  # longer than the growth takes: no session has two calls of a burst
_CODE: Final = """
import time
import numpy, pandas
from sklearn.linear_model import Ridge

model = Ridge().fit(numpy.ones((1000, 10)), numpy.ones(1000))


def predict(hold: float = 0.0) -> float:
    time.sleep(hold)
    return float(model.predict(numpy.ones((1, 10)))[0])
"""
_BARE: Final = f"""{_CODE}
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()


predict()
HTTPServer(("", 9000), Ready).serve_forever()
"""


def measure(quick: bool) -> list[Figure]:
    rounds = 1 if quick else 7
    with ExitStack() as stack:
        namespace = stack.enter_context(temporary_namespace("bench"))
        client = stack.enter_context(caller(WORKERS[0]))
        pool = publish(
            namespace,
            web_service("grows", _CODE, warmup={"hold": 0}),
            session_pool("grows", _INITIAL, _MAXIMUM, requestTimeoutSeconds=120, drainTimeoutSeconds=120,
                         queue={"timeoutSeconds": 120}),
        )  # fmt: skip
        pool.until_success()
        blocks = {"pool": lambda: _burst(client, pool), "bare": lambda: _bare_pods(namespace)}
        found = interleaved(blocks, rounds, lambda done: progress(f"pod-growth: round {done} of {rounds}"))
    return [
        median_of("pod-growth: pool against itself", found.control, "x"),
        median_of(bars.POD_GROWTH, found.ratios("bare"), "x", found.valid),
        median_of(f"pod-growth: the last call of a burst on {_NEW} new session pods", found.p50s("pool"), "s"),
        median_of(f"pod-growth: {_NEW} bare pods", found.p50s("bare"), "s"),
    ]


def _burst(client: Caller, pool: Pool) -> float:
    """Seconds from the burst to the time when a session has the last of its calls."""
    time.sleep(_SETTLE_SECONDS)
    calls = str(_MAXIMUM * len(WORKERS))
    load = client.load(
        service_url(pool.namespace, pool.name), {"hold": _HOLD_SECONDS}, "--connections", calls, "--calls", calls,
        "--timeout", "120",
    )  # fmt: skip
    time.sleep(_HOLD_SECONDS)  # asking whether it has ended takes more of the processors than a session pod's start
    found = load.result(180)
    seconds = float(found["max"]) / 1000 - _HOLD_SECONDS
    if found["statuses"] != {"200": int(calls)} or seconds >= _HOLD_SECONDS:
        raise RuntimeError(f"a burst on a pool that grows: {found}")
    progress(f"pod-growth: pool, {seconds:.1f} s")
    pool.patch(maxPoolSize=_INITIAL)
    wait_for(lambda: _count(pool.namespace) == _INITIAL * len(WORKERS), 180, "the pool has shrunk")
    pool.patch(maxPoolSize=_MAXIMUM)
    pool.until_success()
    return seconds


def _bare_pods(namespace: str) -> float:
    """Seconds from their creation to the time when all are ready."""
    time.sleep(_SETTLE_SECONDS)
    pods = [_bare_pod(f"bare-{number}", WORKERS[number % len(WORKERS)]) for number in range(_NEW)]
    started = time.monotonic()
    kubectl("create", "-n", namespace, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    kubectl("wait", "--for=condition=Ready", "pod", "-l", "bare=yes", "-n", namespace, "--timeout=110s")
    seconds = time.monotonic() - started
    progress(f"pod-growth: bare pods, {seconds:.1f} s")
    kubectl("delete", "pod", "-l", "bare=yes", "-n", namespace, "--timeout=110s")
    return seconds


def _bare_pod(name: str, node: str) -> dict[str, Any]:
    container = {
        "name": "bare",
        "image": "session-pools-session:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _BARE],
        "readinessProbe": {"httpGet": {"path": "/", "port": 9000}, "periodSeconds": 1, "timeoutSeconds": 2},
        "resources": RESOURCES,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"bare": "yes"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [container],
            "terminationGracePeriodSeconds": 1,  # 0: it is gone from the API server before it is from the node
        },
    }


def _count(namespace: str) -> int:
    """Pods, those included that have not ended yet."""
    return len(kubectl("get", "pods", "-n", namespace, "-o", "name").stdout.split())
