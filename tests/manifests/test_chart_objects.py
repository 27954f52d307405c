"""What the chart installs: by default, and by the values that change it."""

import subprocess

import kubernetes_validate
import pytest
import yaml

from sessionpools.controller.health import STUCK_LOOP_SECONDS
from support.manifests import CHART, HelmError, Object, chart, helm_template, of_kind, the
from support.tools import ROOT, tool

# The oldest version that Chart.yaml admits, and the one that the local cluster runs.
KUBERNETES = ["1.30", "1.34"]

NAMESPACED = {"watch": {"namespaces": ["blue", "green"]}}
EVERYTHING_ON = {
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"a": "b"}},
    "controller": {
        "replicas": 3,
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"example.com/scrape": "true"},
        "podLabels": {"team": "ml"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    },
    "gateway": {
        "replicas": 3,
        "haproxyImage": {"repository": "haproxy", "tag": "2.8"},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "tls": {"secretName": "certificate"},
        "ingress": {
            "enabled": True,
            "className": "public",
            "annotations": {"a": "b"},
            "hosts": ["score.example.com", "*.example.org"],
            "tls": [{"secretName": "s", "hosts": ["score.example.com"]}],
        },
        "agent": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"example.com/scrape": "true"},
        "podLabels": {"team": "ml"},
        "serviceAccount": {"annotations": {"a": "b"}},
    },
    "auth": {"admin": {"existingSecret": "ours"}, "users": {"existingSecret": "theirs"}},
    "web": {
        "replicas": 2,
        "store": {
            "existingSecret": "store",
            "persistence": {"storageClassName": "shared", "accessModes": ["ReadWriteMany"]},
        },
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"example.com/scrape": "true"},
        "podLabels": {"team": "ml"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "serviceAccount": {"annotations": {"a": "b"}},
    },
    "networkPolicy": {
        "namespaces": ["demo"],
        "webEgress": [{"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}], "ports": [{"port": 9000}]}],
        "sessionIngress": [{"from": [{"podSelector": {"matchLabels": {"app": "mine"}}}], "ports": [{"port": 9000}]}],
        "sessionEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 5432}]}],
    },
    "metrics": {"service": {"annotations": {"a": "b"}}},
}


def deployment(objects: list[Object]) -> Object:
    return the(objects, "Deployment", "session-pools-controller")


def pod(objects: list[Object]) -> Object:
    template: Object = deployment(objects)["spec"]["template"]
    return template


def container(objects: list[Object]) -> Object:
    (only,) = pod(objects)["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def env(objects: list[Object]) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in container(objects)["env"]}


def test_helm_lint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("helm"), "lint", "--strict", CHART], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_by_default_controllers_gateways_and_a_web_api_are_installed_with_what_they_need() -> None:
    objects = chart()
    assert sorted((o["kind"], o["metadata"]["name"]) for o in objects) == [
        ("ClusterRole", "session-pools-controller"),
        ("ClusterRole", "session-pools-edit"),
        ("ClusterRole", "session-pools-gateway"),
        ("ClusterRole", "session-pools-view"),
        ("ClusterRole", "session-pools-web"),
        ("ClusterRoleBinding", "session-pools-controller"),
        ("ClusterRoleBinding", "session-pools-gateway"),
        ("ClusterRoleBinding", "session-pools-web"),
        ("ConfigMap", "session-pools-keys-public"),
        ("CustomResourceDefinition", "sessionpools.sessionpools.dev"),
        ("CustomResourceDefinition", "webservices.sessionpools.dev"),
        ("Deployment", "session-pools-controller"),
        ("Deployment", "session-pools-gateway"),
        ("Deployment", "session-pools-web"),
        ("NetworkPolicy", "session-pools-gateway"),
        ("NetworkPolicy", "session-pools-web"),
        ("PersistentVolumeClaim", "session-pools-web"),
        ("PodDisruptionBudget", "session-pools-controller"),
        ("PodDisruptionBudget", "session-pools-gateway"),
        ("Role", "session-pools-controller-election"),
        ("Role", "session-pools-controller-gateways"),
        ("Role", "session-pools-gateway-election"),
        ("Role", "session-pools-web"),
        ("Role", "session-pools-web-release"),
        ("RoleBinding", "session-pools-controller-election"),
        ("RoleBinding", "session-pools-controller-gateways"),
        ("RoleBinding", "session-pools-gateway-election"),
        ("RoleBinding", "session-pools-web"),
        ("RoleBinding", "session-pools-web-release"),
        ("Secret", "session-pools-admin"),
        ("Secret", "session-pools-keys"),
        ("Service", "session-pools-controller"),
        ("Service", "session-pools-gateway"),
        ("Service", "session-pools-web"),
        ("ServiceAccount", "session-pools-controller"),
        ("ServiceAccount", "session-pools-gateway"),
        ("ServiceAccount", "session-pools-web"),
        ("ValidatingAdmissionPolicy", "session-pools-gateway"),
        ("ValidatingAdmissionPolicyBinding", "session-pools-gateway"),
    ]


def test_there_are_two_and_a_new_one_is_ready_before_an_old_one_ends() -> None:
    spec = deployment(chart())["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert deployment(chart({"controller": {"replicas": 3}}))["spec"]["replicas"] == 3


def test_they_spread_over_nodes_and_zones_where_there_is_room() -> None:
    constraints = pod(chart())["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"]: each["whenUnsatisfiable"] for each in constraints} == {
        "kubernetes.io/hostname": "DoNotSchedule",
        "topology.kubernetes.io/zone": "ScheduleAnyway",
    }
    for each in constraints:
        assert (each["maxSkew"], each["nodeTaintsPolicy"]) == (1, "Honor")
        assert each["labelSelector"] == deployment(chart())["spec"]["selector"]


def test_a_drain_leaves_one_of_them_and_is_not_held_up_where_there_is_but_one() -> None:
    budget = the(chart(), "PodDisruptionBudget", "session-pools-controller")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == deployment(chart())["spec"]["selector"]
    alone = chart({"controller": {"replicas": 1}})
    assert [o["metadata"]["name"] for o in of_kind(alone, "PodDisruptionBudget")] == ["session-pools-gateway"]


def test_the_lease_is_the_releases_own() -> None:
    objects = chart({"crds": {"enabled": False}}, release="team-b")
    (controller,) = the(objects, "Deployment", "team-b-session-pools-controller")["spec"]["template"]["spec"][
        "containers"
    ]
    told = {variable["name"]: variable.get("value") for variable in controller["env"]}
    assert told["SESSIONPOOLS_LEASE"] == "team-b-session-pools-controller"


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [{}, NAMESPACED, EVERYTHING_ON], ids=["default", "namespaced", "everything on"])
def test_every_object_is_valid_for_kubernetes(values: Object, version: str) -> None:
    for o in chart(values):
        kubernetes_validate.validate(o, version, strict=True)


