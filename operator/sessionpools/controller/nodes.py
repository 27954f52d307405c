"""The compute nodes of a controller that may not read nodes: those that the administrator has named.

A Role can give no right to nodes, as they have no namespace. Of a named node nothing is known but its name: it is taken
for Ready, schedulable and without taints. What it really is the scheduler and the kubelet say, through the pods.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

from sessionpools.controller.config import Config, ConfigError
from sessionpools.core.model import NodeView
from sessionpools.kube import protocol
from sessionpools.kube.protocol import Forbidden, KubeApi, KubeError

__all__ = ["NamedNodes", "require_nodes"]

RIGHTS_TRIES: Final = 5  # rights that were given together with the controller hold a moment later
RIGHTS_AGAIN_SECONDS: Final = 1.0
HOSTNAME: Final = "kubernetes.io/hostname"  # the one label that can be told: kubelets set it to the node's name


class NamedNodes:
    """In place of a Reflector of nodes; what it holds never changes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.synced = asyncio.Event()
        self.synced.set()
        self._views = {name: NodeView(name, f"named/{name}", True, True, {HOSTNAME: name}) for name in names}

    def values(self) -> Iterator[NodeView]:
        return iter(self._views.values())

    def get(self, namespace: str, name: str) -> NodeView | None:
        """As a Reflector has it; nodes have no namespace."""
        return None if namespace else self._views.get(name)

    @property
    def last_seen(self) -> float:
        return time.monotonic()

    async def run(self) -> None:
        return


async def require_nodes(api: KubeApi, config: Config) -> None:
    """Raises ConfigError if nodes may not be read and none are named. Only where namespaces are, as the chart's
    ClusterRole is then not needed for anything else; an API server that can not be reached says nothing of it."""
    if config.nodes or not config.namespaces:
        return
    refusal = ""
    for attempt in range(RIGHTS_TRIES):
        if attempt:
            await asyncio.sleep(RIGHTS_AGAIN_SECONDS)
        try:
            await api.list_page(protocol.NODES, limit=1)
        except Forbidden as error:
            refusal = error.message
        except KubeError:
            return
        else:
            return
    raise ConfigError(
        f"nodes can not be read ({refusal}), and SESSIONPOOLS_NODES names none: name the compute nodes (the chart's "
        "value watch.nodes), or bind a ClusterRole that may get, list and watch nodes to this account "
        "(docs/operations/install.md)"
    )
