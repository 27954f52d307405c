"""Asks the gateway pods for their metrics: how much is asked of a pool. They are found by label.

Each gateway counts the calls that it took, so all are asked, standbys too; one that does not answer in time is left
out.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

import httpx

from sessionpools.kube import protocol
from sessionpools.kube.protocol import Json, KubeApi
from sessionpools.kube.reflector import Reflector
from sessionpools.web.usage import GatewayFigures, figures

__all__ = ["Gateways"]

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 2.0  # what the pods say of a pool is told without a gateway that hangs


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str
    address: str


class Gateways:
    """`namespace` and `selector` are those of the gateway pods, `port` that of their metrics."""

    def __init__(self, api: KubeApi, namespace: str, selector: str, port: int) -> None:
        self._port = port
        self._pods = Reflector(api, protocol.PODS, _pod, lambda old, new: None, [namespace], selector)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._pods.run()
        finally:
            await self._http.aclose()

    @property
    def count(self) -> int:
        return sum(bool(pod.address) for pod in self._pods.values())

    async def figures(self, namespace: str, pool: str) -> list[GatewayFigures]:
        """Of those that answer."""
        pods = [pod for pod in self._pods.values() if pod.address]
        found = await asyncio.gather(*(self._ask(pod, namespace, pool) for pod in pods))
        return [each for each in found if each is not None]

    async def _ask(self, pod: _Pod, namespace: str, pool: str) -> GatewayFigures | None:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            response = await self._http.get(f"http://{host}:{self._port}/metrics")
            response.raise_for_status()
            return await asyncio.to_thread(figures, response.text, namespace, pool)
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("gateway not asked", extra={"pod": pod.name, "error": str(error) or type(error).__name__})
            return None


def _pod(body: Json) -> _Pod:
    return _Pod(body["metadata"]["name"], (body.get("status") or {}).get("podIP") or "")
