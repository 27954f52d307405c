"""The manifests of what the controller creates: session pods and the ConfigMap of a revision.

Plain JSON, as the API server takes it. Every session pod satisfies the pod security standard `restricted`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sessionpools.api import names
from sessionpools.api.v1alpha1 import Isolation, SessionPool, WebService
from sessionpools.core import naming, quantity
from sessionpools.core.model import NodeView
from sessionpools.core.revision import CodeFiles, Revision

__all__ = [
    "PodTemplate",
    "code_config_map",
    "grace_seconds",
    "pod_template",
    "session_pod",
    "session_pod_name",
    "settings_of",
]

# Of all else (devices, huge pages) a request has to equal its limit.
_DIVISIBLE: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
# Of the volume of a bundle: the archive (512 MiB), what it holds (2 GiB, in 20,000 files of which each may waste most
# of a block of 4 KiB) and room to spare. session/fetch.py and session/unpack.py refuse more; the kubelet would evict.
_BUNDLE_VOLUME: Final = "3Gi"
# Kept by a pod through a node's failure, as DaemonSet pods are: a lost node is reported, not churned.
_STAYS_ON: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def settings_of(pool: SessionPool, isolation: Isolation | None = None, at_most: int | None = None) -> str:
    """The settings annotation: what a session pod takes over while it runs (no rollout). `isolation` is the pod's own,
    if that is not the pool's; `at_most` the sessions that it may come to have, if there is no room for all."""
    spec = pool.spec
    process = (isolation or spec.isolation) is Isolation.PROCESS
    most = spec.max_pool_size if at_most is None else min(at_most, spec.max_pool_size)
    settings = {
        "initialPoolSize": min(spec.initial_pool_size, most) if process else 1,
        "maxPoolSize": most if process else 1,
        "idleTimeoutSeconds": spec.idle_timeout_seconds,
        "requestTimeoutSeconds": spec.request_timeout_seconds,
        "startTimeoutSeconds": spec.start_timeout_seconds,
        "drainTimeoutSeconds": spec.drain_timeout_seconds,
        "recycleAfterRequests": spec.recycle_after_requests,
    }
    return json.dumps(settings, separators=(",", ":"))


def grace_seconds(pool: SessionPool) -> int:
    """How long a session pod may take to end: gateways let go, requests finish, the supervisor ends."""
    return names.PRE_STOP_SECONDS + pool.spec.drain_timeout_seconds + names.DRAIN_MARGIN_SECONDS


def code_config_map(service: WebService, revision: Revision) -> dict[str, Any]:
    """The immutable copy of a revision: session.json and the code. Paths are volume items, as keys allow no slash."""
    text: dict[str, str] = {"session.json": revision.document}
    binary: dict[str, str] = {}
    for key, (_, content) in zip(_code_keys(revision.code), revision.code.files, strict=True):
        try:
            text[key] = content.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(content).decode()
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": naming.code_config_map_name(service.metadata.name, revision.name),
            "namespace": service.metadata.namespace,
            "labels": {
                **_common_labels("code"),
                names.LABEL_REVISION: revision.name,
                names.LABEL_SERVICE: naming.digest(service.metadata.uid),
            },
            "ownerReferences": [_owner("WebService", service.metadata.name, service.metadata.uid)],
        },
        "immutable": True,
        "data": text,
    }
    if binary:
        body["binaryData"] = binary
    return body


def session_pod_name(pool: SessionPool, revision: str, node: NodeView, slot: int, incarnation: int) -> str:
    return naming.pod_name(pool.metadata.name, pool.metadata.uid, node.uid, revision, slot, incarnation)


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What the session pods of a pool's revision have in common; they share it, so nobody may change it."""

    pool: SessionPool
    revision: str
    labels: Mapping[str, Any]
    annotations: Mapping[str, Any]
    owners: Sequence[Mapping[str, Any]]
    spec: Mapping[str, Any]


def pod_template(pool: SessionPool, service: WebService, revision: Revision, pull_policy: str) -> PodTemplate:
    """Made once for a batch of pods: most of a manifest, and of the time that it takes to make one, is here."""
    spec, metadata = service.spec, pool.metadata
    placement = pool.spec.placement.to_json()
    return PodTemplate(
        pool=pool,
        revision=revision.name,
        labels={
            **_common_labels("session"),
            names.LABEL_POOL: metadata.name,
            names.LABEL_POOL_UID: metadata.uid,
            names.LABEL_REVISION: revision.name,
        },
        annotations={
            names.ANNOTATION_ISOLATION: pool.spec.isolation,
            names.ANNOTATION_SETTINGS: settings_of(pool),
            "cluster-autoscaler.kubernetes.io/daemonset-pod": "true",
        },
        owners=[_owner("SessionPool", metadata.name, metadata.uid)],
        spec={
            "automountServiceAccountToken": False,
            "containers": [_container(pool, service, revision, pull_policy)],
            "enableServiceLinks": False,
            "imagePullSecrets": [secret.to_json() for secret in spec.image_pull_secrets],
            "priorityClassName": placement["priorityClassName"],
            "restartPolicy": "Always",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "serviceAccountName": spec.service_account_name,
            "terminationGracePeriodSeconds": grace_seconds(pool),
            "tolerations": [
                *placement["tolerations"],
                *({"key": key, "operator": "Exists", "effect": "NoExecute"} for key in _STAYS_ON),
            ],
            "volumes": [*_volumes(service, revision), *spec.volumes],
        },
    )