def keys_given_twice(node: yaml.Node) -> list[str]:
    if isinstance(node, yaml.SequenceNode):
        return [twice for item in node.value for twice in keys_given_twice(item)]
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = [key.value for key, _ in node.value]
    found = [f"{key} ({node.start_mark})" for key in set(keys) if keys.count(key) > 1]
    return found + [twice for _, value in node.value for twice in keys_given_twice(value)]


def test_no_object_has_a_key_twice() -> None:
    rendered = helm_template({**EVERYTHING_ON, "crds": {"enabled": False}})
    documents = list(yaml.compose_all(rendered, Loader=yaml.SafeLoader))
    assert documents
    assert [twice for document in documents if document for twice in keys_given_twice(document)] == []


def test_every_object_carries_the_common_labels() -> None:
    for o in chart(NAMESPACED):
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "session-pools"
        assert labels["app.kubernetes.io/instance"] == "session-pools"
        assert labels["app.kubernetes.io/part-of"] == "session-pools"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_every_namespaced_object_says_its_namespace() -> None:
    for o in chart(namespace="elsewhere"):
        if o["kind"].startswith(("Cluster", "CustomResource", "ValidatingAdmission")):
            assert "namespace" not in o["metadata"]
        else:
            assert o["metadata"]["namespace"] == "elsewhere"


def test_the_selectors_of_deployment_and_service_find_the_pod() -> None:
    objects = chart({"controller": {"podLabels": {"team": "ml"}}})
    labels = pod(objects)["metadata"]["labels"]
    assert labels["team"] == "ml"
    assert deployment(objects)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service = the(objects, "Service", "session-pools-controller")
    assert service["spec"]["selector"].items() <= labels.items()


