"""The process: connections, signals, start and stop."""

import asyncio
import contextlib
import logging
import signal

from sessionpools.controller import health, leader, news
from sessionpools.controller.app import App
from sessionpools.controller.config import Config
from sessionpools.controller.metrics import Metrics
from sessionpools.controller.nodes import require_nodes
from sessionpools.kube.client import connect

__all__ = ["run"]

log = logging.getLogger(__name__)


async def run(config: Config) -> None:
    """The controller, until it is cancelled or told to end by SIGTERM or SIGINT (CancelledError), or one of its parts
    fails (another exception, so that Kubernetes restarts it). Work is stopped first, then the Lease is released. A
    ConfigError says that nothing can be done with these settings."""
    this = asyncio.current_task()
    assert this is not None  # noqa: S101
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, this.cancel)
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        election = None
        if config.lease:
            lease_api = await connect(observe=metrics.api_call)
            stack.push_async_callback(lease_api.close)
            election = leader.election(lease_api, config)
        api = await connect(observe=metrics.api_call, may_write=lambda: election is None or election.leading)
        stack.push_async_callback(api.close)
        app = App(api, config, election=election, metrics=metrics)
        state = health.Health(
            lambda: app.heartbeat, lambda: app.store.last_seen, lambda: app.store.synced, app.stuck_seconds
        )
        runner = await health.serve(state, metrics, config.http_port)
        stack.push_async_callback(runner.cleanup)
        await require_nodes(api, config)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(app.run(), name="controller")
                group.create_task(news.follow(config, app.enqueue), name="news")
        finally:
            log.info("stopped")
