"""The rights that the chart grants: no more than controller, gateway and web API use, in both of their modes."""

import re

import pytest

from support.manifests import HelmError, Object, chart, of_kind, the
from support.tools import ROOT

NAMESPACED = {"watch": {"namespaces": ["blue", "green"]}}

Rights = set[tuple[str, str, str]]  # (API group, resource, verb)


def rights(role: Object) -> Rights:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def grant(group: str, resources: str, verbs: str) -> Rights:
    return {(group, resource, verb) for resource in resources.split() for verb in verbs.split()}


NODES = grant("", "nodes", "get list watch")
IN_A_NAMESPACE = (
    grant("sessionpools.dev", "sessionpools webservices", "get list watch")
    | grant("sessionpools.dev", "sessionpools/status webservices/status", "patch")
    | grant("sessionpools.dev", "sessionpools/finalizers webservices/finalizers", "update")
    | grant("", "pods", "get list watch create delete patch")
    | grant("", "configmaps", "get list create delete")
    | grant("", "events", "get create patch")
)
LEASE = grant("coordination.k8s.io", "leases", "create get patch")
FIND_GATEWAYS = grant("", "pods", "get list watch")
ROUTE = grant("sessionpools.dev", "sessionpools webservices", "get list watch") | grant("", "pods", "get list watch")
READ_KEYS = grant("", "configmaps", "get list watch")
ELECT = grant("", "pods", "get list watch patch") | LEASE | READ_KEYS
FIND_BUNDLES = grant("sessionpools.dev", "webservices", "list")
PUBLISH = (
    grant("sessionpools.dev", "sessionpools webservices", "get list watch create update delete")
    | grant("", "pods", "get list watch")
    | grant("", "pods/log", "get")
)
KEEP_KEYS = grant("", "pods", "get list watch") | grant("", "secrets configmaps", "get patch")


def roles_of(objects: list[Object], account: str) -> dict[str, Rights]:
    """Rights by namespace ("": everywhere), as the bindings of the account give them."""
    found: dict[str, Rights] = {}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        if [subject["name"] for subject in binding["subjects"]] == [account]:
            role = the(of_namespace(objects, binding), binding["roleRef"]["kind"], binding["roleRef"]["name"])
            namespace = binding["metadata"].get("namespace", "")
            found[namespace] = found.get(namespace, set()) | rights(role)
    return found


def of_namespace(objects: list[Object], binding: Object) -> list[Object]:
    namespaces = (binding["metadata"].get("namespace"), None)
    return [o for o in objects if o["metadata"].get("namespace") in namespaces]


def test_cluster_wide_the_controller_has_exactly_the_rights_that_it_uses() -> None:
    assert roles_of(chart(), "session-pools-controller") == {
        "": NODES | IN_A_NAMESPACE,
        "session-pools": FIND_GATEWAYS | LEASE,
    }


def test_with_namespaces_it_has_them_there_and_cluster_wide_only_nodes() -> None:
    assert roles_of(chart(NAMESPACED), "session-pools-controller") == {
        "": NODES,
        "blue": IN_A_NAMESPACE,
        "green": IN_A_NAMESPACE,
        "session-pools": FIND_GATEWAYS | LEASE,
    }


def test_the_gateway_reads_what_it_routes_by_and_writes_only_where_it_runs() -> None:
    assert roles_of(chart(), "session-pools-gateway") == {"": ROUTE, "session-pools": ELECT}
    assert roles_of(chart(NAMESPACED), "session-pools-gateway") == {
        "blue": ROUTE,
        "green": ROUTE,
        "session-pools": ELECT,
    }


def test_the_web_api_publishes_in_its_one_namespace_and_elsewhere_reads_which_code_is_used() -> None:
    assert roles_of(chart(), "session-pools-web") == {
        "": NODES | FIND_BUNDLES,
        "session-pools": PUBLISH | KEEP_KEYS,
    }
    assert roles_of(chart({"api": {"namespace": "scoring"}}), "session-pools-web") == {
        "": NODES | FIND_BUNDLES,
        "scoring": PUBLISH,
        "session-pools": KEEP_KEYS,
    }
    assert roles_of(chart(NAMESPACED | {"api": {"namespace": "green"}}), "session-pools-web") == {
        "": NODES,
        "blue": FIND_BUNDLES,
        "green": PUBLISH,
        "session-pools": KEEP_KEYS,
    }


