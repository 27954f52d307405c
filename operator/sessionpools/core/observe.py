"""From API objects (JSON as the API server sends it) to the values of core.model. Called by the reflectors' parsers.

Never fails on an object that the API server accepted: what is absent has the value that Kubernetes gives it.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation
from sessionpools.core import quantity
from sessionpools.core.model import Failure, NodeView, Ownership, PodView, Taint

__all__ = ["UNSCHEDULABLE", "node_view", "pod_view"]

UNSCHEDULABLE: Final = "Unschedulable"  # as the scheduler says it

# First words of a termination message that name a cause of their own; any other is user code that raised.
_OWN_REASONS = names.BUNDLE_REASONS | {
    *("EntrypointInvalid", "EntrypointNotFound", "OOMKilled", "StartTimeout", "SyntaxError")
}
# Of these the ones that may pass by themselves, the first time.
_MAY_PASS = frozenset({"BundleUnreachable", "OOMKilled"})
# The kubelet alternates between these while it backs off; one reason for both, or each turn would be a transition.
_WAITING_REASONS = {"ErrImagePull": "ImagePullBackOff"}
# Waiting reasons that mean "not yet", not "failed".
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_ENDED = ("Failed", "Succeeded")
_ENDED_BY_KUBELET = "the kubelet has ended the pod for good: see kubectl get events, and the node's conditions"
_ISOLATIONS = {isolation.value: isolation for isolation in Isolation}
_INSUFFICIENT = re.compile(r"\bInsufficient [a-z0-9./-]+")


def node_view(node: Mapping[str, Any]) -> NodeView:
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    conditions = status.get("conditions") or []
    return NodeView(
        name=node["metadata"]["name"],
        uid=node["metadata"]["uid"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        schedulable=not spec.get("unschedulable", False),
        labels=dict(node["metadata"].get("labels") or {}),
        taints=tuple(Taint(t["key"], t.get("value", ""), t["effect"]) for t in spec.get("taints") or []),
        cpus=max(quantity.to_whole((status.get("allocatable") or {}).get("cpu", 1)), 1),
    )


def pod_view(pod: Mapping[str, Any]) -> PodView:
    """Raises KeyError or ValueError for a pod that is not ours, whatever its labels say: it must be controlled by the
    SessionPool that they name."""
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or []
    if not any(o["uid"] == metadata["labels"][names.LABEL_POOL_UID] and o.get("controller") for o in owners):
        raise ValueError(f"pod {metadata['name']!r} is not controlled by the SessionPool that its labels name")
    labels, annotations = metadata["labels"], metadata.get("annotations") or {}
    status = pod.get("status") or {}
    container: Mapping[str, Any] = next(
        (c for c in status.get("containerStatuses") or [] if c["name"] == names.CONTAINER), {}
    )
    made: Mapping[str, Any] = next((c for c in pod["spec"]["containers"] if c["name"] == names.CONTAINER), {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    ended = status.get("phase") in _ENDED
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner=Ownership(
            pool=labels[names.LABEL_POOL],
            pool_uid=labels[names.LABEL_POOL_UID],
            node=annotations[names.ANNOTATION_NODE],
            node_uid=annotations[names.ANNOTATION_NODE_UID],
            revision=labels[names.LABEL_REVISION],
            slot=int(labels[names.LABEL_SLOT]),
            incarnation=int(labels[names.LABEL_INCARNATION]),
            isolation=_ISOLATIONS.get(annotations.get(names.ANNOTATION_ISOLATION, "")),
        ),
        ready=ready,
        deleting=metadata.get("deletionTimestamp") is not None,
        settings=annotations.get(names.ANNOTATION_SETTINGS, ""),
        address=status.get("podIP", ""),
        image=made.get("image", ""),
        failure=None if ready else _failure(status, container),
        started="running" in (container.get("state") or {}),
        was_ready=not ready and _has_been_ready_since(status, container.get("state") or {}),
        bundle_url=_variable(made, names.ENV_BUNDLE_URL).replace("$$", "$"),  # as core.pods writes it
        created_at=_seconds(metadata.get("creationTimestamp")),
        ended=ended,
        ended_at=_ended_at(status, container, metadata) if ended else 0.0,
        version=metadata.get("resourceVersion", ""),
    )


def _variable(container: Mapping[str, Any], name: str) -> str:
    """Of its environment; "" if there is none."""
    values: Iterator[str] = (each.get("value", "") for each in container.get("env") or [] if each.get("name") == name)
    return next(values, "")


def _failure(status: Mapping[str, Any], container: Mapping[str, Any]) -> Failure | None:
    if status.get("phase") in _ENDED:  # by the kubelet alone, under restartPolicy Always; it may not say why
        reason = status.get("reason") or "PodEnded"
        return Failure(_camel(reason), _line(status.get("message", "")) or f"{reason}: {_ENDED_BY_KUBELET}")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(condition)
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    waiting = state.get("waiting") or {}
    if ended and not _has_been_ready_since(status, state):
        return _terminated(ended, container.get("restartCount", 0))
    reason = waiting.get("reason", "")
    if reason in _STARTING:
        return None
    reason = _WAITING_REASONS.get(reason, reason)
    image = container.get("image", "")
    detail = _line(waiting.get("message", ""))
    return Failure(_camel(reason), f"{reason}: image {image}: {detail}" if "Image" in reason else f"{reason}: {detail}")


def _has_been_ready_since(status: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether the container that runs now was ready once: then how the one before it ended says nothing of today."""
    started = (state.get("running") or {}).get("startedAt")
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
    changed = ready.get("lastTransitionTime")
    return bool(started and changed) and _seconds(changed) > _seconds(started)


