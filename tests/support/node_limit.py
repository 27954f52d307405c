"""Judges each session pod that is asked for by the limit that all pools' sessions have on a node."""

import json

from sessionpools.api import names
from sessionpools.kube.protocol import PODS
from support.apiserver import ApiServer
from support.apiserver_faults import Request
from support.apiserver_objects import Json


def beyond_the_limit(server: ApiServer, limit: int) -> list[str]:
    """From now on: a line for each session pod that is created or enlarged where there is no place for it."""
    beyond: list[str] = []

    def judge(request: Request) -> None:
        if request.resource is not PODS or request.verb not in ("create", "patch"):
            return
        pods = {(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod for pod in server.store.all(PODS)}
        named = (request.namespace, request.name or request.body["metadata"]["name"])
        if (request.verb == "create") == (named in pods):
            return  # AlreadyExists, or gone meanwhile
        node = _node(pods.get(named, request.body))
        standing = {key: _slots(pod) for key, pod in pods.items() if _node(pod) == node and _holds(pod)}
        before = sum(standing.values())
        after = before - standing.get(named, 0) + _slots(request.body)
        if after > max(limit, before):
            beyond.append(f"{named[1]} makes {after} sessions of {before} on a node for {limit}")

    server.on_write.append(judge)
    return beyond


def _node(pod: Json) -> str:
    """Its uid; "" of what is no session pod."""
    return str((pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_NODE_UID, ""))


def _slots(pod: Json) -> int:
    slots: int = json.loads(pod["metadata"]["annotations"][names.ANNOTATION_SETTINGS])["maxPoolSize"]
    return slots


def _holds(pod: Json) -> bool:
    return pod["status"].get("phase") not in ("Failed", "Succeeded")