def test_of_secrets_and_of_its_config_maps_the_web_api_may_change_those_of_the_keys_and_create_none() -> None:
    objects = chart()
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            if "secrets" in rule["resources"]:
                assert role["metadata"]["name"] == "session-pools-web-release"
                assert rule["resourceNames"] == ["session-pools-keys"]
    (rule,) = [r for r in the(objects, "Role", "session-pools-web-release")["rules"] if "configmaps" in r["resources"]]
    assert rule["resourceNames"] == ["session-pools-keys-public"]
    (rule,) = [
        r for r in the(objects, "Role", "session-pools-gateway-election")["rules"] if "configmaps" in r["resources"]
    ]
    assert rule["resourceNames"] == ["session-pools-keys-public"]
    there = {(o["kind"], o["metadata"]["name"]) for o in of_kind(objects, "Secret", "ConfigMap")}
    assert {("Secret", "session-pools-keys"), ("ConfigMap", "session-pools-keys-public")} <= there


def test_without_tokens_nobody_reads_keys() -> None:
    off = {"auth": {"enabled": False}}
    assert roles_of(chart(off), "session-pools-gateway")["session-pools"] == ELECT - READ_KEYS
    assert roles_of(chart(off | {"api": {"namespace": "scoring"}}), "session-pools-web")["session-pools"] == (
        grant("", "pods", "get list watch")
    )


@pytest.mark.parametrize("component", ["controller", "gateway"])
def test_of_leases_each_reads_and_writes_its_own(component: str) -> None:
    objects = chart({"crds": {"enabled": False}}, release="team-b", namespace="session-pools")
    name = f"team-b-session-pools-{component}"
    rules = the(objects, "Role", f"{name}-election")["rules"]
    leases = [rule for rule in rules if "leases" in rule["resources"]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in leases] == [
        (["create"], None),
        (["get", "patch"], [name]),
    ]


def test_with_named_nodes_the_controller_has_no_right_outside_of_its_namespaces() -> None:
    values = {"watch": {"namespaces": ["blue"], "nodes": ["worker-1"]}}
    assert set(roles_of(chart(values), "session-pools-controller")) == {"blue", "session-pools"}
    everywhere = roles_of(chart({"watch": {"nodes": ["worker-1"]}}), "session-pools-controller")[""]
    assert everywhere == IN_A_NAMESPACE


ROLES_ONLY = {"rbac": {"clusterScoped": False}, "crds": {"enabled": False}}


@pytest.mark.parametrize("namespaces", [["session-pools"], ["blue", "green"]])
@pytest.mark.parametrize("nodes", [[], ["worker-1"]])
def test_without_cluster_scope_every_object_is_in_a_namespace_and_the_rights_there_are_the_same(
    namespaces: list[str], nodes: list[str]
) -> None:
    objects = chart(ROLES_ONLY | {"watch": {"namespaces": namespaces, "nodes": nodes}})
    assert {o["metadata"].get("namespace") for o in objects} == {"session-pools", *namespaces}
    controller, gateway = (roles_of(objects, f"session-pools-{part}") for part in ("controller", "gateway"))
    home = {"session-pools": FIND_GATEWAYS | LEASE | (IN_A_NAMESPACE if "session-pools" in namespaces else set())}
    assert controller == dict.fromkeys(namespaces, IN_A_NAMESPACE) | home
    at_home = KEEP_KEYS | (PUBLISH if "session-pools" in namespaces else set())
    others = {name: PUBLISH if name == namespaces[0] else FIND_BUNDLES for name in namespaces}
    assert roles_of(objects, "session-pools-web") == others | {"session-pools": at_home}
    routed = ROUTE if "session-pools" in namespaces else set()
    assert gateway == dict.fromkeys(namespaces, ROUTE) | {"session-pools": ELECT | routed}


def test_without_cluster_scope_the_definitions_are_the_only_thing_that_may_be_cluster_wide() -> None:
    objects = chart({"rbac": {"clusterScoped": False}, "watch": {"namespaces": ["blue"]}})
    assert {o["kind"] for o in objects if "namespace" not in o["metadata"]} == {"CustomResourceDefinition"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rbac": {"clusterScoped": False}}, "name the namespaces to serve in watch.namespaces"),
        ({"watch": {"namespaces": ["a"], "ignoreNamespaces": ["b"]}}, "watch.ignoreNamespaces is for all namespaces"),
    ],
)
def test_namespaces_of_which_no_controller_could_be_made_are_refused(values: Object, message: str) -> None:
    with pytest.raises(HelmError, match=message):
        chart(values)


