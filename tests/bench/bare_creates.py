"""What it costs at the least, in Python on this machine, to ask for a session pod: one POST by aiohttp, and its answer.

The client of the controller is not used, so that it can be held to this. Nothing is created (dry run), so nothing
follows from it either: no watch, no scheduler.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import aiohttp
import orjson

from sessionpools.kube.credentials import Credentials
from sessionpools.kube.protocol import PODS, Json

CREATES: Final = 1000
IN_FLIGHT: Final = 16  # as the controller's client has
# Of what the API server has of a pod, what it does not take from others.
_NOT_SENT: Final = frozenset({"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"})


async def cpu_ms(context: str, pod: Json) -> float:
    """Milliseconds of this process's processor time for each of CREATES requests to create a pod like `pod`."""
    credentials = Credentials.from_kubeconfig(context, None)
    await credentials.load()
    headers = {"Content-Type": "application/json", "Authorization": credentials.authorization()}
    url = credentials.url + PODS.path(pod["metadata"]["namespace"])
    bodies = iter([_body(pod, number) for number in range(IN_FLIGHT + CREATES)])
    async with aiohttp.ClientSession(headers={key: value for key, value in headers.items() if value}) as http:

        async def create(body: Json) -> None:
            async with http.post(
                url,
                params={"dryRun": "All"},
                data=orjson.dumps(body),
                ssl=credentials.ssl,
                server_hostname=credentials.server_name,
            ) as response:
                answer = orjson.loads(await response.read())
                if response.status != 201:
                    raise RuntimeError(f"a pod like {pod['metadata']['name']} is refused: {answer.get('message')}")

        async def work(mine: Iterator[Json]) -> None:
            for body in mine:
                await create(body)

        await asyncio.gather(*(create(next(bodies)) for _ in range(IN_FLIGHT)))  # connects
        before = time.process_time()
        await asyncio.gather(*(work(bodies) for _ in range(IN_FLIGHT)))
        return (time.process_time() - before) * 1000 / CREATES


def _body(pod: Json, number: int) -> Json:
    metadata = {key: value for key, value in pod["metadata"].items() if key not in _NOT_SENT}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "name": f"{metadata['name']}-{number}"},
        "spec": {key: value for key, value in pod["spec"].items() if key != "nodeName"},
    }
