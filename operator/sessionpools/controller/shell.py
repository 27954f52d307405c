"""kopf as the shell: credentials, signals, start and stop, and the first news of a custom resource.

kopf's handlers only enqueue keys. Its indices, annotations, timers, daemons and finalizers are not used: its watches
do not notice what was deleted while they were down (docs/decisions/2026-11-22-kopf-as-the-shell.md).
"""

import asyncio
import logging
import socket
from typing import Any, cast

import kopf

from sessionpools.api import names
from sessionpools.controller import health
from sessionpools.controller.app import App
from sessionpools.controller.config import Config
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.store import Key, Kind
from sessionpools.kube.client import connect
from sessionpools.kube.protocol import SESSION_POOLS, WEB_SERVICES, Resource

__all__ = ["run"]

log = logging.getLogger(__name__)

EXIT_SECONDS = 10  # below the chart's terminationGracePeriodSeconds


async def run(config: Config) -> None:
    """The controller, until SIGTERM or SIGINT, or until one of its parts fails (an exception, so that Kubernetes
    restarts it)."""
    stop = asyncio.Event()
    metrics = Metrics()
    api = await connect(observe=metrics.api_call)
    app = App(api, config, metrics=metrics)
    runner = await health.serve(
        health.Health(lambda: app.heartbeat, lambda: app.store.last_seen, lambda: app.store.synced),
        metrics,
        config.http_port,
    )
    core = asyncio.create_task(app.run(), name="controller")
    core.add_done_callback(lambda _: stop.set())
    try:
        await kopf.operator(
            registry=_registry(app),
            settings=_settings(),
            clusterwide=not config.namespaces,
            namespaces=config.namespaces,
            standalone=True,
            # kopf would make one of the user's name, and a container's user has none
            identity=cast(Any, config.pod_name or socket.gethostname()),
            stop_flag=stop,
        )
    finally:
        core.cancel()
        outcome = (await asyncio.gather(core, return_exceptions=True))[0]
        await runner.cleanup()
        await api.close()
        log.info("stopped")
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            raise outcome


def _registry(app: App) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_via_client)

    def enqueue(resource: Resource, kind: Kind) -> None:
        @kopf.on.event(names.GROUP, names.VERSION, resource.plural, registry=registry, id=f"enqueue-{resource.plural}")  # type: ignore[arg-type]
        async def _(name: str, namespace: str, **_: Any) -> None:
            app.queue.add(Key(kind, namespace, name))

    enqueue(SESSION_POOLS, Kind.POOL)
    enqueue(WEB_SERVICES, Kind.SERVICE)
    return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # no right to watch CRDs and namespaces is needed
    settings.posting.enabled = False  # Events are kube.events' business
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.process.ultimate_exiting_timeout = EXIT_SECONDS
    return settings
