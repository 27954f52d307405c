"""What the sessions of a service print."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.errors import Missing
from sessionpools.web.logs import LINES_AT_MOST, chosen, logs_of
from sessionpools.web.models.logs import ServiceLogs
from sessionpools.web.publishing import service_missing
from sessionpools.web.routes.common import Name, Version, Web, Who, pool_missing
from sessionpools.web.signatures import owner_of

router = APIRouter(tags=["Services"])

NODES_TOLD: Final = 5
Lines = Annotated[int, Query(ge=1, le=LINES_AT_MOST, description="How many of each session pod.")]
Node = Annotated[str, Query(description="Only the session pods of this node; without it, of all.")]


@router.get("/services/{name}/{version}/logs", operation_id="getWebServiceLogs")
async def logs(web: Web, who: Who, name: Name, version: Version, lines: Lines = 100, node: Node = "") -> ServiceLogs:
    """The last lines that the sessions of the service's pool have written."""
    cluster = web.cluster
    service = cluster.service(name, version)
    require(who, Action.READ_LOGS, owner_of(service) if service else None)
    if service is None:
        raise service_missing(name, version)
    pool = cluster.pool(name, version)
    if pool is None:
        raise pool_missing(name, version)
    pods = [pod for pod in cluster.pods(name, version) if pod.owner.pool_uid == pool.metadata.uid]
    found = [pod for pod in pods if node in ("", pod.owner.node)]
    if node and not found:
        nodes = sorted({pod.owner.node for pod in pods})
        told = ", ".join([*nodes[:NODES_TOLD], *(["..."] if len(nodes) > NODES_TOLD else [])])
        raise Missing(
            f"service {name!r} version {version!r} has no session pod on node {node!r}; it has some on: "
            f"{told or 'none'}",
            kind="NodeNotFound",
        )
    read = chosen(found)
    return ServiceLogs(
        name=name, version=version, pods=await logs_of(cluster, read, lines), not_read=len(found) - len(read)
    )
