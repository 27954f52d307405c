"""Realtime services: models that Machine Learning Server's own engine scores. There is no such engine here."""

from __future__ import annotations

from fastapi import APIRouter

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.errors import Unsupported
from sessionpools.web.routes.common import Audited, Name, Version, Who

router = APIRouter(prefix="/realtime-services", tags=["Realtime services"])


@router.post("/{name}", operation_id="publishRealtimeWebServiceByName", status_code=501)
async def publish(who: Who, audited: Audited, name: Name) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, Action.PUBLISH_SERVICE, name)


@router.post("/{name}/{version}", operation_id="publishRealtimeWebServiceByNameVersion", status_code=501)
async def publish_version(who: Who, audited: Audited, name: Name, version: Version) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, Action.PUBLISH_SERVICE, name, version)


@router.patch("/{name}/{version}", operation_id="patchRealtimeWebServiceByNameVersion", status_code=501)
async def update(who: Who, audited: Audited, name: Name, version: Version) -> None:
    """Not offered; the answer says what to do instead."""
    _refuse(who, audited, Action.UPDATE_SERVICE, name, version)


def _refuse(who: Who, audited: Audited, action: Action, name: str, version: str = "") -> None:
    with audited("publish", "RealtimeService", name, version):
        require(who, action)
        raise Unsupported(
            "realtime services score models of RevoScaleR and MicrosoftML in an engine of their own, which this server "
            "does not have: publish Python code that loads the model once (initCode, or init) and scores with it "
            f"(POST /services/{name}/VERSION); its dedicated pool keeps it loaded",
            kind="RealtimeNotSupported",
        )
