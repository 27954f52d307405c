"""The gateway as the chart installs it: two pods, one of which the Service selects, and what leads to them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sessionpools.api import names
from sessionpools.kube.protocol import LEASES
from support.manifests import HelmError, Object, chart, of_kind, the
from support.tools import ROOT

NAME = "session-pools-gateway"
OFFICIAL = {"gateway": {"haproxyImage": {"repository": "haproxy", "tag": "2.8"}}}
TLS = {"gateway": {"tls": {"secretName": "certificate"}}}
GATEWAYS = {
    "app.kubernetes.io/name": "session-pools",
    "app.kubernetes.io/instance": "session-pools",
    "app.kubernetes.io/component": "gateway",
}


def deployment(values: Object | None = None) -> Object:
    return the(chart(values), "Deployment", NAME)


def container(name: str, values: Object | None = None) -> Object:
    (found,) = [c for c in deployment(values)["spec"]["template"]["spec"]["containers"] if c["name"] == name]
    assert isinstance(found, dict)
    return found


def env(values: Object | None = None) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container("agent", values)["env"]}


def service(values: Object | None = None) -> Object:
    spec: Object = the(chart(values), "Service", NAME)["spec"]
    return spec


# --- the pods ---------------------------------------------------------------------------------------------------------


def test_there_are_two_and_a_new_one_is_ready_before_an_old_one_ends() -> None:
    spec = deployment()["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert deployment({"gateway": {"replicas": 3}})["spec"]["replicas"] == 3


def test_they_spread_over_nodes_and_zones_where_there_is_room() -> None:
    pod = deployment()["spec"]["template"]
    constraints = pod["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in constraints} == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    for each in constraints:
        assert (each["maxSkew"], each["nodeTaintsPolicy"]) == (1, "Honor")
        assert each["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_a_lost_nodes_gateway_is_replaced_soon() -> None:
    tolerations = deployment()["spec"]["template"]["spec"]["tolerations"]
    assert {(each["key"], each["tolerationSeconds"]) for each in tolerations} == {
        ("node.kubernetes.io/not-ready", 30),
        ("node.kubernetes.io/unreachable", 30),
    }


def test_a_drain_leaves_one_of_them_and_is_not_held_up_where_there_is_but_one() -> None:
    budget = the(chart(), "PodDisruptionBudget", NAME)["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"]["matchLabels"] == GATEWAYS
    alone = chart({"gateway": {"replicas": 1}})
    assert [o["metadata"]["name"] for o in of_kind(alone, "PodDisruptionBudget")] == ["session-pools-controller"]


def test_no_pod_is_made_active_by_the_chart() -> None:
    pod = deployment()["spec"]["template"]
    assert names.LABEL_GATEWAY not in pod["metadata"]["labels"]
    assert deployment()["spec"]["selector"]["matchLabels"] == GATEWAYS


def test_both_containers_run_the_products_image_by_default() -> None:
    values = {"image": {"registry": "r.example.com", "tag": "v1", "pullPolicy": "Always"}}
    for name in ("haproxy", "agent"):
        found = container(name, values)
        assert (found["image"], found["imagePullPolicy"]) == ("r.example.com/session-pools:v1", "Always")
        assert found["command"] == ["session-pools-gateway", name]
    assert "\nsession-pools-gateway = " in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"repository": "haproxy", "tag": "2.8"}, "mirror.example.com/haproxy:2.8"),
        ({"registry": "docker.io", "repository": "haproxy", "tag": "2.8"}, "docker.io/haproxy:2.8"),
        ({"repository": "haproxy", "digest": "sha256:" + "0" * 64}, "mirror.example.com/haproxy@sha256:" + "0" * 64),
    ],
    ids=["the registry of all images", "a registry of its own", "digest"],
)
def test_haproxy_can_come_from_an_image_of_its_own(image: Object, name: str) -> None:
    values = {"image": {"registry": "mirror.example.com"}, "gateway": {"haproxyImage": image}}
    assert container("haproxy", values)["image"] == name
    assert container("agent", values)["image"] == "mirror.example.com/session-pools:dev"


def test_another_image_waits_for_the_configuration_and_then_becomes_haproxy(tmp_path: Path) -> None:
    shell, option, script = container("haproxy", OFFICIAL)["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    (tmp_path / "haproxy").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "haproxy").chmod(0o755)
    script = script.replace("/run/session-pools", str(tmp_path))
    running = subprocess.Popen(
        [shell, option, script], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, stdout=subprocess.PIPE, text=True
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)
        (tmp_path / "haproxy.cfg").write_text("global\n")
        out, _ = running.communicate(timeout=20)
    finally:
        running.kill()
    assert out.split() == ["-W", "-S", f"{tmp_path}/master.sock", "-f", f"{tmp_path}/haproxy.cfg"]


def test_another_image_that_still_waits_ends_when_it_is_told_to(tmp_path: Path) -> None:
    shell, option, script = container("haproxy", OFFICIAL)["command"]
    script = "echo waiting; " + script.replace("/run/session-pools", str(tmp_path))
    # without echo the trap might not be set yet
    script = script.replace("until", "echo set; until", 1)
    running = subprocess.Popen([shell, option, script], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == ["waiting\n", "set\n"]
        running.terminate()
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.communicate()


def test_the_agent_is_told_what_it_needs_by_its_environment() -> None:
    assert env() == {
        "POD_NAME": None,
        "POD_NAMESPACE": None,
        "SESSIONPOOLS_LEASE": NAME,
        "SESSIONPOOLS_GATEWAY_LABELS": ",".join(f"{key}={value}" for key, value in GATEWAYS.items()),
        "SESSIONPOOLS_API_NAMESPACE": "session-pools",
        "SESSIONPOOLS_WATCH_NAMESPACES": "",
        "SESSIONPOOLS_IGNORE_NAMESPACES": "",
        "SESSIONPOOLS_GATEWAY_DIR": "/run/session-pools",
        "SESSIONPOOLS_GATEWAY_PORT": "12800",
        "SESSIONPOOLS_HTTP_PORT": "12801",
        "SESSIONPOOLS_MAX_CONNECTIONS": "4000",
        "SESSIONPOOLS_ACCESS_LOG": "true",
        "SESSIONPOOLS_WEB_API": "session-pools-web:12802",
        "SESSIONPOOLS_WEB_MAX_BODY_MIB": "512",
        "SESSIONPOOLS_AUTH_ENABLED": "true",
        "SESSIONPOOLS_KEYS_CONFIG_MAP": "session-pools-keys-public",
        "SESSIONPOOLS_LOG_LEVEL": "info",
    }
    assert env({"gateway": {"accessLog": False}})["SESSIONPOOLS_ACCESS_LOG"] == "false"
    assert env({"gateway": {"maxConnections": 1000000}})["SESSIONPOOLS_MAX_CONNECTIONS"] == "1000000"
    assert env({"logLevel": "debug"})["SESSIONPOOLS_LOG_LEVEL"] == "debug"
    extra = {"gateway": {"agent": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}}}
    assert env(extra)["HTTPS_PROXY"] == "http://proxy:3128"


def test_the_lease_and_the_selector_are_the_releases_own() -> None:
    objects = chart({"crds": {"enabled": False}}, release="team-b")
    agent = the(objects, "Deployment", f"team-b-{NAME}")["spec"]["template"]["spec"]["containers"][1]
    told = {variable["name"]: variable.get("value") for variable in agent["env"]}
    assert told["SESSIONPOOLS_LEASE"] == f"team-b-{NAME}"
    assert "app.kubernetes.io/instance=team-b," in told["SESSIONPOOLS_GATEWAY_LABELS"]


@pytest.mark.parametrize(
    ("values", "namespace"),
    [
        ({}, "operators"),
        ({"api": {"namespace": "demo"}}, "demo"),
        ({"watch": {"namespaces": ["blue", "green"]}}, "blue"),
        ({"watch": {"namespaces": ["blue", "green"]}, "api": {"namespace": "green"}}, "green"),
    ],
)
def test_ml_servers_own_paths_mean_a_namespace_that_is_served(values: Object, namespace: str) -> None:
    agent = the(chart(values, namespace="operators"), "Deployment", NAME)["spec"]["template"]["spec"]["containers"][1]
    told = {variable["name"]: variable.get("value") for variable in agent["env"]}
    assert told["SESSIONPOOLS_API_NAMESPACE"] == namespace


def test_a_namespace_of_these_paths_that_is_not_watched_is_refused() -> None:
    with pytest.raises(HelmError, match=r"api\.namespace is demo, which is not one of watch\.namespaces \(blue\)"):
        chart({"api": {"namespace": "demo"}, "watch": {"namespaces": ["blue"]}})


def test_the_probes_take_no_callers_place_and_none_ends_a_haproxy_that_is_flooded() -> None:
    haproxy, agent = container("haproxy"), container("agent")
    assert haproxy["readinessProbe"]["tcpSocket"] == {"port": "http"}
    assert "livenessProbe" not in haproxy
    assert [port["containerPort"] for port in haproxy["ports"] + agent["ports"]] == [12800, 12801]
    assert agent["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "agent"}
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "agent"}


def test_a_gateway_that_ends_hands_over_first_then_finishes_its_calls() -> None:
    haproxy, agent = container("haproxy"), container("agent")
    command = haproxy["lifecycle"]["preStop"]["exec"]["command"][-1]
    serves_on = int(command.split("sleep ")[1].split(";")[0])
    assert agent["lifecycle"]["preStop"]["sleep"]["seconds"] < serves_on
    assert "kill -USR1 1" in command  # HAProxy's word for: finish, and take no new connection
    # a default pool's queue and call
    assert deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > serves_on + 10 + 60


# --- the Service and what leads to it ---------------------------------------------------------------------------------


def test_the_service_selects_the_active_gateway_alone() -> None:
    spec = service()
    assert spec["selector"] == GATEWAYS | {names.LABEL_GATEWAY: names.GATEWAY_ACTIVE}
    (port,) = spec["ports"]
    assert (port["name"], port["port"], port["targetPort"], port["appProtocol"]) == ("http", 12800, "http", "http")


def test_the_service_asks_the_label_and_not_readiness() -> None:
    assert service()["publishNotReadyAddresses"] is True


def test_the_service_can_be_reached_from_outside() -> None:
    assert service()["type"] == "ClusterIP"
    assert service({"gateway": {"service": {"type": "LoadBalancer"}}})["type"] == "LoadBalancer"


def test_with_a_certificate_callers_connect_with_tls() -> None:
    assert env(TLS)["SESSIONPOOLS_TLS_CERTIFICATE"] == "/etc/session-pools/tls/tls.crt"
    for name in ("haproxy", "agent"):
        mount = {"name": "tls", "mountPath": "/etc/session-pools/tls", "readOnly": True}
        assert mount in container(name, TLS)["volumeMounts"]
    (volume,) = [v for v in deployment(TLS)["spec"]["template"]["spec"]["volumes"] if v["name"] == "tls"]
    assert volume["secret"]["secretName"] == "certificate"
    # HAProxy reads the key of FILE from FILE.key
    assert {item["key"]: item["path"] for item in volume["secret"]["items"]} == {
        "tls.crt": "tls.crt",
        "tls.key": "tls.crt.key",
    }
    (port,) = service(TLS)["ports"]
    assert (port["name"], port["appProtocol"]) == ("https", "https")
    assert "SESSIONPOOLS_TLS_CERTIFICATE" not in env()


def test_an_ingress_leads_to_the_gateway_when_asked_for() -> None:
    assert not of_kind(chart(), "Ingress", "HTTPRoute")
    hosts = ["score.example.com", "score.example.org"]
    spec = the(chart({"gateway": {"ingress": {"enabled": True, "className": "public", "hosts": hosts}}}), "Ingress")
    assert spec["spec"]["ingressClassName"] == "public"
    assert [rule["host"] for rule in spec["spec"]["rules"]] == hosts
    for rule in spec["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": NAME, "port": {"number": 12800}}
    (rule,) = the(chart({"gateway": {"ingress": {"enabled": True}}}), "Ingress")["spec"]["rules"]
    assert "host" not in rule


def test_a_route_of_the_gateway_api_leads_to_the_gateway_when_asked_for() -> None:
    route = {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}], "timeout": "120s"}
    spec = the(chart({"gateway": {"httpRoute": route | {"hostnames": ["score.example.com"]}}}), "HTTPRoute")["spec"]
    assert spec == {
        "parentRefs": [{"name": "public", "namespace": "gateways"}],
        "hostnames": ["score.example.com"],
        "rules": [{"backendRefs": [{"name": NAME, "port": 12800}], "timeouts": {"request": "120s"}}],
    }


def test_a_route_without_a_gateway_to_attach_to_is_refused() -> None:
    with pytest.raises(HelmError, match=r"gateway\.httpRoute\.enabled needs gateway\.httpRoute\.parentRefs"):
        chart({"gateway": {"httpRoute": {"enabled": True}}})


def test_a_pod_monitor_asks_all_gateways_for_metrics_when_asked_for() -> None:
    assert not of_kind(chart(), "PodMonitor")
    monitor = the(chart({"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "p"}}}}), "PodMonitor", NAME)
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["spec"]["selector"]["matchLabels"] == GATEWAYS
    (port,) = container("agent")["ports"]
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": port["name"], "path": "/metrics", "interval": "30s"}]


# --- without ----------------------------------------------------------------------------------------------------------


def test_it_can_be_left_out() -> None:
    objects = chart({"gateway": {"enabled": False}, "metrics": {"podMonitor": {"enabled": True}}})
    components = {o["metadata"]["labels"].get("app.kubernetes.io/component") for o in objects}
    assert not components & {"gateway", "web"}  # callers reach the web API by the gateway alone


def test_an_account_that_exists_is_used_and_not_made() -> None:
    objects = chart({"gateway": {"serviceAccount": {"create": False, "name": "ours"}}})
    accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    assert accounts == {"session-pools-controller", "session-pools-web"}
    assert the(objects, "Deployment", NAME)["spec"]["template"]["spec"]["serviceAccountName"] == "ours"
    assert the(objects, "RoleBinding", f"{NAME}-election")["subjects"][0]["name"] == "ours"
    expression = the(objects, "ValidatingAdmissionPolicy")["spec"]["matchConditions"][0]["expression"]
    assert expression.endswith(':ours"')


def test_an_account_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(HelmError, match=r"gateway\.serviceAccount\.name must be set when"):
        chart({"gateway": {"serviceAccount": {"create": False}}})


def test_the_lease_is_of_the_kind_that_the_role_names() -> None:
    (rule, *_) = [r for r in the(chart(), "Role", f"{NAME}-election")["rules"] if "leases" in r["resources"]]
    assert (rule["apiGroups"], rule["resources"]) == ([LEASES.group], [LEASES.plural])
