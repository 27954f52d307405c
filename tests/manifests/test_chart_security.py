"""The chart's pods run where a namespace enforces the pod security standard `restricted`, and ask for little."""

import pytest

from support.manifests import Object, chart, the
from support.pod_security import violations

TLS = {"gateway": {"tls": {"secretName": "certificate"}}}
OFFICIAL = {"gateway": {"haproxyImage": {"repository": "haproxy", "tag": "2.8"}}}


def pod_spec(values: Object | None = None, component: str = "controller") -> Object:
    deployment = the(chart(values), "Deployment", f"session-pools-{component}")
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def gateway(values: Object | None = None) -> tuple[Object, Object, Object]:
    """Its pod's spec and the containers haproxy and agent."""
    spec = pod_spec(values, "gateway")
    haproxy, agent = spec["containers"]
    assert (haproxy["name"], agent["name"]) == ("haproxy", "agent")
    return spec, haproxy, agent


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
    assert pod_spec(component="web")["automountServiceAccountToken"] is True
    for component in ("controller", "gateway", "web"):
        account = the(chart(), "ServiceAccount", f"session-pools-{component}")
        assert account["automountServiceAccountToken"] is False


def test_memory_is_bounded_and_cpu_is_asked_for() -> None:
    resources = pod_spec()["containers"][0]["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize("values", [{}, TLS, OFFICIAL], ids=["default", "TLS", "an official image"])
def test_the_gateway_satisfies_restricted_with_a_root_file_system_that_is_read_only(values: Object) -> None:
    spec, haproxy, agent = gateway(values)
    assert violations(spec) == []
    for container in (haproxy, agent):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}


def test_both_containers_of_the_gateway_are_one_user_and_share_one_directory_in_memory() -> None:
    spec, haproxy, agent = gateway(OFFICIAL)
    assert spec["securityContext"]["runAsUser"] == 65532
    assert "runAsUser" not in haproxy["securityContext"] | agent["securityContext"]
    shared = {"name": "run", "mountPath": "/run/session-pools"}
    assert shared in haproxy["volumeMounts"] and shared in agent["volumeMounts"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["run"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}


def test_only_the_agent_gets_a_token_and_not_the_container_that_callers_reach() -> None:
    spec, haproxy, agent = gateway()
    assert spec["automountServiceAccountToken"] is False
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert [mount["mountPath"] for mount in haproxy["volumeMounts"]] == ["/run/session-pools"]
    (mounted,) = [mount for mount in agent["volumeMounts"] if mount["mountPath"] == where]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == mounted["name"]]
    sources = {key: value for source in volume["projected"]["sources"] for key, value in source.items()}
    assert set(sources) == {"serviceAccountToken", "configMap", "downwardAPI"}


STORES = [
    {},
    {"web": {"store": {"url": "s3://bucket/path", "existingSecret": "credentials"}}},
    {"web": {"store": {"persistence": {"enabled": False}}}},
    {"auth": {"enabled": False}},
    TLS,
]


@pytest.mark.parametrize("values", STORES, ids=["a volume", "S3", "no volume", "no tokens", "TLS"])
def test_the_web_api_satisfies_restricted_with_a_root_file_system_that_is_read_only(values: Object) -> None:
    spec = pod_spec(values, "web")
    assert violations(spec) == []
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert set(container["resources"]["limits"]) == {"memory"}
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in spec["volumes"]}
    assert {name for name, mount in mounted.items() if not mount.get("readOnly")} <= {"tmp", "store"}


def test_the_web_api_s_volume_belongs_to_its_group() -> None:
    context = pod_spec(component="web")["securityContext"]
    assert (context["fsGroup"], context["fsGroupChangePolicy"]) == (65532, "OnRootMismatch")
