"""The dedicated pool of a service: create or resize, status, usage, delete."""

from __future__ import annotations

from fastapi import APIRouter

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.models.pools import PoolRequest, PoolRow
from sessionpools.web.models.usage import PoolUsage
from sessionpools.web.poolrows import endpoint, node_states
from sessionpools.web.routes.common import Audited, Force, Name, Version, Web, Who, pool_missing
from sessionpools.web.usage import pool_usage

router = APIRouter(tags=["Pools"])

# A pool on hundreds of nodes is asked in part: what is not asked counts as idle.
ASKED_AT_MOST = 256


@router.post("/services/{name}/{version}/pool", operation_id="createOrUpdateServicePool")
async def put(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, body: PoolRequest, force: Force = False
) -> str:
    """Create the pool on all compute nodes, or change its sizes. 200: accepted; its status is Pending until the
    sessions are ready."""
    with audited("write", "Pool", name, version):
        created = await web.pooling.put(who, name, version, body, force)
    return "Created." if created else "Updated."


@router.get("/services/{name}/{version}/pool", operation_id="getServicePoolStatus")
async def status(web: Web, who: Who, name: Name, version: Version) -> list[PoolRow]:
    """The pool on each compute node; NotFound on all of them where there is no pool."""
    require(who, Action.READ_POOL)
    cluster = web.cluster
    states = node_states(cluster.pool(name, version), cluster.nodes(), cluster.pods(name, version))
    return [PoolRow(compute_node_endpoint=endpoint(node), status=state) for node, state in states.items()]


@router.delete("/services/{name}/{version}/pool", operation_id="deleteServicePool")
async def delete(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, force: Force = False
) -> str:  # fmt: skip
    """Delete the pool on all compute nodes. 200: accepted; the status is NotFound on a node once its last session is
    gone. A pool that is not there is deleted already."""
    with audited("delete", "Pool", name, version):
        await web.pooling.delete(who, name, version, force)
    return "Deleted."


@router.get("/services/{name}/{version}/pool/usage", operation_id="getServicePoolUsage")
async def usage(web: Web, who: Who, name: Name, version: Version) -> PoolUsage:
    """What its sessions do now: busy, idle, starting, grown on each node; calls that wait, and how long they waited."""
    require(who, Action.READ_POOL)
    cluster = web.cluster
    pool = cluster.pool(name, version)
    if pool is None:
        raise pool_missing(name, version)
    pods = [pod for pod in cluster.pods(name, version) if pod.owner.pool_uid == pool.metadata.uid]
    asked = [pod for pod in pods if pod.ready and pod.address][:ASKED_AT_MOST]
    reports = await web.pods.reports(asked)
    gateways = await web.gateways.figures(cluster.namespace, pool.metadata.name)
    return pool_usage(pool, node_states(pool, cluster.nodes(), pods), pods, reports, gateways)
