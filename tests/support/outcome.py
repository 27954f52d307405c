"""What has become of the pool and the web service `score`, without all that no two lives have in common: uids,
versions, times, and how often a slot was filled. Two lives that should have led to the same can be compared by it.
"""

from typing import Any

from sessionpools.api import names
from sessionpools.kube.protocol import CONFIG_MAPS, PODS, SESSION_POOLS, WEB_SERVICES
from support.apiserver_objects import Json
from support.apiserver_store import Store
from support.simulation import NAMESPACE


def outcome(store: Store, namespace: str = NAMESPACE) -> Json:
    return {
        "pool": [_custom(body) for body in store.all(SESSION_POOLS, namespace)],
        "service": [_custom(body) for body in store.all(WEB_SERVICES, namespace)],
        "pods": sorted((_pod(body) for body in store.all(PODS, namespace)), key=_order),
        "code": [body["data"] for body in store.all(CONFIG_MAPS, namespace)],
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two outcomes are not the same, a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted(one.keys() | other.keys())
            for line in differences(one.get(key), other.get(key), f"{path}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, f"{path}[{index}]")]
    return [] if one == other else [f"{path}: {one!r} is not {other!r}"]


def _custom(body: Json) -> Json:
    """Spec and status; how many generations there were says nothing, only whether the status is of the last one."""
    status: Json = dict(body.get("status") or {})
    observed = status.pop("observedGeneration", None)
    said = [{k: v for k, v in each.items() if k in ("type", "status", "reason", "message")}
            for each in status.get("conditions", [])]  # fmt: skip
    current = observed == body["metadata"]["generation"]
    return {"spec": body["spec"], "status": {**status, "conditions": said, "current": current}}


def _order(pod: Json) -> str:
    """By place; during a rollout old and new pods have the same."""
    return str((pod["place"], sorted(pod["labels"].items())))


def _pod(body: Json) -> Json:
    labels, annotations = dict(body["metadata"]["labels"]), dict(body["metadata"]["annotations"])
    spec: Json = {key: value for key, value in body["spec"].items() if key != "containers"}
    (container,) = body["spec"]["containers"]
    variables = [each for each in container["env"] if each["name"] != names.ENV_POOL]  # it names the pool's uid
    for unique in (names.LABEL_POOL_UID, names.LABEL_INCARNATION):
        labels.pop(unique)
    annotations.pop(names.ANNOTATION_NODE_UID)
    return {
        "place": (annotations[names.ANNOTATION_NODE], labels[names.LABEL_SLOT]),
        "labels": labels,
        "annotations": annotations,
        "spec": spec,
        "container": {**container, "env": variables},
        "leaves": "deletionTimestamp" in body["metadata"],
        "ready": any(c["type"] == "Ready" and c["status"] == "True" for c in body["status"].get("conditions", [])),
    }
