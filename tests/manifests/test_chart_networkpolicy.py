"""The NetworkPolicies: who may reach gateways, web API and session pods, and what the latter two may reach.

That a network enforces them can be shown on a cluster only whose network does.
"""

from __future__ import annotations

import pytest

from sessionpools.api import names
from sessionpools.core.pods import pod_template, session_pod
from support import builders
from support.manifests import HelmError, Object, chart, of_kind, the
from support.tools import ROOT

RELEASE = {"matchLabels": {"kubernetes.io/metadata.name": "session-pools"}}
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
DNS_RULE = {"to": [DNS], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
DEMO = {"networkPolicy": {"namespaces": ["demo"]}}
NO_WEB = {"web": {"enabled": False}, "auth": {"enabled": False}}
SESSIONS = {
    "matchLabels": {"app.kubernetes.io/name": "session-pools", "app.kubernetes.io/component": "session"},
}


def labels(component: str) -> Object:
    return {
        "matchLabels": {
            "app.kubernetes.io/name": "session-pools",
            "app.kubernetes.io/instance": "session-pools",
            "app.kubernetes.io/component": component,
        }
    }


CODE_RULE = {
    "to": [{"namespaceSelector": RELEASE, "podSelector": labels("web")}],
    "ports": [{"port": 12803, "protocol": "TCP"}],
}


def sessions(values: Object) -> Object:
    spec: Object = the(chart(values), "NetworkPolicy", "session-pools-sessions")["spec"]
    return spec


def test_gateways_take_calls_from_anywhere_and_are_asked_by_controller_web_api_and_monitoring_only() -> None:
    spec = the(chart(), "NetworkPolicy", "session-pools-gateway")["spec"]
    assert spec["podSelector"] == labels("gateway")
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [
        {"ports": [{"port": 12800, "protocol": "TCP"}]},
        {
            "ports": [{"port": 12801, "protocol": "TCP"}],
            "from": [{"podSelector": labels("controller")}, {"podSelector": labels("web")}, MONITORING],
        },
    ]


def test_sessions_take_calls_from_gateways_and_tell_their_status_to_controller_and_gateways() -> None:
    controller = {"namespaceSelector": RELEASE, "podSelector": labels("controller")}
    gateways = {"namespaceSelector": RELEASE, "podSelector": labels("gateway")}
    spec = sessions(DEMO)
    assert spec["ingress"] == [
        {"ports": [{"port": 9000, "endPort": 9999, "protocol": "TCP"}], "from": [gateways]},
        {"ports": [{"port": 8999, "protocol": "TCP"}], "from": [controller, gateways]},
    ]
    assert (names.SLOT_PORT, names.CONTROL_PORT) == (9000, 8999)


def test_sessions_reach_dns_and_published_code_and_nothing_else() -> None:
    spec = sessions(DEMO)
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == [DNS_RULE, CODE_RULE]
    assert sessions(DEMO | NO_WEB)["egress"] == [DNS_RULE]


def test_sessions_of_the_web_apis_namespace_tell_it_their_status_as_well() -> None:
    web = {"namespaceSelector": RELEASE, "podSelector": labels("web")}
    values = {"networkPolicy": {"namespaces": ["scoring", "demo"]}, "api": {"namespace": "scoring"}}
    policies = [p for p in of_kind(chart(values), "NetworkPolicy") if p["metadata"]["name"] == "session-pools-sessions"]
    told = {p["metadata"]["namespace"]: web in p["spec"]["ingress"][1]["from"] for p in policies}
    assert told == {"scoring": True, "demo": False}


def test_the_web_api_is_asked_by_gateways_and_gives_code_to_sessions_wherever_they_are() -> None:
    spec = the(chart(), "NetworkPolicy", "session-pools-web")["spec"]
    assert spec["podSelector"] == labels("web")
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {"ports": [{"port": 12802, "protocol": "TCP"}], "from": [{"podSelector": labels("gateway")}]},
        {
            "ports": [{"port": 12803, "protocol": "TCP"}],
            "from": [{"namespaceSelector": {}, "podSelector": SESSIONS}],
        },
        {"ports": [{"port": 12804, "protocol": "TCP"}], "from": [MONITORING]},
    ]
    unmonitored = the(chart({"networkPolicy": {"monitoring": []}}), "NetworkPolicy", "session-pools-web")["spec"]
    assert [rule["ports"][0]["port"] for rule in unmonitored["ingress"]] == [12802, 12803]