def session_pod(template: PodTemplate, node: NodeView, slot: int, incarnation: int) -> dict[str, Any]:
    """A session pod pinned to `node` as DaemonSet pods are: the scheduler still checks resources and taints."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": session_pod_name(template.pool, template.revision, node, slot, incarnation),
            "namespace": template.pool.metadata.namespace,
            "labels": {
                **template.labels,
                names.LABEL_SLOT: str(slot),
                names.LABEL_INCARNATION: str(incarnation),
            },
            "annotations": {
                **template.annotations,
                names.ANNOTATION_NODE: node.name,
                names.ANNOTATION_NODE_UID: node.uid,
            },
            "ownerReferences": template.owners,
        },
        "spec": {**template.spec, "affinity": _pinned_to(node.name)},
    }


def _container(pool: SessionPool, service: WebService, revision: Revision, pull_policy: str) -> dict[str, Any]:
    spec = service.spec
    limit = (spec.resources.get("limits") or {}).get("memory")
    mounts = [
        {"name": _volume("revision"), "mountPath": names.REVISION_DIR, "readOnly": True},
        {"name": _volume("live"), "mountPath": names.LIVE_DIR, "readOnly": True},
        {"name": _volume("work"), "mountPath": names.WORK_DIR},
    ]
    env = [
        {"name": names.ENV_POOL, "value": f"{pool.metadata.uid}/{revision.name}"},
        {"name": names.ENV_MEMORY, "value": str(quantity.to_bytes(limit) if limit else 0)},
    ]
    if revision.code.files:
        mounts.append({"name": _volume("code"), "mountPath": names.CODE_DIR, "readOnly": True})
    if spec.code.bundle:
        mounts.append({"name": _volume("bundle"), "mountPath": names.BUNDLE_DIR})
        # the kubelet takes $(NAME) for a variable, and $$ for a $
        env.append({"name": names.ENV_BUNDLE_URL, "value": spec.code.bundle.url.replace("$", "$$")})
    return {
        "name": names.CONTAINER,
        "image": revision.image,
        "imagePullPolicy": pull_policy,
        "command": ["sessionpools-session"],
        "env": [*env, *spec.env],
        "envFrom": spec.env_from,
        "lifecycle": {"preStop": {"sleep": {"seconds": names.PRE_STOP_SECONDS}}},
        "livenessProbe": {
            "httpGet": _control("/livez"),
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "ports": [
            {"name": "control", "containerPort": names.CONTROL_PORT},
            {"name": "slot-0", "containerPort": names.SLOT_PORT},
        ],
        "readinessProbe": {
            "httpGet": _control("/readyz"),
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "resources": _resources(pool, spec.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *spec.volume_mounts],
    }


def _volumes(service: WebService, revision: Revision) -> list[dict[str, Any]]:
    config_map = naming.code_config_map_name(service.metadata.name, revision.name)
    items = [
        {"key": key, "path": path}
        for key, (path, _) in zip(_code_keys(revision.code), revision.code.files, strict=True)
    ]
    settings = {"path": "settings", "fieldRef": {"fieldPath": f"metadata.annotations['{names.ANNOTATION_SETTINGS}']"}}
    volumes: list[dict[str, Any]] = [
        {
            "name": _volume("revision"),
            "configMap": {"name": config_map, "items": [{"key": "session.json", "path": "session.json"}]},
        },
        {"name": _volume("live"), "downwardAPI": {"items": [settings]}},
        {"name": _volume("work"), "emptyDir": {}},
    ]
    if items:
        volumes.append({"name": _volume("code"), "configMap": {"name": config_map, "items": items}})
    if service.spec.code.bundle:
        volumes.append({"name": _volume("bundle"), "emptyDir": {"sizeLimit": _BUNDLE_VOLUME}})
    return volumes


def _resources(pool: SessionPool, of_one: Mapping[str, Any]) -> dict[str, Any]:
    """A Process pod requests what its initial sessions need and may use what its maximum needs."""
    if pool.spec.isolation is Isolation.POD:
        return dict(of_one)
    limits = of_one.get("limits") or {}
    # As Kubernetes does it for a container: what has a limit and no request requests its limit.
    requests = limits | (of_one.get("requests") or {})
    initial, maximum = max(pool.spec.initial_pool_size, 1), max(pool.spec.max_pool_size, 1)
    return {
        kind: {
            resource: quantity.times(value, factor if resource in _DIVISIBLE else maximum)
            for resource, value in values.items()
        }
        for kind, values, factor in (("requests", requests, initial), ("limits", limits, maximum))
        if values
    }


def _code_keys(code: CodeFiles) -> list[str]:
    return [f"file-{index}" for index in range(len(code.files))]


def _volume(name: str) -> str:
    """The WebService's own volumes can not have names that begin so (the CRD says it)."""
    return f"{names.VOLUME_PREFIX}-{name}"


def _control(path: str) -> dict[str, Any]:
    return {"path": path, "port": names.CONTROL_PORT}


def _pinned_to(node: str) -> dict[str, Any]:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _common_labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": names.PRODUCT,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
    }