def _unscheduled(condition: Mapping[str, Any]) -> Failure | None:
    message = condition.get("message", "")
    if condition.get("reason") != UNSCHEDULABLE:
        return None  # SchedulingGated, or the scheduler has not looked yet
    # The scheduler counts all nodes ("0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't ..."); the pod
    # is pinned to one, so only what is missing there says anything.
    missing = sorted(set(_INSUFFICIENT.findall(message)))
    return Failure(UNSCHEDULABLE, f"{UNSCHEDULABLE}: {', '.join(missing) if missing else _line(message)}")


def _terminated(ended: Mapping[str, Any], restarts: int) -> Failure:
    """How the container ended. The first time may have been bad luck that a restart repairs; what the code says of
    itself is not."""
    message = _summary(ended.get("message", ""))
    first_word = message.partition(":")[0]
    again = restarts > 0
    if ended.get("reason") == "OOMKilled" and first_word != "OOMKilled":
        return Failure("OOMKilled", "OOMKilled: the memory limit is too low", lasts=again)
    if not message:
        message = f"the session pod's container ended with exit code {ended.get('exitCode')}"
    if first_word in _OWN_REASONS:
        return Failure(first_word, message, lasts=again or first_word not in _MAY_PASS)
    return Failure("SessionFailed", message, lasts=again)


def _ended_at(status: Mapping[str, Any], container: Mapping[str, Any], metadata: Mapping[str, Any]) -> float:
    finished = ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
    transitions = [c["lastTransitionTime"] for c in status.get("conditions") or [] if c.get("lastTransitionTime")]
    return _seconds(finished or max(transitions, default=None) or metadata.get("creationTimestamp"))


def _summary(message: str) -> str:
    """The first line, which the session runtime writes for this. A container that ended without the runtime's word has
    the end of its log there instead (FallbackToLogsOnError): then the last line says what happened."""
    lines = [line for line in message.splitlines() if line.strip()] or [""]
    return _line(lines[-1] if lines[0].startswith(("Traceback", "{")) else lines[0])


def _line(text: str) -> str:
    """The first line, bounded: it stands in a table column."""
    first = text.strip().partition("\n")[0]
    return first if len(first) <= 500 else first[:497] + "..."


def _camel(reason: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", reason) or "Failed"


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
