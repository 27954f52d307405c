"""`session-pools-controller`: reads the environment, sets up JSON logs and runs the shell."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys

import uvloop

from sessionpools.controller import shell
from sessionpools.controller.config import ConfigError, from_environment
from sessionpools.kube.jsonlog import log_json

__all__ = ["main"]

EPILOG = """environment:
  SESSIONPOOLS_SESSION_IMAGE              image of sessions whose WebService names none (required)
  SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY  Always, IfNotPresent (default) or Never
  SESSIONPOOLS_WATCH_NAMESPACES           comma-separated; empty: all namespaces
  SESSIONPOOLS_IGNORE_NAMESPACES          comma-separated: all namespaces but these
  SESSIONPOOLS_NODES                      comma-separated names of the compute nodes, where nodes may not be read
  SESSIONPOOLS_MAX_SESSIONS_PER_NODE      of all pools together; 0 (default): no limit
  SESSIONPOOLS_LEASE                      Lease in POD_NAMESPACE whose holder, by its POD_NAME, works while others
                                          stand by; empty: there are no others
  SESSIONPOOLS_GATEWAY_LABELS             selector of the active gateway pod in POD_NAMESPACE, by whose demand
                                          pools with isolation Pod grow; empty: they do not
  SESSIONPOOLS_GATEWAY_PORT               where that pod says what is asked of each pool (default 12801)
  SESSIONPOOLS_LOG_LEVEL                  debug, info (default), warning or error
  SESSIONPOOLS_HTTP_PORT                  /livez, /readyz and /metrics (default 8080)

The cluster is the one of the pod's service account, else the current context of the kubeconfig."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="session-pools-controller",
        description="Keeps the warmed sessions of every SessionPool on every compute node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        config = from_environment(os.environ)
        log_json(config.log_level)
        # What its watches meet, the reflectors meet as well, and say once; that it has failed, controller.news says.
        logging.getLogger("kopf").setLevel(logging.CRITICAL)
        _collect_less()
        ended = contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt)
        with ended, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(shell.run(config))
    except ConfigError as error:
        sys.exit(f"session-pools-controller: {error}")


def _collect_less() -> None:
    """Next to nothing of what is made here is a cycle, and to look for one among 10,000 pods and all modules is slow:
    a third of the processor time that a session pod costs, and pauses of 100 ms (make bench-scale)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


if __name__ == "__main__":
    main()
