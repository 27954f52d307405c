"""`session-pools-web`: the REST API on 12802, bundles for session pods on 12803, health and metrics on 12804.

Told to end (SIGTERM), it takes no further connections, finishes the requests that it has, gives batches back to other
replicas, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from sessionpools.kube.client import connect
from sessionpools.kube.jsonlog import log_json
from sessionpools.web.app import create_app
from sessionpools.web.bundleserver import create_bundle_server
from sessionpools.web.health import create_health_server
from sessionpools.web.metrics import Metrics
from sessionpools.web.parts import assemble
from sessionpools.web.settings import ENVIRONMENT, STORE_URL, Settings, SettingsError, from_environment
from sessionpools.web.store.errors import StoreError, StoreUnavailable, StoreUnfit
from sessionpools.web.store.objects import ObjectStore
from sessionpools.web.store.room import sweep

__all__ = ["Server", "main", "serve"]

_log = logging.getLogger(__name__)

# For requests under way, then batches (web.batch) have their time: both within the chart's
# web.terminationGracePeriodSeconds, 60.
FINISH_SECONDS: Final = 15

EPILOG: Final = "environment:\n" + "\n".join(
    f"  {name:<34}{meaning}{f' (default {default})' if default else ''}" for name, default, meaning in ENVIRONMENT
)


class Server(uvicorn.Server):
    """One of several in a process: signals are handled by `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    _parser().parse_args(arguments)
    try:
        settings = from_environment(os.environ)
        store = ObjectStore.open(settings.store_url)
    except SettingsError as error:
        sys.exit(f"session-pools-web: {error}")
    except (StoreUnavailable, ValueError) as error:
        sys.exit(f"session-pools-web: {STORE_URL}: {error}")
    log_json(settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call of a batch
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(settings, store))
        except StoreUnfit as error:
            sys.exit(f"session-pools-web: {STORE_URL}: {error}")
        except SettingsError as error:
            sys.exit(f"session-pools-web: {error}")


async def serve(settings: Settings, store: ObjectStore) -> None:
    """Until SIGTERM or SIGINT. Raises StoreUnfit, and SettingsError for a port that is taken."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await asyncio.to_thread(sweep)
    try:
        await store.verify()
    except StoreUnfit:
        raise
    except StoreError as error:  # it may come back, and what needs it answers 503 until then
        _log.error("artifact store not usable", extra={"store": store.url, "error": str(error)})
    api = await connect(component="session-pools-web")
    metrics = Metrics()
    parts = assemble(api, settings, store)
    health = create_health_server(metrics, parts.not_ready_because)
    try:
        servers = [
            (_server(create_app(parts, metrics)), _listen(settings.rest_port, "SESSIONPOOLS_REST_PORT")),
            (_server(create_bundle_server(parts.bundles)), _listen(settings.bundles_port, "SESSIONPOOLS_BUNDLES_PORT")),
            (_server(health), _listen(settings.http_port, "SESSIONPOOLS_HTTP_PORT")),
        ]
        async with asyncio.TaskGroup() as group:
            background = group.create_task(parts.run())
            serving = [group.create_task(server.serve([listening])) for server, listening in servers]
            await ended.wait()
            _log.info("ending")
            for server, _ in servers:
                server.should_exit = True
            await asyncio.wait(serving)
            background.cancel()
    finally:
        await api.close()


def _listen(port: int, variable: str) -> socket.socket:
    """On every address, of both kinds where there are both."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise SettingsError(f"{variable}: port {port}: {os.strerror(error.errno or 0)}") from error


def _server(app: ASGIApp) -> Server:
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # X-Forwarded-For is read by edge.py, by the rules of web.auth.audit
        timeout_graceful_shutdown=FINISH_SECONDS,
        ws="none",
    )
    return Server(config)


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="session-pools-web",
        description="Machine Learning Server's REST API: publish, pool, batch, log in.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    main()
