"""What Helm, Flux, Argo CD or another manages is refused with 409, naming it, unless it is forced."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sessionpools.web.managed import managed_by
from support.web import WebWorld, error_of

MANAGED: list[tuple[dict[str, Any], str]] = [
    ({"annotations": {"sessionpools.dev/managed-by": "our pipeline"}}, "our pipeline"),
    ({"annotations": {"argocd.argoproj.io/tracking-id": "x:y"}}, "Argo CD"),
    ({"annotations": {"meta.helm.sh/release-name": "models"}}, "Helm"),
    ({"labels": {"argocd.argoproj.io/instance": "models"}}, "Argo CD"),
    ({"labels": {"kustomize.toolkit.fluxcd.io/name": "models"}}, "Flux"),
    ({"labels": {"helm.toolkit.fluxcd.io/name": "models"}}, "Flux"),
    ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
    ({"labels": {"app.kubernetes.io/managed-by": "pulumi"}}, "pulumi"),
]


@pytest.mark.parametrize(("metadata", "who"), MANAGED)
async def test_a_managed_service_is_changed_and_deleted_only_when_forced(
    world: WebWorld, admin: httpx.AsyncClient, metadata: dict[str, Any], who: str
) -> None:
    await world.kubectl_service(**metadata)
    for answer in (
        await admin.patch("/services/Score/v1", json={"description": "x"}),
        await admin.delete("/services/Score/v1"),
    ):
        assert answer.status_code == 409
        assert f"managed by {who}" in error_of(answer)
        assert "?force=true" in error_of(answer)
    assert "description" not in world.service()["spec"]
    assert (await admin.patch("/services/Score/v1?force=true", json={"description": "x"})).status_code == 200
    assert world.service()["spec"]["description"] == "x"
    assert (await admin.delete("/services/Score/v1?force=true")).status_code == 200
    assert world.services() == []


@pytest.mark.parametrize(("metadata", "who"), MANAGED)
async def test_a_managed_pool_is_resized_and_deleted_only_when_forced(
    world: WebWorld, admin: httpx.AsyncClient, metadata: dict[str, Any], who: str
) -> None:
    await world.kubectl_service()
    await world.kubectl_pool(**metadata)
    for answer in (
        await admin.post("/services/Score/v1/pool", json={"MaxPoolSize": 9}),
        await admin.delete("/services/Score/v1/pool"),
    ):
        assert answer.status_code == 409
        assert f"the pool is managed by {who}" in error_of(answer)
    assert world.pool()["spec"]["maxPoolSize"] == 2
    assert (await admin.post("/services/Score/v1/pool?force=true", json={"MaxPoolSize": 9})).status_code == 200
    assert world.pool()["spec"]["maxPoolSize"] == 9
    assert (await admin.delete("/services/Score/v1/pool?force=true")).status_code == 200
    assert world.pools() == []


@pytest.mark.parametrize(
    ("manager", "subresource", "who"),
    [
        ("argocd-controller", "", "Argo CD (field manager argocd-controller)"),
        ("kustomize-controller", "", "Flux (field manager kustomize-controller)"),
        ("helm", "", "Helm (field manager helm)"),
        ("argocd-controller", "status", ""),
        ("kubectl-client-side-apply", "", ""),
        ("session-pools-web", "", ""),
    ],
)
def test_a_field_manager_of_the_spec_manages_it(manager: str, subresource: str, who: str) -> None:
    entry = {"manager": manager, "operation": "Apply"} | ({"subresource": subresource} if subresource else {})
    assert managed_by({"managedFields": [entry]}) == who


def test_nobody_manages_what_this_api_has_made() -> None:
    assert managed_by({"labels": {"app.kubernetes.io/managed-by": "session-pools-web"}}) == ""
    assert managed_by({}) == ""
