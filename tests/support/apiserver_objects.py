"""What the in-process API server knows about objects: selectors, patches, names, refusals. Pure functions.

Objects are never changed in place: a write makes a new dict that shares what did not change, so that history, watches
and callers can hold on to what they were given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from sessionpools.kube.protocol import CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, SECRETS, SESSION_POOLS, WEB_SERVICES
from sessionpools.kube.protocol import NODES as NODES
from sessionpools.kube.protocol import PODS as PODS
from sessionpools.kube.protocol import Json as Json
from sessionpools.kube.protocol import Resource as Resource

RESOURCES: Final = (SESSION_POOLS, WEB_SERVICES, PODS, NODES, CONFIG_MAPS, SECRETS, EVENTS, LEASES, NAMESPACES)
WITH_STATUS: Final = frozenset({SESSION_POOLS, WEB_SERVICES, PODS, NODES})
WITH_GENERATION: Final = frozenset({SESSION_POOLS, WEB_SERVICES, PODS})
FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"

Path = tuple[str, ...]


class Refused(Exception):  # noqa: N818  what the API server calls it
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def status(self) -> Json:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(resource: Resource, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource} "{name}" not found')


def conflict(resource: Resource, name: str, why: str) -> Refused:
    return Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {why}')


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)


def invalid(resource: Resource, name: str, problem: str) -> Refused:
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return Refused(422, "Invalid", f'{kind} "{name}" is invalid: {problem}')


def resource_version(text: str) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise Refused(400, "BadRequest", f'resourceVersion: Invalid value: "{text}": must be a number') from None


_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def check_name(resource: Resource, name: str) -> None:
    if not name:
        raise invalid(resource, "", "metadata.name: Required value: name or generateName is required")
    if len(name) > 253:
        raise invalid(resource, name, f'metadata.name: Invalid value: "{name}": must be no more than 253 bytes')
    if not _SUBDOMAIN.fullmatch(name):
        raise invalid(
            resource,
            name,
            f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case '
            "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        )


# --- selectors --------------------------------------------------------------------------------------------------------

Matches = Callable[[Json], bool]
_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^)]*)\)")
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "involvedObject.uid", "reason", "type"}
)


def label_selector(text: str) -> Matches:
    tests = [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text) if part.strip()]

    def matches(body: Json) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.fullmatch(text):
        key, values = found[1], {value.strip() for value in found[4].split(",")}
        if found[3] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.fullmatch(text):
        key, value = found[1], found[4]
        if found[3] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.fullmatch(text):
        key, absent = found[2], bool(found[1])
        return lambda labels: (key in labels) is not absent
    raise Refused(400, "BadRequest", f'unable to parse requirement: "{text}"')


def field_selector(text: str) -> Matches:
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", part)
        if not found or found[1] not in _FIELDS:
            raise Refused(400, "BadRequest", f'field label not supported: "{part}"')
        tests.append((found[1], found[2] != "!=", found[3]))
    return lambda body: all((str(_dig(body, path)) == value) is wanted for path, wanted, value in tests)


def _dig(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) or "" if isinstance(body, dict) else ""
    return body


# --- writes -----------------------------------------------------------------------------------------------------------


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def apply_status(
    live: Json, applied: Json, owned: Mapping[str, frozenset[Path]], manager: str
) -> tuple[Json, dict[str, frozenset[Path]]]:
    """Server-side apply with force, as far as a status needs it: the new status, and who owns which fields of it.

    Maps are merged, lists are atomic but for `conditions`, a map by `type`. What the manager applied before and no
    longer says is removed, unless another manager owns it too.
    """
    tree, wanted = _keyed(live), _keyed(applied)
    fields = frozenset(_leaves(wanted))
    others = {name: paths - fields for name, paths in owned.items() if name != manager}
    for path in owned.get(manager, frozenset()) - fields:
        if not any(path in paths for paths in others.values()):
            tree = _without(tree, path)
    merged = merge_patch(tree, wanted)
    return _unkeyed(merged), {name: paths for name, paths in (others | {manager: fields}).items() if paths}


def _keyed(status: Json) -> Json:
    if not isinstance(status.get("conditions"), list):
        return status
    return status | {"conditions": {each["type"]: each for each in status["conditions"]}}


def _unkeyed(status: Json) -> Json:
    if not isinstance(status.get("conditions"), dict):
        return status
    return status | {"conditions": list(status["conditions"].values())}


def _leaves(tree: Json, at: Path = ()) -> list[Path]:
    found: list[Path] = []
    for key, value in tree.items():
        found += _leaves(value, (*at, key)) if isinstance(value, dict) and value else [(*at, key)]
    return found


def _without(tree: Json, path: Path) -> Json:
    """`tree` less one field, and less the maps that this leaves empty."""
    head, *rest = path
    if head not in tree:
        return tree
    kept = dict(tree)
    if rest and isinstance(tree[head], dict):
        kept[head] = _without(tree[head], tuple(rest))
        if kept[head]:
            return kept
    del kept[head]
    return kept


# --- pods -------------------------------------------------------------------------------------------------------------


def grace(resource: Resource, live: Json, asked: int | None) -> int:
    """Only pods have grace, and of those only what a kubelet may be running."""
    if resource is not PODS or not live["spec"].get("nodeName"):
        return 0
    if live.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(live["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def new_pod(body: Json) -> Json:
    """The defaults and admission that a controller can see."""
    spec: dict[str, Any] = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
        **(body.get("spec") or {}),
    }
    tolerations = list(spec.get("tolerations") or ())
    for taint in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            each.get("key") in (None, taint) and each.get("effect") in (None, "NoExecute") for each in tolerations
        ):
            tolerations.append({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec["tolerations"] = tolerations
    return {**body, "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}


def log_of(pod: Json, text: str, query: Mapping[str, str]) -> bytes | None:
    """What GET pods/NAME/log answers where the container has written `text`; None: the pod is on no node."""
    name = pod["metadata"]["name"]
    containers = [each["name"] for each in pod["spec"].get("containers", ())]
    container = query.get("container") or containers[0]
    if container not in containers:
        raise Refused(400, "BadRequest", f"container {container} is not valid for pod {name}")
    if not pod["spec"].get("nodeName"):
        return None
    statuses = {each["name"]: each for each in pod.get("status", {}).get("containerStatuses", ())}
    if container not in statuses:
        raise Refused(400, "BadRequest", f'container "{container}" in pod "{name}" is not available')
    waiting = statuses[container]["state"].get("waiting")
    if waiting and "terminated" not in statuses[container].get("lastState", {}):
        why = waiting.get("reason", "")
        raise Refused(400, "BadRequest", f'container "{container}" in pod "{name}" is waiting to start: {why}')
    lines = re.findall(rb"[^\n]*\n|[^\n]+", text.encode())
    last = b"".join(lines[-int(query["tailLines"]) :] if "tailLines" in query else lines)
    return last[: int(query["limitBytes"])] if "limitBytes" in query else last
