"""The rights that the chart grants: no more than the controller uses, in both of its modes."""

import re

import pytest

from support.manifests import Object, chart, of_kind, the
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


def test_cluster_wide_the_controller_has_exactly_the_rights_that_it_uses() -> None:
    objects = chart()
    assert rights(the(objects, "ClusterRole", "session-pools-controller")) == NODES | IN_A_NAMESPACE
    assert not of_kind(objects, "Role", "RoleBinding")


def test_with_namespaces_it_has_them_there_and_cluster_wide_only_nodes() -> None:
    objects = chart(NAMESPACED)
    assert rights(the(objects, "ClusterRole", "session-pools-controller")) == NODES
    roles, bindings = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert {role["metadata"]["namespace"]: rights(role) for role in roles} == {
        "blue": IN_A_NAMESPACE,
        "green": IN_A_NAMESPACE,
    }
    assert [b["metadata"]["namespace"] for b in bindings] == ["blue", "green"]


def test_the_security_page_lists_them_all() -> None:
    page = (ROOT / "docs/operations/security.md").read_text().split("## What users may do")[0]
    listed = {
        (resource, verb.strip())
        for row in re.findall(r"^\| (`.*`) \| ([a-z, ]+) \|", page, re.MULTILINE)
        for resource in re.findall(r"`([^`]+)`", row[0])
        for verb in row[1].split(",")
    }
    assert listed == {(resource, verb) for _, resource, verb in NODES | IN_A_NAMESPACE}


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaced"])
def test_every_binding_binds_a_role_that_is_there_to_the_controller(values: Object) -> None:
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
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "session-pools-controller", "namespace": "operators"}
        ]


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaced"])
def test_no_right_is_a_wildcard_and_none_is_on_secrets_or_escalates(values: Object) -> None:
    for role in of_kind(chart(values), "Role", "ClusterRole"):
        for group, resource, verb in rights(role):
            assert "*" not in (group, resource, verb)
            assert not resource.startswith(("secrets", "serviceaccounts", "roles", "clusterroles", "pods/"))
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
