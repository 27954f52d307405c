"""The compute nodes: Kubernetes knows them, so they are shown here and not kept."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sessionpools.api.v1alpha1 import Placement
from sessionpools.web.auth.roles import Action, require
from sessionpools.web.errors import NotAllowed
from sessionpools.web.models.base import Answer
from sessionpools.web.poolrows import compute_nodes, endpoint
from sessionpools.web.routes.common import Audited, Web, Who

router = APIRouter(prefix="/computenodes", tags=["Compute nodes"])


class ComputeNodes(Answer):
    """Endpoints as in the rows of pools."""

    compute_nodes: list[str]


@router.get("", operation_id="getComputeNodes")
async def get(web: Web, who: Who) -> ComputeNodes:
    """The nodes that a pool without a placement of its own is on."""
    require(who, Action.READ_COMPUTE_NODES)
    return ComputeNodes(compute_nodes=[endpoint(name) for name in compute_nodes(Placement(), web.cluster.nodes())])


@router.post("", operation_id="setComputeNodes", status_code=405)
async def replace(who: Who, audited: Audited) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, "replace")


@router.put("", operation_id="addComputeNode", status_code=405)
async def add(who: Who, audited: Audited) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, "add")


@router.delete("", operation_id="removeComputeNode", status_code=405)
async def remove(who: Who, audited: Audited) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, "remove")


def _refuse(who: Who, audited: Any, verb: str) -> None:
    with audited(verb, "ComputeNode"):
        require(who, Action.WRITE_COMPUTE_NODES)
        raise NotAllowed(
            "compute nodes are the cluster's nodes: add one to the cluster and pools fill it by themselves; take one "
            "out of service with kubectl cordon or a taint; keep a pool to some with kubectl label and "
            "placement.nodeSelector of its SessionPool",
            {"Allow": "GET"},
            kind="ComputeNodesAreKubernetes",
        )
