"""The URLs of the in-process API server, and what it says of itself to clients that ask first. Pure functions."""

from __future__ import annotations

from typing import Final

from support.apiserver_objects import RESOURCES, WITH_STATUS, Json, Refused, Resource

_BY_PATH: Final = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
_NO_SUCH_RESOURCE: Final = Refused(404, "NotFound", "the server could not find the requested resource")


def locate(parts: list[str]) -> tuple[Resource, str, str, str]:
    """Resource, namespace, name, subresource."""
    if parts[:1] == ["api"]:
        group, version, rest = "", "".join(parts[1:2]), parts[2:]
    else:
        group, version, rest = "".join(parts[1:2]), "".join(parts[2:3]), parts[3:]
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = ([*rest, "", "", ""])[:3]
    resource = _BY_PATH.get((group, version, plural))
    if resource is None or (namespace and not resource.namespaced):
        raise _NO_SUCH_RESOURCE
    if name and resource.namespaced and not namespace:
        raise _NO_SUCH_RESOURCE
    return resource, namespace, name, subresource


def discovery(parts: list[str]) -> Json | None:
    """What a client, kopf for one, asks before it asks for objects."""
    groups = sorted({(resource.group, resource.version) for resource in RESOURCES if resource.group})
    match parts:
        case ["version"]:
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            listed = [
                {"name": group, "versions": [version], "preferredVersion": version}
                for group, version in (
                    (group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups
                )
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", version]:
            return _resources("", version)
        case ["apis", group, version]:
            return _resources(group, version)
    return None


def _resources(group: str, version: str) -> Json:
    listed: list[Json] = []
    for resource in RESOURCES:
        if (resource.group, resource.version) == (group, version):
            entry = {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            listed.append(entry)
            if resource in WITH_STATUS:
                listed.append(entry | {"name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]})
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}
