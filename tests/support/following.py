"""A reflector that runs, with what it told and how long it slept written down. Used by tests/unit/kube."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from sessionpools.kube.protocol import CONFIG_MAPS, Json, KubeApi
from sessionpools.kube.reflector import Reflector
from support.apiserver import ApiServer
from support.waiting import until


@dataclass(frozen=True)
class View:
    """What parse() keeps of a ConfigMap."""

    name: str
    uid: str
    value: str

    @property
    def shown(self) -> str:
        return f"{self.name}={self.value}"

    @classmethod
    def parse(cls, body: Json) -> View:
        value = body["data"]["value"]
        if value == "nonsense":
            raise ValueError("not understood")
        return cls(body["metadata"]["name"], body["metadata"]["uid"], value)


@dataclass
class Followed:
    """A running reflector, what it told, and how long it slept."""

    server: ApiServer
    changes: list[tuple[str | None, str | None]] = field(default_factory=list)
    views: list[tuple[View | None, View | None]] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    awake: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: it sleeps for ever
    now: float = 100.0
    reflector: Reflector[View] = field(init=False)

    def on_change(self, old: View | None, new: View | None) -> None:
        self.views.append((old, new))
        self.changes.append((old.shown if old else None, new.shown if new else None))

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0)
        await self.awake.wait()

    def held(self) -> dict[str, str]:
        return {view.name: view.value for view in self.reflector.values()}

    def put(self, name: str, value: str, namespace: str = "demo", **labels: str) -> None:
        store = self.server.store
        if any(each["metadata"]["name"] == name for each in store.all(CONFIG_MAPS, namespace)):
            store.edit(CONFIG_MAPS, name, {"data": {"value": value}}, namespace)
        else:
            store.create(
                CONFIG_MAPS, {"metadata": {"name": name, "labels": labels}, "data": {"value": value}}, namespace
            )

    def remove(self, name: str, namespace: str = "demo") -> None:
        self.server.store.delete(CONFIG_MAPS, name, namespace)

    def count(self, verb: str) -> int:
        return sum(request.verb == verb for request in self.server.requests)

    async def caught_up(self) -> None:
        """The watch delivers, and what was done before has been told."""
        self.put("marker", str(self.server.store.version))
        await until(lambda: self.held().get("marker") == self.server_marker(), "the copy to catch up")

    def server_marker(self) -> str:
        return str(self.server.store.get(CONFIG_MAPS, "marker", "demo")["data"]["value"])


@contextlib.asynccontextmanager
async def following(
    server: ApiServer,
    api: KubeApi,
    namespaces: Sequence[str] | None = None,
    selector: str = "",
    ignored: Sequence[str] = (),
    fields: str = "",
) -> AsyncIterator[Followed]:
    followed = Followed(server)
    followed.awake.set()
    followed.reflector = Reflector(
        api,
        CONFIG_MAPS,
        View.parse,
        followed.on_change,
        namespaces,
        selector,
        field_selector=fields,
        ignored=ignored,
        rng=random.Random(1),
        sleep=followed.sleep,
        clock=lambda: followed.now,
    )
    task = asyncio.create_task(followed.reflector.run())
    try:
        yield followed
        assert not task.done(), "the reflector ended"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
