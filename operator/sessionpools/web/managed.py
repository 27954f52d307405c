"""Whether an object is somebody else's to change: made by GitOps or Helm, which would undo what is changed here.

No I/O. Asked with an object's metadata as the API server has it; what is said goes into an answer with 409.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sessionpools.api import names

__all__ = ["managed_by"]

_ANNOTATIONS: Final = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "meta.helm.sh/release-name": "Helm",
}
_LABELS: Final = {
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
# The field managers of those that leave no other trace, as metadata.managedFields has them.
_MANAGERS: Final = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "helm": "Helm",
}


def managed_by(metadata: Mapping[str, Any]) -> str:
    """Who manages it and how that shows, such as `Flux (label kustomize.toolkit.fluxcd.io/name)`; "" for nobody."""
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    if manager := annotations.get(names.ANNOTATION_MANAGED_BY):
        return f"{manager} (annotation {names.ANNOTATION_MANAGED_BY})"
    for key, who in _ANNOTATIONS.items():
        if key in annotations:
            return f"{who} (annotation {key})"
    for key, who in _LABELS.items():
        if key in labels:
            return f"{who} (label {key})"
    manager = labels.get(names.LABEL_MANAGED_BY, "")
    if manager and manager != names.MANAGED_BY_WEB:
        return f"{manager} (label {names.LABEL_MANAGED_BY})"
    for entry in metadata.get("managedFields") or ():
        manager = entry.get("manager", "")
        if manager in _MANAGERS and not entry.get("subresource"):
            return f"{_MANAGERS[manager]} (field manager {manager})"
    return ""
