"""The web API as the chart installs it, and what it, the gateway and people need for tokens."""

from __future__ import annotations

import base64
import subprocess

import pytest

from sessionpools.gateway.settings import from_environment as gateway_settings
from sessionpools.web.settings import ENVIRONMENT
from sessionpools.web.settings import from_environment as web_settings
from support.manifests import CHART, HelmError, Object, chart, of_kind, parse, the
from support.tools import ROOT, tool

NAME = "session-pools-web"
OFF: Object = {"auth": {"enabled": False}}
WITHOUT: Object = OFF | {"web": {"enabled": False}}
S3: Object = {"web": {"store": {"url": "s3://bucket/path", "existingSecret": "credentials"}}}
TLS: Object = {"gateway": {"tls": {"secretName": "certificate"}}}
LABELS = {
    "app.kubernetes.io/name": "session-pools",
    "app.kubernetes.io/instance": "session-pools",
    "app.kubernetes.io/component": "web",
}


def shared(replicas: int = 1) -> Object:
    return {"web": {"replicas": replicas, "store": {"persistence": {"accessModes": ["ReadWriteMany"]}}}}


def deployment(values: Object | None = None) -> Object:
    return the(chart(values), "Deployment", NAME)


def pod_spec(values: Object | None = None) -> Object:
    spec: Object = deployment(values)["spec"]["template"]["spec"]
    return spec


def container(values: Object | None = None) -> Object:
    (only,) = pod_spec(values)["containers"]
    assert isinstance(only, dict)
    return only


def env(values: Object | None = None) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container(values)["env"]}


def volume(name: str, values: Object | None = None) -> Object:
    (found,) = [volume for volume in pod_spec(values)["volumes"] if volume["name"] == name]
    assert isinstance(found, dict)
    return found


def as_the_kubelet_sets_it(variables: list[Object]) -> dict[str, str]:
    """With fields of the pod, and with the variables that others name."""
    fields = {"metadata.name": "a-pod", "metadata.namespace": "session-pools"}
    found: dict[str, str] = {}
    for variable in variables:
        if "valueFrom" in variable:
            found[variable["name"]] = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            found[variable["name"]] = variable["value"].replace("$(POD_NAMESPACE)", "session-pools")
    return found


# --- the pod ----------------------------------------------------------------------------------------------------------


def test_the_command_is_one_that_the_image_has() -> None:
    values = {"image": {"registry": "r.example.com", "tag": "v1", "pullPolicy": "Always"}}
    found = container(values)
    assert (found["image"], found["imagePullPolicy"]) == ("r.example.com/session-pools:v1", "Always")
    assert found["command"] == ["session-pools-web"]
    assert "\nsession-pools-web = " in (ROOT / "pyproject.toml").read_text()


def test_it_is_told_what_it_needs_by_its_environment() -> None:
    assert env() == {
        "POD_NAME": None,
        "POD_NAMESPACE": None,
        "SESSIONPOOLS_REST_PORT": "12802",
        "SESSIONPOOLS_BUNDLES_PORT": "12803",
        "SESSIONPOOLS_HTTP_PORT": "12804",
        "SESSIONPOOLS_API_NAMESPACE": "session-pools",
        "SESSIONPOOLS_WATCH_NAMESPACES": "",
        "SESSIONPOOLS_NODES": "",
        "SESSIONPOOLS_STORE_URL": "file:///var/lib/session-pools",
        "SESSIONPOOLS_BUNDLES_URL": "http://session-pools-web.$(POD_NAMESPACE):12803",
        "SESSIONPOOLS_GATEWAY_URL": "http://session-pools-gateway:12800",
        "SESSIONPOOLS_GATEWAY_LABELS": "app.kubernetes.io/name=session-pools,app.kubernetes.io/instance=session-pools,"
        "app.kubernetes.io/component=gateway",
        "SESSIONPOOLS_GATEWAY_PORT": "12801",
        "SESSIONPOOLS_AUTH_ENABLED": "true",
        "SESSIONPOOLS_ADMIN_PASSWORD_FILE": "/etc/session-pools/admin/password",
        "SESSIONPOOLS_USERS_FILE": "/etc/session-pools/users/users.yaml",
        "SESSIONPOOLS_KEYS_SECRET": "session-pools-keys",
        "SESSIONPOOLS_KEYS_CONFIG_MAP": "session-pools-keys-public",
        "SESSIONPOOLS_LOG_LEVEL": "info",
    }
    assert env({"api": {"namespace": "scoring"}})["SESSIONPOOLS_API_NAMESPACE"] == "scoring"
    watched = {"watch": {"namespaces": ["blue", "green"], "nodes": ["worker-1", "worker-2"]}}
    assert env(watched)["SESSIONPOOLS_WATCH_NAMESPACES"] == "blue,green"
    assert env(watched)["SESSIONPOOLS_NODES"] == "worker-1,worker-2"
    assert env(S3)["SESSIONPOOLS_STORE_URL"] == "s3://bucket/path"
    assert env(TLS)["SESSIONPOOLS_GATEWAY_URL"] == "https://session-pools-gateway:12800"
    assert env({"logLevel": "debug"})["SESSIONPOOLS_LOG_LEVEL"] == "debug"
    extra = {"web": {"extraEnv": [{"name": "AWS_REGION", "value": "eu-north-1"}]}}
    assert env(extra)["AWS_REGION"] == "eu-north-1"


