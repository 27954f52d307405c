"""Web services: list, publish, update, delete."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from fastapi import APIRouter, Response

from sessionpools.api import names
from sessionpools.api.v1alpha1 import WebService
from sessionpools.web.auth.roles import Action, may, require
from sessionpools.web.models.services import PublishRequest, ServiceAnswer
from sessionpools.web.objects import bundle_of
from sessionpools.web.parts import Parts
from sessionpools.web.publishing import INIT_BLOCK, SCRIPT, new_version, service_missing
from sessionpools.web.routes.common import Audited, Force, Name, Version, Web, Who
from sessionpools.web.signatures import created_at, inputs_of, operation_id, outputs_of, owner_of, shown

router = APIRouter(tags=["Services"])


@router.get("/services", operation_id="getAllWebServices")
async def list_all(web: Web, who: Who) -> list[ServiceAnswer]:
    """All web services, the newest last."""
    require(who, Action.LIST_SERVICES)
    return await _answers(web, who, web.cluster.services())


@router.get("/services/{name}", operation_id="getAllWebServiceVersionsByName")
async def list_versions(web: Web, who: Who, name: Name) -> list[ServiceAnswer]:
    """All versions of a service, the newest last; none if there is no such service."""
    require(who, Action.LIST_SERVICES)
    return await _answers(web, who, [service for service in web.cluster.services() if service.spec.name == name])


@router.get("/services/{name}/{version}", operation_id="getWebServiceVersion")
async def get(web: Web, who: Who, name: Name, version: Version) -> list[ServiceAnswer]:
    """One version of a service, as a list of one."""
    require(who, Action.LIST_SERVICES)
    service = web.cluster.service(name, version)
    if service is None:
        raise service_missing(name, version)
    return await _answers(web, who, [service])


@router.post("/services/{name}", operation_id="publishWebService", status_code=201)
async def publish(
    web: Web, who: Who, audited: Audited, name: Name, body: PublishRequest, response: Response
) -> str:  # fmt: skip
    """Publish a service under a version that is a GUID; the answer says where it is."""
    return await _publish(web, who, audited, name, new_version(), body, response)


@router.post("/services/{name}/{version}", operation_id="publishWebServiceVersion", status_code=201)
async def publish_version(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, body: PublishRequest, response: Response
) -> str:
    """Publish a version of a service. 403: it exists, or its name is another user's; 409: somebody else was faster."""
    return await _publish(web, who, audited, name, version, body, response)


@router.patch("/services/{name}/{version}", operation_id="patchWebServiceVersion")
async def update(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, body: PublishRequest, force: Force = False
) -> str:
    """Change what the body names; the rest stays. Its sessions are replaced by and by, without a failed call."""
    with audited("update", "Service", name, version):
        await web.publishing.update(who, name, version, body, force)
    return "Updated."


@router.delete("/services/{name}/{version}", operation_id="deleteWebServiceVersion")
async def delete(
    web: Web, who: Who, audited: Audited, name: Name, version: Version, force: Force = False
) -> str:  # fmt: skip
    """Delete a service, and the pool that was made for it through this API. Its calls get 404 from now on."""
    with audited("delete", "Service", name, version):
        await web.publishing.delete(who, name, version, force)
    return "Deleted."


async def _publish(
    web: Parts, who: Who, audited: Audited, name: str, version: str, body: PublishRequest, response: Response
) -> str:
    with audited("publish", "Service", name, version):
        await web.publishing.publish(who, name, version, body)
    path = f"{quote(name, safe='')}/{quote(version, safe='')}"
    response.headers["Location"] = f"/services/{path}"
    return f"/api/{path}"


async def _answers(web: Parts, who: Who, services: list[WebService]) -> list[ServiceAnswer]:
    ordered = sorted(services, key=lambda each: (created_at(each), each.spec.name, each.spec.version))
    return list(await asyncio.gather(*(_answer(web, who, service) for service in ordered)))


async def _answer(web: Parts, who: Who, service: WebService) -> ServiceAnswer:
    spec = service.spec
    code, init_code = await _code(web, service)
    owner = owner_of(service)
    return ServiceAnswer(
        name=spec.name,
        version=spec.version,
        version_published_by=owner,
        owner=owner,
        creation_time=created_at(service).isoformat(),
        snapshot_id=service.metadata.annotations.get(names.ANNOTATION_SNAPSHOT),
        init_code=init_code,
        code=code,
        description=spec.description,
        operation_id=operation_id(service),
        input_parameter_definitions=shown(inputs_of(service)),
        output_parameter_definitions=shown(outputs_of(service)),
        output_file_names=spec.output_files,
        my_permission_on_service="read/write" if may(who, Action.UPDATE_SERVICE, owner) else "read only",
    )


async def _code(web: Parts, service: WebService) -> tuple[str | None, str | None]:
    """The block that answers calls and the init block, as far as they can be read."""
    spec = service.spec
    if spec.code.inline is not None:
        file = spec.script or f"{spec.entrypoint.partition(':')[0].replace('.', '/')}.py"
        return spec.code.inline.get(file), None
    sha256 = bundle_of(spec.to_json(defaults=False))
    if not sha256 or spec.script != SCRIPT:
        return None, None
    texts = await web.texts.of(sha256)
    return texts.get(SCRIPT), texts.get(INIT_BLOCK)
