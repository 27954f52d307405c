"""The controller's settings, from the environment."""

import pytest

from sessionpools.controller.config import ConfigError, from_environment

NEEDED = {"SESSIONPOOLS_SESSION_IMAGE": "session:1"}
LABELS = "app.kubernetes.io/component=gateway,sessionpools.dev/gateway=active"


def test_without_labels_of_a_gateway_there_is_none() -> None:
    assert from_environment(NEEDED).gateway_selector == ""


def test_the_gateway_is_found_by_its_labels_in_the_own_namespace() -> None:
    gateway = {"SESSIONPOOLS_GATEWAY_LABELS": LABELS, "SESSIONPOOLS_GATEWAY_PORT": "7", "POD_NAMESPACE": "home"}
    config = from_environment(NEEDED | gateway)
    assert (config.gateway_selector, config.gateway_port, config.pod_namespace) == (LABELS, 7, "home")


def test_the_lease_is_held_in_the_own_namespace_by_the_pods_name() -> None:
    config = from_environment(NEEDED | {"SESSIONPOOLS_LEASE": "l", "POD_NAME": "me", "POD_NAMESPACE": "home"})
    assert (config.lease, config.pod_name, config.pod_namespace) == ("l", "me", "home")
    assert from_environment(NEEDED).lease == ""


def test_namespaces_and_nodes_are_lists_of_names() -> None:
    lists = {"SESSIONPOOLS_WATCH_NAMESPACES": " a, b,,a", "SESSIONPOOLS_NODES": "worker-1,worker-2"}
    config = from_environment(NEEDED | lists)
    assert (config.namespaces, config.nodes) == (("a", "b"), ("worker-1", "worker-2"))
    assert from_environment(NEEDED | {"SESSIONPOOLS_IGNORE_NAMESPACES": "c"}).ignored_namespaces == ("c",)


def test_the_limit_of_sessions_on_a_node_is_none_unless_it_is_set() -> None:
    assert from_environment(NEEDED).max_sessions_per_node == 0
    assert from_environment(NEEDED | {"SESSIONPOOLS_MAX_SESSIONS_PER_NODE": "40"}).max_sessions_per_node == 40


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"SESSIONPOOLS_SESSION_IMAGE": ""}, "SESSIONPOOLS_SESSION_IMAGE"),
        ({"SESSIONPOOLS_GATEWAY_LABELS": LABELS}, "POD_NAMESPACE"),
        ({"SESSIONPOOLS_LEASE": "l", "POD_NAME": "me"}, "POD_NAMESPACE"),
        ({"SESSIONPOOLS_LEASE": "l", "POD_NAMESPACE": "home"}, "POD_NAME"),
        ({"SESSIONPOOLS_GATEWAY_PORT": "http"}, "SESSIONPOOLS_GATEWAY_PORT"),
        (
            {"SESSIONPOOLS_WATCH_NAMESPACES": "a", "SESSIONPOOLS_IGNORE_NAMESPACES": "b"},
            "SESSIONPOOLS_IGNORE_NAMESPACES",
        ),
        ({"SESSIONPOOLS_MAX_SESSIONS_PER_NODE": "-1"}, "SESSIONPOOLS_MAX_SESSIONS_PER_NODE"),
        ({"SESSIONPOOLS_MAX_SESSIONS_PER_NODE": "many"}, "SESSIONPOOLS_MAX_SESSIONS_PER_NODE"),
        ({"SESSIONPOOLS_HTTP_PORT": "65536"}, "SESSIONPOOLS_HTTP_PORT"),
        ({"SESSIONPOOLS_LOG_LEVEL": "loud"}, "SESSIONPOOLS_LOG_LEVEL"),
        ({"SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY": "Sometimes"}, "SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_environment(NEEDED | wrong)