def test_without_a_gateway_nobody_has_its_rights() -> None:
    objects = chart({"gateway": {"enabled": False}})
    assert not of_kind(objects, "ValidatingAdmissionPolicy")
    assert roles_of(objects, "session-pools-gateway") == roles_of(objects, "session-pools-web") == {}
    assert roles_of(objects, "session-pools-controller") == {"": NODES | IN_A_NAMESPACE, "session-pools": LEASE}


def test_what_a_gateway_may_patch_is_kept_to_the_label_of_its_own_pods() -> None:
    objects = chart(namespace="operators")
    policy = the(objects, "ValidatingAdmissionPolicy")["spec"]
    assert policy["matchConstraints"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "operators"
    }
    assert policy["matchConstraints"]["resourceRules"] == [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}
    ]
    (condition,) = policy["matchConditions"]
    assert '"system:serviceaccount:operators:session-pools-gateway"' in condition["expression"]
    expressions = [validation["expression"] for validation in policy["validations"]]
    assert "object.spec == oldObject.spec" in expressions
    binding = the(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    assert binding == {"policyName": "session-pools-gateway", "validationActions": ["Deny"]}
    off = chart({"rbac": {"restrictGateway": False}})
    assert not of_kind(off, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


@pytest.mark.parametrize(
    ("heading", "granted"),
    [
        ("## What the controller may do", NODES | IN_A_NAMESPACE | LEASE),
        ("## What the gateway may do", ROUTE | ELECT),
        ("## What the web API may do", NODES | FIND_BUNDLES | PUBLISH | KEEP_KEYS),
    ],
)
def test_the_security_page_lists_them_all(heading: str, granted: Rights) -> None:
    text = (ROOT / "docs/operations/security.md").read_text()
    page = text.split(f"{heading}\n")[1].split("\n## ")[0]
    listed = {
        (resource, verb.strip())
        for row in re.findall(r"^\| (`.*`) \| ([a-z, ]+) \|", page, re.MULTILINE)
        for resource in re.findall(r"`([^`]+)`", row[0])
        for verb in row[1].split(",")
    }
    assert listed == {(resource, verb) for _, resource, verb in granted}


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaced"])
def test_every_binding_binds_a_role_that_is_there_to_an_account_that_is_there(values: Object) -> None:
    objects = chart(values, namespace="operators")
    roles = {
        (r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"])
        for r in of_kind(objects, "Role", "ClusterRole")
    }
    bindings = of_kind(objects, "RoleBinding", "ClusterRoleBinding")
    assert bindings
    for binding in bindings:
        ref = binding["roleRef"]
        assert (ref["kind"], binding["metadata"].get("namespace"), ref["name"]) in roles
        (subject,) = binding["subjects"]
        assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "operators")
        assert the(objects, "ServiceAccount", subject["name"])["metadata"]["namespace"] == "operators"


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaced"])
def test_no_right_is_a_wildcard_and_none_is_on_secrets_but_the_keys_or_escalates(values: Object) -> None:
    for role in of_kind(chart(values), "Role", "ClusterRole"):
        for group, resource, verb in rights(role):
            assert "*" not in (group, resource, verb)
            assert not resource.startswith(("serviceaccounts", "roles", "clusterroles"))
            assert not resource.startswith("pods/") or (resource, verb) == ("pods/log", "get")
            assert resource != "pods/log" or role["metadata"]["name"] == "session-pools-web"
            assert resource != "secrets" or role["metadata"]["name"] == "session-pools-web-release"
            assert verb not in ("impersonate", "escalate", "bind")


def test_the_clusters_own_roles_view_and_edit_get_the_two_kinds() -> None:
    objects = chart()
    view, edit = (the(objects, "ClusterRole", f"session-pools-{role}") for role in ("view", "edit"))
    both = "sessionpools webservices"
    assert rights(view) == grant("sessionpools.dev", both, "get list watch")
    assert rights(edit) == grant("sessionpools.dev", both, "create update patch delete deletecollection")
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert {k for k in view["metadata"]["labels"] if k.startswith(aggregated)} == {
        f"{aggregated}{role}" for role in ("view", "edit", "admin")
    }
    assert {k for k in edit["metadata"]["labels"] if k.startswith(aggregated)} == {
        f"{aggregated}{role}" for role in ("edit", "admin")
    }


def test_roles_can_be_left_to_the_cluster_s_own_hands() -> None:
    objects = chart({"rbac": {"create": False, "aggregateClusterRoles": False}})
    assert not of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