def test_the_web_api_reaches_dns_gateways_sessions_and_what_speaks_https() -> None:
    extra = {"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}], "ports": [{"port": 9000}]}
    values = {"networkPolicy": {"webEgress": [extra]}, "api": {"namespace": "scoring"}}
    scoring = {"matchLabels": {"kubernetes.io/metadata.name": "scoring"}}
    assert the(chart(values), "NetworkPolicy", "session-pools-web")["spec"]["egress"] == [
        DNS_RULE,
        {
            "to": [{"podSelector": labels("gateway")}],
            "ports": [{"port": 12800, "protocol": "TCP"}, {"port": 12801, "protocol": "TCP"}],
        },
        {
            "to": [{"namespaceSelector": scoring, "podSelector": SESSIONS}],
            "ports": [{"port": 8999, "protocol": "TCP"}],
        },
        {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]},
        extra,
    ]


def test_sessions_reach_and_are_reached_by_what_the_values_name_as_well() -> None:
    ingress = {"from": [{"podSelector": {"matchLabels": {"app": "mine"}}}], "ports": [{"port": 9000}]}
    egress = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 5432}]}
    spec = sessions({"networkPolicy": {"namespaces": ["demo"], "sessionIngress": [ingress], "sessionEgress": [egress]}})
    assert spec["ingress"][2:] == [ingress]
    assert spec["egress"] == [DNS_RULE, CODE_RULE, egress]


def test_where_names_are_resolved_is_a_value() -> None:
    elsewhere = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    dns = {"peers": [elsewhere], "ports": [53, 5353]}
    (rule,) = sessions({"networkPolicy": {"namespaces": ["demo"], "dns": dns}} | NO_WEB)["egress"]
    assert rule["to"] == [elsewhere]
    assert [port["port"] for port in rule["ports"]] == [53, 53, 5353, 5353]


def test_sessions_without_dns_reach_nothing() -> None:
    assert not sessions({"networkPolicy": {"namespaces": ["demo"], "dns": {"peers": []}}} | NO_WEB)["egress"]


@pytest.mark.parametrize(
    ("values", "covered"),
    [
        ({}, []),
        (DEMO, ["demo"]),
        ({"watch": {"namespaces": ["blue", "green"]}}, ["blue", "green"]),
        ({"watch": {"namespaces": ["blue", "green"]}, "networkPolicy": {"namespaces": ["green"]}}, ["green"]),
    ],
    ids=["all namespaces are watched", "these are named", "these are watched", "of these one is named"],
)
def test_one_policy_covers_the_sessions_of_each_namespace(values: Object, covered: list[str]) -> None:
    policies = [p for p in of_kind(chart(values), "NetworkPolicy") if p["metadata"]["name"] == "session-pools-sessions"]
    assert [policy["metadata"]["namespace"] for policy in policies] == covered


def test_a_namespace_that_is_not_watched_is_refused() -> None:
    with pytest.raises(HelmError, match=r"networkPolicy\.namespaces has demo, which is not one of watch\.namespaces"):
        chart({"watch": {"namespaces": ["blue"]}, "networkPolicy": {"namespaces": ["demo"]}})


def test_it_covers_the_pods_that_the_controller_makes() -> None:
    selector = sessions(DEMO)["podSelector"]["matchLabels"]
    pool, service = builders.pool(), builders.service()
    revision = builders.target_of(pool, service).revision
    pod = session_pod(pod_template(pool, service, revision, "IfNotPresent"), builders.node(), 0, 0)
    assert selector.items() <= pod["metadata"]["labels"].items()


def test_without_a_gateway_only_the_status_is_read() -> None:
    spec = sessions(DEMO | {"gateway": {"enabled": False}})
    assert [rule["ports"][0]["port"] for rule in spec["ingress"]] == [8999]


def test_they_can_be_left_out() -> None:
    assert not of_kind(chart(DEMO | {"networkPolicy": {"enabled": False}}), "NetworkPolicy")


def test_the_security_page_says_where_they_do_nothing() -> None:
    page = (ROOT / "docs/operations/security.md").read_text()
    assert "Many networks ignore NetworkPolicies" in page
    assert "NetworkPolicy is accepted and not enforced" in (ROOT / "tests/cluster/README.md").read_text()
