"""What tests/contract asks of an API server, in few words. Used by those tests only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sessionpools.kube.protocol import (
    CONFIG_MAPS,
    PODS,
    Json,
    KubeApi,
    NotFound,
    Resource,
    WatchEvent,
)
from support.apiserver import ApiServer
from support.kubelet import Kubelet

IMAGE = "session-pools-session:dev"  # what runs in the real cluster is made of it


@dataclass
class Cluster:
    api: KubeApi
    namespace: str
    node: str  # one that runs pods
    pools: Resource  # SessionPools that no controller looks after
    fake: ApiServer | None = None

    def config_map(self, name: str, labels: dict[str, str] | None = None, **metadata: Any) -> Json:
        return {"metadata": {"name": name, "labels": labels or {}, **metadata}, "data": {"key": "value"}}

    async def create(self, name: str, labels: dict[str, str] | None = None, **metadata: Any) -> Json:
        return await self.api.create(CONFIG_MAPS, self.config_map(name, labels, **metadata), namespace=self.namespace)

    async def get(self, name: str, resource: Resource = CONFIG_MAPS) -> Json:
        return await self.api.get(resource, name, namespace=self.namespace)

    async def delete(self, name: str, resource: Resource = CONFIG_MAPS, **options: Any) -> None:
        await self.api.delete(resource, name, namespace=self.namespace, **options)

    async def patch(self, name: str, body: Json, resource: Resource = CONFIG_MAPS) -> Json:
        return await self.api.merge_patch(resource, name, body, namespace=self.namespace)

    async def apply_status(self, name: str, status: Json, manager: str) -> Json:
        body = {"status": status}
        return await self.api.apply_status(
            self.pools, name, body, namespace=self.namespace, field_manager=manager
        )  # fmt: skip

    async def pool(self, name: str) -> Json:
        spec = {"serviceName": name, "serviceVersion": "v1", "initialPoolSize": 1, "maxPoolSize": 2}
        return await self.api.create(self.pools, {
            "apiVersion": self.pools.api_version, "kind": self.pools.kind,
            "metadata": {"name": name}, "spec": spec, "status": {"state": "Success"},
        }, namespace=self.namespace)  # fmt: skip

    async def pod(self, name: str, *, bound: bool, **metadata: Any) -> Json:
        """A pod that never runs: on no node, or on one that may not pull its image."""
        container = {"name": "main", "image": "contract.test/none:1", "imagePullPolicy": "Never"}
        spec: Json = {"containers": [container], "automountServiceAccountToken": False}
        spec |= {"nodeName": self.node} if bound else {"nodeSelector": {"contract.test/none": "true"}}
        body = {"metadata": {"name": name, **metadata}, "spec": spec}
        return await self.api.create(PODS, body, namespace=self.namespace)

    async def printing(self, name: str, text: str) -> None:
        """A pod whose container has written this, and sleeps."""
        command = ["python", "-c", f"import time; print({text!r}, end='', flush=True); time.sleep(3600)"]
        container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": command}
        spec = {"containers": [container], "automountServiceAccountToken": False, "nodeName": self.node,
                "terminationGracePeriodSeconds": 0}  # fmt: skip
        await self.api.create(PODS, {"metadata": {"name": name}, "spec": spec}, namespace=self.namespace)
        if self.fake:
            self.fake.logs[self.namespace, name] = text
        self.kubelets_act()

    async def log(self, name: str, container: str = "main", *, lines: int = 100, limit_bytes: int = 1000) -> str:
        log = self.api.log(name, container, namespace=self.namespace, lines=lines, limit_bytes=limit_bytes)
        return (await log).decode()

    def kubelets_act(self) -> None:
        """In the in-process cluster someone has to say so."""
        if self.fake:
            Kubelet(self.fake.store).settle()

    async def names(self, selector: str = "", **options: Any) -> list[str]:
        page = await self.api.list_page(
            CONFIG_MAPS, namespace=self.namespace, label_selector=selector, **options
        )  # fmt: skip
        return [item["metadata"]["name"] for item in page["items"]]

    async def version(self) -> str:
        """A resourceVersion to watch from."""
        page = await self.api.list_page(CONFIG_MAPS, namespace=self.namespace, limit=1)
        return str(page["metadata"]["resourceVersion"])

    def watch(self, version: str, resource: Resource = CONFIG_MAPS, **options: Any) -> AsyncIterator[WatchEvent]:
        return self.api.watch(resource, namespace=self.namespace, resource_version=version, **options)

    async def events(
        self, version: str, count: int, resource: Resource = CONFIG_MAPS, **options: Any
    ) -> list[WatchEvent]:
        """The first `count` events after `version`, bookmarks apart."""
        found: list[WatchEvent] = []
        async with asyncio.timeout(20):
            async for event in self.watch(version, resource, **options):
                if event.type != "BOOKMARK":
                    found.append(event)
                if len(found) == count:
                    break
        return found

    async def gone(self, name: str, resource: Resource = CONFIG_MAPS) -> None:
        async def is_gone() -> bool:
            with contextlib.suppress(NotFound):
                await self.get(name, resource)
                return False
            return True

        await eventually(is_gone, f"{resource} {name} to be gone")


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"waited {seconds} s for {what}")