@pytest.mark.parametrize("values", [{}, OFF, S3, TLS], ids=["default", "no tokens", "S3", "TLS"])
def test_every_variable_is_one_that_its_program_knows_and_understands(values: Object) -> None:
    variables = container(values)["env"]
    assert {variable["name"] for variable in variables} <= {name for name, _, _ in ENVIRONMENT}
    settings = web_settings(as_the_kubelet_sets_it(variables))
    assert settings.bundles_url == "http://session-pools-web.session-pools:12803"
    agent = the(chart(values), "Deployment", "session-pools-gateway")["spec"]["template"]["spec"]["containers"][1]
    gateway = gateway_settings(as_the_kubelet_sets_it(agent["env"]))
    assert gateway.haproxy.web is not None
    assert (gateway.haproxy.web.host, gateway.haproxy.web.port) == (NAME, settings.rest_port)
    assert (gateway.haproxy.tokens is not None) == settings.auth_enabled == (values is not OFF)


def test_the_service_and_the_probes_reach_the_ports_that_it_is_told() -> None:
    found, told = container(), env()
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {
        "http": int(told["SESSIONPOOLS_REST_PORT"] or 0),
        "bundles": int(told["SESSIONPOOLS_BUNDLES_PORT"] or 0),
        "metrics": int(told["SESSIONPOOLS_HTTP_PORT"] or 0),
    }
    service = the(chart(), "Service", NAME)["spec"]
    assert (service["type"], service["selector"]) == ("ClusterIP", LABELS)
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    assert found["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_what_is_set_for_the_pod_stands_in_the_pod() -> None:
    web = {
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"disk": "fast"},
        "podAnnotations": {"example.com/scrape": "true"},
        "podLabels": {"team": "ml"},
    }
    values = {"web": web, "imagePullSecrets": [{"name": "registry"}]}
    spec, metadata = pod_spec(values), deployment(values)["spec"]["template"]["metadata"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert [(each.get("key"), each.get("tolerationSeconds")) for each in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 30),
        ("node.kubernetes.io/unreachable", 30),
        (None, None),
    ]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "fast"}
    assert metadata["annotations"]["example.com/scrape"] == "true"
    assert metadata["labels"].items() >= (LABELS | {"team": "ml"}).items()
    assert deployment(values)["spec"]["selector"]["matchLabels"] == LABELS


