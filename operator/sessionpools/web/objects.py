"""Manifests that this API writes, and how it changes those that are there. Pure: no I/O.

A service's name and version are free text, an object's name is a DNS label: it is made of both and a hash of the exact
text, so that the same service always has the same object name. Two who publish at once so meet at the API server, which
takes one. Objects that others made have other names: they are found by their spec, never by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from sessionpools.api import names
from sessionpools.core.naming import digest
from sessionpools.kube.protocol import Json
from sessionpools.web.errors import BadRequest

__all__ = [
    "Published",
    "bundle_of",
    "check_key",
    "definitions",
    "made_here",
    "new_pool",
    "new_service",
    "object_name",
    "resized",
    "updated_service",
]

_SLUG_CHARACTERS: Final = 48  # with a dash and ten digits of a digest below the 63 of a DNS label
_KEY_CHARACTERS: Final = 128
_FORBIDDEN: Final = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
# What of a WebService says which code runs: a new publication replaces all of it.
_CODE_FIELDS: Final = ("code", "entrypoint", "script", "init")


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication, or an update, says of a service. `spec` has the fields of WebService.spec that it decides,
    None for one that is to be taken away; annotations likewise."""

    spec: Mapping[str, Any]
    annotations: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def changes_code(self) -> bool:
        return "code" in self.spec


def check_key(name: str, version: str) -> None:
    """Raises BadRequest unless both can be a service's (the rules of the kind WebService, in words for this API)."""
    for what, text in (("name", name), ("version", version)):
        if not text or len(text) > _KEY_CHARACTERS:
            raise BadRequest(f"{what} has {len(text)} characters: use 1 to {_KEY_CHARACTERS}")
        if text in (".", "..") or text != text.strip() or _FORBIDDEN.search(text):
            raise BadRequest(
                f"{what} {text!r} can not be a segment of a path: use no '/', no control characters, no white space at "
                "either end, and neither '.' nor '..'"
            )


def object_name(name: str, version: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", f"{name}-{version}".lower()).strip("-")[:_SLUG_CHARACTERS].strip("-")
    return f"{slug or 'service'}-{digest(name, version)}"


def made_here(metadata: Mapping[str, Any]) -> bool:
    """Whether this API has made the object."""
    labels: Mapping[str, str] = metadata.get("labels") or {}
    return labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY_WEB


def new_service(namespace: str, name: str, version: str, owner: str, published: Published) -> Json:
    annotations = {key: value for key, value in published.annotations.items() if value is not None}
    spec = {key: deepcopy(value) for key, value in published.spec.items() if value is not None}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "WebService",
        "metadata": _metadata(namespace, object_name(name, version), owner, annotations),
        "spec": {"name": name, "version": version} | spec,
    }


def updated_service(read: Json, published: Published) -> Json:
    """The object as read, with what was published in place of what was there; the rest stays."""
    body = deepcopy(read)
    spec: Json = body["spec"]
    if published.changes_code:
        for each in _CODE_FIELDS:
            spec.pop(each, None)
    _put(spec, published.spec)
    annotations: Json = body["metadata"].setdefault("annotations", {})
    _put(annotations, published.annotations)
    return body


def new_pool(namespace: str, object_name: str, name: str, version: str, owner: str, initial: int, maximum: int) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "SessionPool",
        "metadata": _metadata(namespace, object_name, owner, {}),
        "spec": {
            "serviceName": name,
            "serviceVersion": version,
            "initialPoolSize": initial,
            "maxPoolSize": maximum,
        },
    }


def resized(read: Json, initial: int, maximum: int) -> Json:
    body = deepcopy(read)
    body["spec"] |= {"initialPoolSize": initial, "maxPoolSize": maximum}
    return body


def bundle_of(spec: Mapping[str, Any]) -> str:
    """The digest of the bundle that a WebService's code is in; "" if it is elsewhere."""
    code: Mapping[str, Any] = spec.get("code") or {}
    bundle: Mapping[str, Any] = code.get("bundle") or {}
    return str(bundle.get("sha256") or "")


def _metadata(namespace: str, name: str, owner: str, annotations: Mapping[str, str]) -> Json:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY_WEB},
        "annotations": {names.ANNOTATION_OWNER: owner} | dict(annotations),
    }


def _put(into: Json, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = deepcopy(value)


def definitions(given: Sequence[Any]) -> list[Json]:
    """Inputs or outputs as WebService.spec has them."""
    return [{"name": each.name, "type": str(each.type)} for each in given]
