"""What the sessions of a service have written last: the ends of their pods' logs, each by a request to the API server,
which asks the pod's kubelet.

All is bounded, as the pods run users' code and kubelets may be away: pods, bytes and seconds of each, and how many are
read at once. In all that is less than a client waits for an answer. A log that can not be read says why in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sessionpools.core.model import PodView
from sessionpools.kube.protocol import KubeError, NotFound
from sessionpools.web.cluster import Cluster
from sessionpools.web.models.logs import PodLog
from sessionpools.web.poolrows import endpoint

__all__ = ["LINES_AT_MOST", "PODS_AT_MOST", "chosen", "logs_of"]

LINES_AT_MOST: Final = 10_000
PODS_AT_MOST: Final = 64
AT_ONCE: Final = 16
SECONDS_EACH: Final = 5.0
BYTES_EACH: Final = 256 << 10  # 16 MiB in all


def chosen(pods: Sequence[PodView]) -> list[PodView]:
    """Those that are read, by node and name. Of too many those that are not ready: their logs say why."""
    first = sorted(pods, key=lambda pod: (pod.ready, *_place(pod)))[:PODS_AT_MOST]
    return sorted(first, key=_place)


async def logs_of(cluster: Cluster, pods: Sequence[PodView], lines: int) -> list[PodLog]:
    """The last lines of each."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def read(pod: PodView) -> PodLog:
        async with turns:
            return await _log_of(cluster, pod, lines)

    return list(await asyncio.gather(*(read(pod) for pod in pods)))


async def _log_of(cluster: Cluster, pod: PodView, lines: int) -> PodLog:
    text, cut = b"", False
    error: str | None = None
    try:
        async with asyncio.timeout(SECONDS_EACH):
            text, cut = await _end_of(cluster, pod.name, lines)
    except TimeoutError:
        error = f"its node has not answered for {SECONDS_EACH:g} s"
    except NotFound:
        error = "the pod is gone, or its node has not heard of it yet"
    except KubeError as refused:
        error = str(refused)
    return PodLog(
        node=pod.owner.node,
        compute_node_endpoint=endpoint(pod.owner.node),
        pod=pod.name,
        lines=text.decode("utf-8", "replace").removesuffix("\n").split("\n") if text else [],
        cut=cut,
        error=error,
    )


async def _end_of(cluster: Cluster, pod: str, lines: int) -> tuple[bytes, bool]:
    """The last lines, and whether there is more among those that were asked for. What is too large comes without its
    end, which is what matters, so fewer lines are read until they fit."""
    asked = lines
    while True:
        text = await cluster.log(pod, lines, BYTES_EACH)
        fits = len(text) < BYTES_EACH
        if fits or lines == 1:
            return text, not fits or lines < asked
        lines //= 2


def _place(pod: PodView) -> tuple[str, str]:
    return pod.owner.node, pod.name