def test_an_account_that_exists_is_used_and_not_made() -> None:
    objects = chart({"web": {"serviceAccount": {"create": False, "name": "ours"}}})
    assert NAME not in {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    assert the(objects, "Deployment", NAME)["spec"]["template"]["spec"]["serviceAccountName"] == "ours"
    assert the(objects, "RoleBinding", f"{NAME}-release")["subjects"][0]["name"] == "ours"
    with pytest.raises(HelmError, match=r"web\.serviceAccount\.name must be set when"):
        chart({"web": {"serviceAccount": {"create": False}}})


def test_a_pod_monitor_asks_for_its_metrics_when_asked_for() -> None:
    monitor = the(chart({"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "p"}}}}), "PodMonitor", NAME)
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["spec"]["selector"]["matchLabels"] == LABELS
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "30s"}]


# --- the store --------------------------------------------------------------------------------------------------------


def test_by_default_it_has_a_volume_that_outlives_the_release() -> None:
    claim = the(chart(), "PersistentVolumeClaim", NAME)
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    assert volume("store")["persistentVolumeClaim"] == {"claimName": NAME}
    (mount,) = [mount for mount in container()["volumeMounts"] if mount["name"] == "store"]
    assert f"file://{mount['mountPath']}" == env()["SESSIONPOOLS_STORE_URL"]


@pytest.mark.parametrize(("name", "in_the_claim"), [("fast", "fast"), ("-", "")], ids=["named", "none"])
def test_the_class_of_the_volume_is_a_value(name: str, in_the_claim: str) -> None:
    persistence = {"storageClassName": name, "size": "1Gi"}
    spec = the(chart({"web": {"store": {"persistence": persistence}}}), "PersistentVolumeClaim", NAME)["spec"]
    assert spec["storageClassName"] == in_the_claim
    assert spec["resources"]["requests"]["storage"] == "1Gi"


def test_a_claim_that_exists_is_used_and_none_made() -> None:
    values = {"web": {"store": {"persistence": {"existingClaim": "ours"}}}}
    assert not of_kind(chart(values), "PersistentVolumeClaim")
    assert volume("store", values)["persistentVolumeClaim"] == {"claimName": "ours"}


def test_a_store_elsewhere_needs_no_volume_and_gets_its_credentials_from_a_secret() -> None:
    assert not of_kind(chart(S3), "PersistentVolumeClaim")
    assert "store" not in {volume["name"] for volume in pod_spec(S3)["volumes"]}
    assert container(S3)["envFrom"] == [{"secretRef": {"name": "credentials"}}]
    assert "envFrom" not in container()


def test_without_a_volume_what_is_published_ends_with_the_pod() -> None:
    values = {"web": {"store": {"persistence": {"enabled": False}}}}
    assert not of_kind(chart(values), "PersistentVolumeClaim")
    assert volume("store", values)["emptyDir"] == {}


@pytest.mark.parametrize(
    ("values", "strategy"),
    [({}, "Recreate"), ({"web": {"store": {"persistence": {"enabled": False}}}}, "Recreate"), (S3, "RollingUpdate"),
     (shared(), "RollingUpdate")],
    ids=["a volume", "no volume", "S3", "a volume for many"],
)  # fmt: skip
def test_a_new_one_is_ready_before_an_old_one_ends_where_both_may_have_the_store(values: Object, strategy: str) -> None:
    found = deployment(values)["spec"]["strategy"]
    assert found["type"] == strategy
    if strategy == "Recreate":
        assert "rollingUpdate" not in found and "lifecycle" not in container(values)
    else:
        assert found["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        # the old one takes requests until the Service leads them to another
        assert container(values)["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}


def test_several_replicas_need_a_store_that_all_of_them_can_write() -> None:
    with pytest.raises(HelmError, match=r"web\.replicas is 2, .*set web\.store\.url, or ReadWriteMany"):
        chart({"web": {"replicas": 2}})
    for values in (shared(2), {"web": {"replicas": 2, "store": {"url": "gs://bucket"}}}):
        assert deployment(values)["spec"]["replicas"] == 2
        budget = the(chart(values), "PodDisruptionBudget", NAME)["spec"]
        assert (budget["minAvailable"], budget["selector"]["matchLabels"]) == (1, LABELS)
    assert NAME not in {o["metadata"]["name"] for o in of_kind(chart(), "PodDisruptionBudget")}


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_admins_password_is_long_random_and_kept_when_the_release_goes() -> None:
    secret = the(chart(), "Secret", "session-pools-admin")
    password = base64.b64decode(secret["data"]["password"]).decode()
    assert len(password) == 32 and password.isalnum()
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    again = subprocess.run(
        [tool("helm"), "template", "session-pools", CHART], text=True, capture_output=True, check=True
    )
    other = the(parse(again.stdout), "Secret", "session-pools-admin")
    assert other["data"] != secret["data"]
    assert volume("admin")["secret"] == {"secretName": "session-pools-admin"}


def test_admins_password_may_be_in_a_secret_that_exists_so_that_rendering_makes_none() -> None:
    values = {"auth": {"admin": {"existingSecret": "ours"}}}
    assert [o["metadata"]["name"] for o in of_kind(chart(values), "Secret")] == ["session-pools-keys"]
    assert volume("admin", values)["secret"] == {"secretName": "ours"}


def test_other_users_are_in_a_secret_that_need_not_be_there() -> None:
    assert volume("users")["secret"] == {"secretName": "session-pools-users", "optional": True}
    values = {"auth": {"users": {"existingSecret": "ours"}}}
    assert volume("users", values)["secret"] == {"secretName": "ours", "optional": True}
    mounted = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert env()["SESSIONPOOLS_ADMIN_PASSWORD_FILE"] == f"{mounted['admin']}/password"
    assert env()["SESSIONPOOLS_USERS_FILE"] == f"{mounted['users']}/users.yaml"


def test_the_keys_are_the_web_apis_and_no_upgrade_touches_them() -> None:
    for kind, name in (("Secret", "session-pools-keys"), ("ConfigMap", "session-pools-keys-public")):
        found = the(chart(), kind, name)
        assert not {"data", "stringData", "binaryData", "immutable"} & set(found)
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_names_are_the_releases_own() -> None:
    objects = chart({"crds": {"enabled": False}}, release="team-b")
    (found,) = the(objects, "Deployment", "team-b-session-pools-web")["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable.get("value") for variable in found["env"]}
    assert told["SESSIONPOOLS_KEYS_SECRET"] == "team-b-session-pools-keys"
    assert told["SESSIONPOOLS_KEYS_CONFIG_MAP"] == "team-b-session-pools-keys-public"
    names = {o["metadata"]["name"] for o in of_kind(objects, "Secret", "ConfigMap")}
    assert names == {f"team-b-session-pools-{part}" for part in ("admin", "keys", "keys-public")}


def test_turned_off_nothing_of_tokens_is_made_and_gateway_and_web_api_are_told() -> None:
    objects = chart(OFF)
    assert not of_kind(objects, "Secret", "ConfigMap")
    assert env(OFF)["SESSIONPOOLS_AUTH_ENABLED"] == "false"
    assert not {"admin", "users"} & {volume["name"] for volume in pod_spec(OFF)["volumes"]}
    agent = the(objects, "Deployment", "session-pools-gateway")["spec"]["template"]["spec"]["containers"][1]
    told = {variable["name"]: variable.get("value") for variable in agent["env"]}
    assert told["SESSIONPOOLS_AUTH_ENABLED"] == "false"
    assert told["SESSIONPOOLS_WEB_API"] == "session-pools-web:12802"
    assert "SESSIONPOOLS_KEYS_CONFIG_MAP" not in told


def test_batches_believe_the_one_certificate_that_the_gateway_has_and_get_no_key() -> None:
    assert env(TLS)["SESSIONPOOLS_GATEWAY_CERTIFICATE"] == "/etc/session-pools/gateway/tls.crt"
    assert volume("gateway", TLS)["secret"] == {
        "secretName": "certificate",
        "items": [{"key": "tls.crt", "path": "tls.crt"}],
    }
    assert "SESSIONPOOLS_GATEWAY_CERTIFICATE" not in env()


# --- without ----------------------------------------------------------------------------------------------------------


def test_it_can_be_left_out_and_tokens_with_it() -> None:
    objects = chart(WITHOUT)
    assert not [o for o in objects if o["metadata"]["labels"].get("app.kubernetes.io/component") == "web"]
    agent = the(objects, "Deployment", "session-pools-gateway")["spec"]["template"]["spec"]["containers"][1]
    told = {variable["name"]: variable.get("value") for variable in agent["env"]}
    assert "SESSIONPOOLS_WEB_API" not in told
    assert told["SESSIONPOOLS_AUTH_ENABLED"] == "false"


def test_tokens_that_nobody_could_get_are_refused() -> None:
    with pytest.raises(HelmError, match=r"auth\.enabled needs web\.enabled: tokens come from the web API"):
        chart({"web": {"enabled": False}})


def test_values_of_an_older_chart_are_refused_with_the_way_to_keep_them() -> None:
    with pytest.raises(HelmError, match=r"--reset-then-reuse-values in place of --reuse-values"):
        chart({"web": None, "auth": None})
