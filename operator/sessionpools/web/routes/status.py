"""GET /status: how the parts are; GET /health: whether this replica answers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.auth.tokens import ISSUER
from sessionpools.web.parts import Parts
from sessionpools.web.routes.common import Web, Who
from sessionpools.web.status import FAIL, PASS, WARN, Part, backends, tree
from sessionpools.web.store.errors import StoreError

router = APIRouter(tags=["Status"])

# The API server sends a bookmark about every minute: silence for longer is a watch that is broken.
SILENT_SECONDS = 180.0
STORE_SECONDS = 5.0  # whoever asks how things are wants to know it even if the store hangs
AUTH_OFF = (
    "AUTHENTICATION IS TURNED OFF (SESSIONPOOLS_AUTH_ENABLED=false): whoever reaches this server may publish code, run "
    "it and delete services"
)


@router.get("/status", operation_id="status")
async def status(web: Web, who: Who) -> dict[str, Any]:
    """A tree of parts, each pass, warn or fail: compute nodes, authentication, database (the artifact store),
    Kubernetes, gateways."""
    require(who, Action.READ_STATUS)
    cluster = web.cluster
    store = await _store(web)
    components = {
        "backends": backends(cluster.nodes(), cluster.pools()),
        "authentication": _authentication(web).to_json(),
        "database": store.to_json(),
        "kubernetes": _kubernetes(web).to_json(),
        "gateways": _gateways(web).to_json(),
    }
    details: dict[str, Any] = {"namespace": cluster.namespace, "replica": web.settings.pod}
    if not web.auth.enabled:
        details["warning"] = AUTH_OFF
    return tree(components, details)


@router.get("/health", operation_id="health")
async def health() -> dict[str, str]:
    """Answers while this replica does; needs no token."""
    return {"status": "ok"}


def _authentication(web: Parts) -> Part:
    if not web.auth.enabled:
        return Part(WARN, {"enabled": False, "message": AUTH_OFF})
    if not web.auth.ready:
        return Part(FAIL, {"enabled": True, "message": "there is no key to sign access tokens with"})
    return Part(PASS, {"enabled": True, "authority": ISSUER, "type": "local users"})


async def _store(web: Parts) -> Part:
    details: dict[str, Any] = {"type": web.store.url.partition(":")[0], "name": web.store.url}
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await web.store.check()
    except (StoreError, TimeoutError) as error:
        message = str(error) or f"it does not answer within {STORE_SECONDS:g} s"
        return Part(FAIL, details | {"state": "Unavailable", "message": message})
    return Part(PASS, details | {"state": "Open"})


def _kubernetes(web: Parts) -> Part:
    silent = web.cluster.silent_seconds
    details = {"silentSeconds": round(silent, 1)}
    if silent > SILENT_SECONDS:
        return Part(FAIL, details | {"message": "the API server can not be reached: what is shown here is of then"})
    return Part(PASS, details)


def _gateways(web: Parts) -> Part:
    count = web.gateways.count
    if not count:
        return Part(WARN, {"pods": 0, "message": "no gateway pod has an address: calls are not served"})
    return Part(PASS, {"pods": count})
