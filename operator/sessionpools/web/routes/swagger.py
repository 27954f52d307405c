"""The description of one service, for generators of clients."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from sessionpools.web.auth.roles import Action, require
from sessionpools.web.publishing import service_missing
from sessionpools.web.routes.common import Name, Version, Web, Who
from sessionpools.web.signatures import inputs_of, operation_id, outputs_of
from sessionpools.web.swagger import service_swagger

router = APIRouter(tags=["Consume"])


@router.get("/api/{name}/{version}/swagger.json", operation_id="getWebServiceSwagger")
async def swagger(web: Web, who: Who, name: Name, version: Version) -> dict[str, Any]:
    """Swagger 2.0 of the service: login, its call and its batches."""
    require(who, Action.READ_SWAGGER)
    service = web.cluster.service(name, version)
    if service is None:
        raise service_missing(name, version)
    return service_swagger(
        name,
        version,
        service.spec.description,
        operation_id(service),
        inputs_of(service),
        outputs_of(service),
    )
