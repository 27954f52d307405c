"""What the gateways say is asked of each pool: a stream from each active gateway pod, with no API call in between.

Active gateway pods are found by label in the release's own namespace. While none answers nothing is known of any pool;
while one takes over from another both may have calls, and what they say is added up.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from sessionpools.core.demand import Demand
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Json, KubeApi
from sessionpools.kube.reflector import Reflector

__all__ = ["PORT", "DemandFeed"]

log = logging.getLogger(__name__)

PORT: Final = 12801
RETRY_SECONDS: Final = 0.5
CONNECT_SECONDS: Final = 2.0
SILENCE_SECONDS: Final = 15.0  # a gateway shows that it lives every 5 s
LINE_AT_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Gateway:
    uid: str
    name: str
    address: str


@dataclass(slots=True)
class _Stream:
    task: asyncio.Task[None]
    pools: dict[str, Demand] | None = None  # None: it does not answer
    trouble: str = field(default="")


class DemandFeed:
    """`changed(uids)` is called with the uids of the pools whose demand has changed, on the event loop; with None when
    it has become known or unknown for all. It must be cheap and do no I/O."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        selector: str,
        changed: Callable[[Collection[str] | None], None],
        port: int = PORT,
    ) -> None:
        self._changed = changed
        self._port = port
        self._streams: dict[str, _Stream] = {}
        self._wanted: dict[str, _Gateway] = {}
        self._moved = asyncio.Event()
        self._reflector = Reflector(api, protocol.PODS, _gateway, self._pod_changed, [namespace], selector)

    def of(self, pool_uid: str) -> Demand | None:
        """None: nothing is known of it."""
        said = [s.pools[pool_uid] for s in self._streams.values() if s.pools is not None and pool_uid in s.pools]
        if not said:
            return None
        return Demand(sum(d.busy for d in said), sum(d.queued for d in said), _common([d.pods for d in said]))

    @property
    def gateways(self) -> int:
        """Gateway pods that answer."""
        return sum(stream.pools is not None for stream in self._streams.values())

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(trust_env=False) as http, asyncio.TaskGroup() as group:
            group.create_task(self._reflector.run())
            while True:
                self._moved.clear()
                for uid in self._streams.keys() - self._wanted.keys():
                    stream = self._streams.pop(uid)
                    stream.task.cancel()
                    if stream.pools is not None:
                        self._changed(None)
                for uid in self._wanted.keys() - self._streams.keys():
                    task = group.create_task(self._follow(http, self._wanted[uid]))
                    self._streams[uid] = _Stream(task)
                await self._moved.wait()

    def _pod_changed(self, old: _Gateway | None, new: _Gateway | None) -> None:
        if old is not None and old != new:
            self._wanted.pop(old.uid + old.address, None)
        if new is not None and new.address:
            self._wanted[new.uid + new.address] = new
        self._moved.set()

    async def _follow(self, http: aiohttp.ClientSession, gateway: _Gateway) -> None:
        stream = self._streams[gateway.uid + gateway.address]
        host = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
        url = f"http://{host}:{self._port}/demand?watch"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        while True:
            trouble = "it has ended the stream"
            try:
                async with http.get(url, timeout=timeout, allow_redirects=False) as response:
                    response.raise_for_status()
                    async for line in _lines(response.content):
                        self._take(stream, json.loads(line))
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ) as error:
                trouble = str(error) or type(error).__name__
            known = stream.pools is not None
            stream.pools = None
            if known:
                self._changed(None)
            if trouble != stream.trouble:
                stream.trouble = trouble
                log.warning("gateway's demand is not known", extra={"pod": gateway.name, "error": trouble})
            await asyncio.sleep(RETRY_SECONDS)

    def _take(self, stream: _Stream, said: Any) -> None:
        first = stream.pools is None
        pools: dict[str, Demand] = {} if stream.pools is None else stream.pools
        changes = {
            uid: None if demand is None else Demand(int(demand["busy"]), int(demand["queued"]), _pods(demand))
            for uid, demand in said["pools"].items()
        }
        pools |= {uid: demand for uid, demand in changes.items() if demand is not None}
        for uid in [uid for uid, demand in changes.items() if demand is None]:
            pools.pop(uid, None)
        stream.pools, stream.trouble = pools, ""
        if first:
            self._changed(None)
        elif changes:
            self._changed(changes.keys())


def _pods(demand: Any) -> dict[str, int] | None:
    """None: a gateway of an earlier version, which does not say."""
    return {revision: int(count) for revision, count in demand["pods"].items()} if "pods" in demand else None


def _common(said: Sequence[Mapping[str, int] | None]) -> dict[str, int] | None:
    """What each of several gateways has; None if one of them does not say."""
    known = [pods for pods in said if pods is not None]
    if len(known) < len(said):
        return None
    return {revision: min(pods.get(revision, 0) for pods in known) for pods in known for revision in pods}


def _gateway(pod: Json) -> _Gateway:
    metadata, status = pod["metadata"], pod.get("status") or {}
    return _Gateway(metadata["uid"], metadata["name"], status.get("podIP") or "")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    pending = b""
    while chunk := await stream.readany():
        *whole, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_AT_MOST_BYTES:
            raise ValueError(f"a line of more than {LINE_AT_MOST_BYTES} bytes")
        for line in whole:
            yield line
