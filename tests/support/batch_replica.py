"""A replica that works on batches until it is killed: python -m support.batch_replica STORE GATEWAY LEASE_SECONDS."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping

from sessionpools.web.batch.batches import Batches, Service
from sessionpools.web.store.objects import ObjectStore


async def headers(service: Service, owner: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {owner}"}


async def main(store_url: str, gateway_url: str, lease_seconds: float) -> None:
    store = ObjectStore.open(store_url)
    batches = Batches(store, gateway_url, headers, "replica", lease_seconds=lease_seconds)
    task = asyncio.create_task(batches.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait([task])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