def test_the_service_and_the_probes_reach_the_port_that_the_controller_is_told() -> None:
    objects = chart()
    (port,) = container(objects)["ports"]
    assert env(objects)["SESSIONPOOLS_HTTP_PORT"] == str(port["containerPort"]) == "8080"
    (served,) = the(objects, "Service", "session-pools-controller")["spec"]["ports"]
    assert (served["targetPort"], served["port"]) == (port["name"], 8080)
    assert container(objects)["livenessProbe"]["httpGet"] == {"path": "/livez", "port": port["name"]}
    assert container(objects)["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}


def test_a_controller_that_gives_no_answer_for_as_long_as_a_loop_may_stand_still_is_started_again() -> None:
    """/livez is answered by the very loop that it judges: of one that stands still only the probe's timeout tells."""
    probe = container(chart())["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == STUCK_LOOP_SECONDS
    assert 1 < probe["timeoutSeconds"] < probe["periodSeconds"]


def test_the_command_is_one_that_the_image_has() -> None:
    assert container(chart())["command"] == ["session-pools-controller"]
    assert "\nsession-pools-controller = " in (ROOT / "pyproject.toml").read_text()


def test_the_controller_is_told_what_it_needs_by_its_environment() -> None:
    assert env(chart()) == {
        "POD_NAME": None,
        "POD_NAMESPACE": None,
        "SESSIONPOOLS_LEASE": "session-pools-controller",
        "SESSIONPOOLS_SESSION_IMAGE": "session-pools-session:dev",
        "SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY": "IfNotPresent",
        "SESSIONPOOLS_WATCH_NAMESPACES": "",
        "SESSIONPOOLS_IGNORE_NAMESPACES": "",
        "SESSIONPOOLS_NODES": "",
        "SESSIONPOOLS_MAX_SESSIONS_PER_NODE": "0",
        "SESSIONPOOLS_LOG_LEVEL": "info",
        "SESSIONPOOLS_HTTP_PORT": "8080",
        "SESSIONPOOLS_GATEWAY_LABELS": "app.kubernetes.io/name=session-pools,app.kubernetes.io/instance=session-pools,"
        "app.kubernetes.io/component=gateway,sessionpools.dev/gateway=active",
        "SESSIONPOOLS_GATEWAY_PORT": "12801",
    }
    assert "SESSIONPOOLS_GATEWAY_LABELS" not in env(chart({"gateway": {"enabled": False}}))
    assert env(chart(NAMESPACED))["SESSIONPOOLS_WATCH_NAMESPACES"] == "blue,green"
    assert env(chart({"limits": {"maxSessionsPerNode": 40}}))["SESSIONPOOLS_MAX_SESSIONS_PER_NODE"] == "40"
    assert env(chart({"logLevel": "debug"}))["SESSIONPOOLS_LOG_LEVEL"] == "debug"
    assert env(chart({"sessionImage": {"pullPolicy": "Always"}}))["SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY"] == "Always"
    assert env(chart(EVERYTHING_ON))["HTTPS_PROXY"] == "http://proxy:3128"


@pytest.mark.parametrize(
    ("values", "controller", "session"),
    [
        ({}, "session-pools:dev", "session-pools-session:dev"),
        (
            {"image": {"registry": "r.example.com/mirror"}},
            "r.example.com/mirror/session-pools:dev",
            "r.example.com/mirror/session-pools-session:dev",
        ),
        (
            {"image": {"registry": "r.example.com:5000/"}, "sessionImage": {"registry": "other.example.com"}},
            "r.example.com:5000/session-pools:dev",
            "other.example.com/session-pools-session:dev",
        ),
        (
            {"image": {"repository": "team/controller", "tag": "v2"}, "sessionImage": {"tag": "py3.12"}},
            "team/controller:v2",
            "session-pools-session:py3.12",
        ),
        (
            {"image": {"digest": "sha256:" + "0" * 64}, "sessionImage": {"tag": "", "digest": "sha256:" + "1" * 64}},
            "session-pools:dev@sha256:" + "0" * 64,
            "session-pools-session@sha256:" + "1" * 64,
        ),
    ],
    ids=["default", "one registry for all", "a registry of its own", "repository and tag", "digest"],
)
def test_images_are_named_by_registry_repository_tag_and_digest(values: Object, controller: str, session: str) -> None:
    objects = chart(values)
    assert container(objects)["image"] == controller
    assert env(objects)["SESSIONPOOLS_SESSION_IMAGE"] == session


def test_what_is_set_for_the_pod_stands_in_the_pod() -> None:
    spec = pod(chart(EVERYTHING_ON))["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert [(each.get("key"), each.get("tolerationSeconds")) for each in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 30),  # a lost node's controller is replaced soon
        ("node.kubernetes.io/unreachable", 30),
        (None, None),
    ]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert pod(chart(EVERYTHING_ON))["metadata"]["annotations"]["example.com/scrape"] == "true"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert pod(chart({"controller": {"nodeSelector": {"pool": "system"}}}))["spec"]["nodeSelector"] == {
        "kubernetes.io/os": "linux",
        "pool": "system",
    }


def test_a_service_account_that_exists_is_used_and_not_made() -> None:
    objects = chart({"serviceAccount": {"create": False, "name": "ours"}})
    accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    assert accounts == {"session-pools-gateway", "session-pools-web"}
    assert pod(objects)["spec"]["serviceAccountName"] == "ours"
    assert the(objects, "ClusterRoleBinding", "session-pools-controller")["subjects"][0]["name"] == "ours"


def test_a_service_account_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(HelmError, match=r"serviceAccount\.name must be set when serviceAccount\.create is false"):
        chart({"serviceAccount": {"create": False}})


def test_metrics_are_scraped_by_a_service_monitor_when_asked_for() -> None:
    assert not of_kind(chart(), "ServiceMonitor")
    objects = chart({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
    monitor = the(objects, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    service = the(objects, "Service", "session-pools-controller")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s"}]


def test_a_service_monitor_without_its_service_is_refused() -> None:
    with pytest.raises(HelmError, match=r"metrics\.serviceMonitor\.enabled needs metrics\.service\.enabled"):
        chart({"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}})


def test_a_release_of_another_name_collides_with_nothing_of_this_one() -> None:
    off = {"crds": {"enabled": False}, "rbac": {"aggregateClusterRoles": False}}
    ours = {(o["kind"], o["metadata"]["name"]) for o in chart(off)}
    theirs = {(o["kind"], o["metadata"]["name"]) for o in chart(off, release="team-b")}
    assert ("Deployment", "team-b-session-pools-controller") in theirs
    assert not ours & theirs
