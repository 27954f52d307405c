"""Dedicated pools: the request (facts: the operation createOrUpdateServicePool) and the rows of its answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from sessionpools.api.v1alpha1 import State
from sessionpools.web.models.base import Answer, Body

__all__ = ["PoolRequest", "PoolRow"]

# As the kind SessionPool has it.
Size = Annotated[int, Field(strict=True, ge=0, le=1000)]


class PoolRequest(Body):
    """Sizes on every compute node. One that is left out stays as it is, and is 0 for a new pool."""

    # A mistyped size would make a pool of size 0, and say that all is well.
    model_config = ConfigDict(extra="forbid")

    initial_pool_size: Size | None = None
    """Sessions that are warmed on every compute node and stay; at most maxPoolSize."""
    max_pool_size: Size | None = None
    """The most sessions that a compute node ever holds; at least initialPoolSize."""


class PoolRow(Answer):
    """The pool on one compute node."""

    compute_node_endpoint: str
    """The node, as http://NODE:12805/. Nothing listens there: it is the form in which Machine Learning Server names
    nodes."""
    status: State
    """Success: its sessions are ready. Pending: they are awaited, or not gone yet. NotFound: the node has none."""
