"""kopf: it lets the controller know of SessionPools and WebServices as soon as they change, by their keys alone.

kopf's indices, annotations, timers, daemons and finalizers are not used: its watches do not notice what was deleted
while they were down (docs/decisions/2026-11-22-kopf-as-the-shell.md). The truth is what our own reflectors hold, so
kopf may fail, and is begun again.

It has a thread and an event loop of its own, since an operator of kopf that ends, for whatever reason, cancels every
task of its event loop that is younger than itself: here that would be the workers of the queue.
"""

import asyncio
import contextlib
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import kopf

from sessionpools.api import names
from sessionpools.controller.config import Config
from sessionpools.controller.store import Key, Kind
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES, Resource

__all__ = ["follow"]

log = logging.getLogger(__name__)

BEGIN_AGAIN_SECONDS: Final = 10.0
BACKOFF_AT_MOST_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0  # then the thread ends with the process


async def follow(config: Config, told: Callable[[Key], None]) -> None:
    """Calls `told` on this event loop with each key of which there are news, until cancelled. A failure of kopf is
    logged, and no more."""
    loop, own = asyncio.get_running_loop(), asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: own) as runner:
            runner.run(_operate(config, _registry(lambda key: loop.call_soon_threadsafe(told, key)), stop))

    thread = threading.Thread(target=run, name="kopf", daemon=True)
    thread.start()
    try:
        await asyncio.Event().wait()
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended
            own.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join, STOP_SECONDS)


async def _operate(config: Config, registry: kopf.OperatorRegistry, stop: asyncio.Event) -> None:
    with ThreadPoolExecutor() as executor:  # of its own kopf leaves the threads behind
        while not stop.is_set():
            try:
                await kopf.operator(
                    registry=registry,
                    settings=_settings(executor),
                    clusterwide=not config.namespaces,
                    namespaces=config.namespaces,
                    standalone=True,
                    # kopf would make one of the user's name, and a container's user has none
                    identity=cast(Any, config.pod_name or socket.gethostname()),
                    stop_flag=stop,
                )
            except Exception as error:  # an ERROR in a watch, for one, is none that kopf lives through
                log.warning("kopf ended, and is begun again", extra={"error": repr(error)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEGIN_AGAIN_SECONDS):
                    await stop.wait()


def _registry(told: Callable[[Key], object]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)

    def tell(resource: Resource, kind: Kind) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, resource.plural, registry=registry, id=f"tell-{resource.plural}")  # type: ignore[arg-type]
        async def _(name: str, namespace: str, **_: Any) -> None:
            told(Key(kind, namespace, name))

    tell(SESSION_POOLS, Kind.POOL)
    tell(WEB_SERVICES, Kind.SERVICE)
    return registry


class _Backoffs:
    """Seconds between two tries of a request, without end: kopf's own end after 54 s, and the operator with them."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311  jitter
            delay = min(delay * 2, BACKOFF_AT_MOST_SECONDS)


def _settings(executor: ThreadPoolExecutor) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.execution.executor = executor
    settings.scanning.disabled = True  # no right to watch CRDs and namespaces is needed
    settings.posting.enabled = False  # Events are kube.events' business
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Backoffs()
    settings.process.ultimate_exiting_timeout = None  # its end is not the process's
    return settings
