"""The controller's pod runs where a namespace enforces the pod security standard `restricted`, and asks for little."""

import pytest

from support.manifests import Object, chart, the
from support.pod_security import violations


def pod_spec(values: Object | None = None) -> Object:
    spec: Object = the(chart(values), "Deployment")["spec"]["template"]["spec"]
    return spec


def test_the_controller_satisfies_restricted() -> None:
    assert violations(pod_spec()) == []


@pytest.mark.parametrize(
    ("values", "violation"),
    [
        ({"podSecurityContext": {"runAsNonRoot": False}}, "container controller: runAsNonRoot is not true"),
        ({"podSecurityContext": {"seccompProfile": None}}, "container controller: seccompProfile"),
        ({"podSecurityContext": {"runAsUser": 0}}, "container controller: runs as user 0"),
        ({"securityContext": {"privileged": True}}, "container controller: privileged"),
        ({"securityContext": {"capabilities": None}}, "container controller: capabilities are not dropped"),
        (
            {"securityContext": {"allowPrivilegeEscalation": None}},
            "container controller: allowPrivilegeEscalation is not false",
        ),
    ],
)
def test_a_pod_that_restricted_refuses_is_found_out(values: Object, violation: str) -> None:
    assert violations(pod_spec({"controller": values})) == [violation]


def test_the_root_file_system_is_read_only_and_only_tmp_can_be_written() -> None:
    spec = pod_spec()
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert [volume["emptyDir"] for volume in spec["volumes"]] == [{"sizeLimit": "64Mi"}]


def test_the_token_is_mounted_where_it_is_used_and_nowhere_else() -> None:
    assert pod_spec()["automountServiceAccountToken"] is True
    assert the(chart(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_memory_is_bounded_and_cpu_is_asked_for() -> None:
    resources = pod_spec()["containers"][0]["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}
