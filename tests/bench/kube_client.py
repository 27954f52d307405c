"""What a create costs, by client: 1,000 ConfigMaps or pods with 16 in flight, each client alternating with the other.

    python -m bench.kube_client                                   # the in-process server, in a process of its own
    python -m bench.kube_client --context kind-sessionpools-test  # a real one
    options: --count 1000 --in-flight 16 --passes 7 --kind pods

Run it with PYTHONPATH=operator:tests. Prints the CPU time of this process per create and the creates per second, each
the median of the passes with their range, and the ratios of the paired passes. What it
found, and what followed: docs/decisions/2026-11-22-kubernetes-client.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api
from kubernetes.aio.config import load_kube_config

from sessionpools.kube.client import HttpKubeApi
from sessionpools.kube.credentials import Credentials
from sessionpools.kube.protocol import CONFIG_MAPS, NAMESPACES, PODS, Json, KubeApi, NotFound, Resource

SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
Create = Callable[[Json], Awaitable[object]]


@dataclass(frozen=True)
class Pass:
    cpu_ms: float  # a create
    per_second: float


def body(kind: str, name: str) -> Json:
    """About what the controller sends for a session pod."""
    if kind == "configmaps":
        return {"metadata": {"name": name}, "data": {"key": "value"}}
    probe = {"httpGet": {"path": "/readyz", "port": 8999}, "periodSeconds": 1}
    environment = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(5)]
    mounts = [{"name": f"volume-{n}", "mountPath": f"/etc/{n}", "readOnly": True} for n in range(3)]
    container = {
        "name": "session",
        "image": "session:1",
        "env": environment,
        "volumeMounts": mounts,
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "nodeSelector": {"bench/none": "true"},
        "automountServiceAccountToken": False,
        "volumes": [{"name": f"volume-{n}", "emptyDir": {}} for n in range(3)],
    }
    labels = {f"sessionpools.dev/label-{n}": "x" * 20 for n in range(6)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


async def measure(create: Create, kind: str, count: int, in_flight: int) -> Pass:
    run = secrets.token_hex(4)
    names = iter(range(count))

    async def work() -> None:
        for number in names:
            await create(body(kind, f"bench-{run}-{number}"))

    cpu, began = time.process_time(), time.monotonic()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return Pass((time.process_time() - cpu) * 1000 / count, count / (time.monotonic() - began))


@contextlib.asynccontextmanager
async def thin(context: str, url: str) -> AsyncIterator[KubeApi]:
    credentials = Credentials.from_kubeconfig(context, None) if context else Credentials.anonymous(url)
    api = await HttpKubeApi.open(credentials)
    try:
        yield api
    finally:
        await api.close()


@contextlib.asynccontextmanager
async def official(context: str, url: str) -> AsyncIterator[CoreV1Api]:
    configuration = Configuration()
    if context:
        await load_kube_config(None, context, configuration)  # type: ignore[no-untyped-call]
    else:
        configuration.host = url
    async with ApiClient(configuration) as client:
        yield CoreV1Api(client)


@contextlib.contextmanager
def server(context: str) -> Iterator[str]:
    """The URL of an in-process server in a process of its own; "" if a real one is asked for."""
    if context:
        yield ""
        return
    with subprocess.Popen([sys.executable, "-m", "support.apiserver"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


async def prepare(api: KubeApi, namespace: str, context: str) -> None:
    if not context:
        return
    await api.create(NAMESPACES, {"metadata": {"name": namespace}})
    while True:
        with contextlib.suppress(NotFound):
            await api.get(SERVICE_ACCOUNTS, "default", namespace=namespace)
            return
        await asyncio.sleep(0.1)


async def compare(options: argparse.Namespace, url: str) -> None:
    context, kind = options.context, options.kind
    namespace = f"bench-{secrets.token_hex(4)}"
    async with thin(context, url) as api, official(context, url) as core:
        await prepare(api, namespace, context)
        make: Any = core.create_namespaced_pod if kind == "pods" else core.create_namespaced_config_map
        what = PODS if kind == "pods" else CONFIG_MAPS
        clients: dict[str, Create] = {
            "thin aiohttp": lambda each: api.create(what, each, namespace=namespace),
            "kubernetes.aio": lambda each: make(namespace, each),
        }
        passes: dict[str, list[Pass]] = {name: [] for name in clients}
        try:
            for create in clients.values():  # warm up: imports, connections
                await measure(create, kind, 50, options.in_flight)
            for _ in range(options.passes):
                for name, create in clients.items():
                    passes[name].append(await measure(create, kind, options.count, options.in_flight))
        finally:
            if context:
                await api.delete(NAMESPACES, namespace)
    report(options, passes)


def report(options: argparse.Namespace, passes: dict[str, list[Pass]]) -> None:
    where = options.context or "the in-process server"
    print(f"{options.count} {options.kind}, {options.in_flight} in flight, {options.passes} passes, against {where}")
    for name, each in passes.items():
        cpu, rate = [one.cpu_ms for one in each], [one.per_second for one in each]
        print(
            f"{name:15} {statistics.median(cpu):5.2f} ms CPU a create ({min(cpu):.2f} to {max(cpu):.2f}), "
            f"{statistics.median(rate):5.0f} creates/s ({min(rate):.0f} to {max(rate):.0f})"
        )
    first, second = passes.values()
    ratios = [a.cpu_ms / b.cpu_ms for a, b in zip(first, second, strict=True)]
    print(f"CPU ratio of the pairs: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--context", default="")
    parser.add_argument("--kind", choices=["configmaps", "pods"], default="pods")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--passes", type=int, default=7)
    options = parser.parse_args()
    with server(options.context) as url:
        asyncio.run(compare(options, url))


if __name__ == "__main__":
    main()
