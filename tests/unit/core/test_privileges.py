"""Who may write SessionPools and WebServices gets no more of a node or of an identity than pods in that namespace give,
and less than who may create pods: what a session pod is allowed is the product's to say.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from sessionpools.api import crds, podfields
from sessionpools.api.v1alpha1 import Isolation
from sessionpools.core.pods import pod_template, session_pod
from support.builders import node, pool, service, target_of
from support.pod_security import violations

Json = dict[str, Any]

# Of a pod (PodSpec, Container, SecurityContext, Volume): what reaches the node, another identity, or a privilege.
NEVER = {
    *("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostPath", "hostPort", "hostIP", "hostAliases", "hostname"),
    *("securityContext", "privileged", "allowPrivilegeEscalation", "capabilities", "procMount", "sysctls"),
    *("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "supplementalGroups", "seccompProfile", "seLinuxOptions"),
    *("serviceAccountToken", "automountServiceAccountToken", "clusterTrustBundle", "podCertificate"),
    *("csi", "ephemeral", "nfs", "iscsi", "fc", "flexVolume", "cephfs", "glusterfs", "rbd", "gitRepo", "volumeDevices"),
    *("nodeName", "schedulerName", "runtimeClassName", "shareProcessNamespace", "resourceClaims", "priority"),
    *("command", "args", "lifecycle", "initContainers", "ephemeralContainers", "mountPropagation", "finalizers"),
}

EVERYTHING: Json = {
    "env": [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
    "envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}],
    "volumes": [
        {"name": "a", "configMap": {"name": "settings"}},
        {"name": "b", "secret": {"secretName": "keys"}},
        {"name": "c", "emptyDir": {"medium": "Memory"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "e", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "f", "projected": {"sources": [{"secret": {"name": "keys"}}]}},
    ],
    "volumeMounts": [{"name": name, "mountPath": f"/mnt/{name}"} for name in "abcdef"],
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "rich",
    "image": "own:1",
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}},
}
PLACEMENT: Json = {
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"operator": "Exists"}],
    "priorityClassName": "high",
}


def made(everything: bool, isolation: Isolation = Isolation.POD) -> Json:
    of_pool = pool(1, 4, isolation=isolation, **({"placement": PLACEMENT} if everything else {}))
    of_service = service(**(EVERYTHING if everything else {}))
    revision = target_of(of_pool, of_service).revision
    spec: Json = session_pod(pod_template(of_pool, of_service, revision, "IfNotPresent"), node(), 0, 0)["spec"]
    return spec


def names_in(schema: Json) -> Iterator[str]:
    """Of all the fields in a schema, however deep."""
    for name, part in schema.get("properties", {}).items():
        yield name
        yield from names_in(part)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from names_in(schema[keyword])


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.__name__)
def test_no_field_of_a_spec_is_one_that_reaches_the_node_or_an_identity(kind: Any) -> None:
    (version,) = crds.crd(kind)["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(names_in(spec)) & NEVER == set()


def test_volumes_are_of_the_kinds_that_the_policy_names() -> None:
    offered = set(podfields.VOLUMES["items"]["properties"]) - {"name"}
    assert offered == set(podfields.SOURCES) == {next(iter(v.keys() - {"name"})) for v in EVERYTHING["volumes"]}
    projected = podfields.VOLUMES["items"]["properties"]["projected"]["properties"]["sources"]["items"]["properties"]
    assert set(projected) == {"configMap", "secret", "downwardAPI"}


@pytest.mark.parametrize("isolation", list(Isolation))
def test_a_service_that_uses_every_field_still_makes_a_pod_that_restricted_admits(isolation: Isolation) -> None:
    assert violations(made(True, isolation)) == []


@pytest.mark.parametrize("everything", [False, True])
def test_no_token_is_mounted_whatever_account_is_named(everything: bool) -> None:
    spec = made(everything)
    assert spec["automountServiceAccountToken"] is False
    sources = [source for volume in spec["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    assert all("serviceAccountToken" not in source for source in sources)


def test_of_a_session_pod_a_user_decides_these_fields_and_no_others() -> None:
    plain, full = made(False), made(True)
    (before,), (after,) = plain.pop("containers"), full.pop("containers")
    assert {key for key in plain.keys() | full.keys() if plain.get(key) != full.get(key)} == {
        "imagePullSecrets",
        "priorityClassName",
        "serviceAccountName",
        "tolerations",
        "volumes",
    }
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"env", "envFrom", "image", "resources", "volumeMounts"}


def test_the_products_own_variables_and_volumes_come_first_and_stay() -> None:
    plain, full = made(False), made(True)
    (before,), (after,) = plain["containers"], full["containers"]

    def names(of: list[Json], prefix: str) -> list[str]:
        return [each["name"] for each in of if each["name"].startswith(prefix)]

    assert names(after["env"], "SESSIONPOOLS_") == names(before["env"], "SESSIONPOOLS_")
    assert names(full["volumes"], "session-pools-") == names(plain["volumes"], "session-pools-")
    assert after["volumeMounts"][: len(before["volumeMounts"])] == before["volumeMounts"]
