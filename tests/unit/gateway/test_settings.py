"""The environment that the chart sets, read or refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sessionpools.gateway.options import Tokens, WebApi
from sessionpools.gateway.settings import ENVIRONMENT, SettingsError, check_agent, from_environment
from support.runtime_pod import OPERATOR

OPEN = {"SESSIONPOOLS_AUTH_ENABLED": "false"}


def test_without_any_other_variable_the_defaults_hold() -> None:
    settings = from_environment(OPEN)
    assert (settings.haproxy.port, settings.http_port, settings.haproxy.api_namespace) == (12800, 12801, "default")
    assert str(settings.haproxy.directory) == "/run/session-pools"
    assert (settings.namespaces, settings.log_level, settings.haproxy.access_log) == ((), "INFO", True)
    assert (settings.haproxy.tokens, settings.keys, settings.haproxy.web) == (None, None, None)


def test_tokens_are_asked_for_unless_they_are_turned_off() -> None:
    settings = from_environment({"POD_NAMESPACE": "system"})
    assert settings.haproxy.tokens == Tokens("session-pools", "session-pools")
    assert settings.keys == ("system", "session-pools-keys-public")


def test_tokens_need_the_namespace_of_the_keys() -> None:
    with pytest.raises(SettingsError, match=r"POD_NAMESPACE is empty.*SESSIONPOOLS_AUTH_ENABLED=false"):
        check_agent(from_environment({}))
    check_agent(from_environment({"POD_NAMESPACE": "system"}))
    check_agent(from_environment(OPEN))


def test_haproxys_container_needs_the_directory_only() -> None:
    assert from_environment({"SESSIONPOOLS_GATEWAY_DIR": "/other"}).haproxy.directory == Path("/other")


def test_every_variable_is_read() -> None:
    settings = from_environment(
        {
            "SESSIONPOOLS_GATEWAY_DIR": "/tmp/gw",
            "SESSIONPOOLS_GATEWAY_PORT": "80",
            "SESSIONPOOLS_HTTP_PORT": "81",
            "SESSIONPOOLS_API_NAMESPACE": "team",
            "SESSIONPOOLS_WATCH_NAMESPACES": "a, b,",
            "SESSIONPOOLS_IGNORE_NAMESPACES": "c, d",
            "SESSIONPOOLS_MAX_CONNECTIONS": "7",
            "SESSIONPOOLS_TLS_CERTIFICATE": "/tls/both.pem",
            "SESSIONPOOLS_ACCESS_LOG": "false",
            "SESSIONPOOLS_LOG_LEVEL": "Debug",
            "POD_NAME": "gateway-0",
            "POD_NAMESPACE": "system",
            "SESSIONPOOLS_LEASE": "other-gateway",
            "SESSIONPOOLS_GATEWAY_LABELS": "app=other",
            "SESSIONPOOLS_AUTH_ENABLED": "TRUE",
            "SESSIONPOOLS_TOKEN_ISSUER": "https://issuer",
            "SESSIONPOOLS_TOKEN_AUDIENCE": "calls",
            "SESSIONPOOLS_KEYS_CONFIG_MAP": "other-keys",
            "SESSIONPOOLS_WEB_API": "web.system:1",
            "SESSIONPOOLS_WEB_MAX_BODY_MIB": "7",
        }
    )
    haproxy = settings.haproxy
    assert (str(haproxy.directory), haproxy.port, haproxy.api_namespace) == ("/tmp/gw", 80, "team")
    assert (haproxy.max_connections, haproxy.tls_certificate, haproxy.access_log) == (7, "/tls/both.pem", False)
    assert (settings.http_port, settings.namespaces, settings.log_level) == (81, ("a", "b"), "DEBUG")
    assert (settings.pod_name, settings.pod_namespace) == ("gateway-0", "system")
    assert (settings.lease, settings.labels) == ("other-gateway", "app=other")
    assert settings.ignored_namespaces == ("c", "d")
    assert (haproxy.tokens, settings.keys) == (Tokens("https://issuer", "calls"), ("system", "other-keys"))
    assert haproxy.web == WebApi("web.system", 1, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSIONPOOLS_GATEWAY_DIR", "/tmp/a b"),
        ("SESSIONPOOLS_GATEWAY_DIR", "/" + "x" * 100),
        ("SESSIONPOOLS_GATEWAY_PORT", "0"),
        ("SESSIONPOOLS_HTTP_PORT", "http"),
        ("SESSIONPOOLS_MAX_CONNECTIONS", "-1"),
        ("SESSIONPOOLS_TLS_CERTIFICATE", "/tls\nlog stdout"),
        ("SESSIONPOOLS_API_NAMESPACE", "a)b"),
        ("SESSIONPOOLS_ACCESS_LOG", "maybe"),
        ("SESSIONPOOLS_LOG_LEVEL", "loud"),
        ("SESSIONPOOLS_AUTH_ENABLED", "yes"),
        ("SESSIONPOOLS_TOKEN_ISSUER", "a b"),
        ("SESSIONPOOLS_TOKEN_AUDIENCE", "a)b"),
        ("SESSIONPOOLS_KEYS_CONFIG_MAP", "a,metadata.name=b"),
        ("SESSIONPOOLS_WEB_API", "web"),
        ("SESSIONPOOLS_WEB_API", "http://web:80"),
        ("SESSIONPOOLS_WEB_MAX_BODY_MIB", "0"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        from_environment({"POD_NAMESPACE": "system", name: value})


def test_the_help_names_every_command_and_variable() -> None:
    command = [sys.executable, "-m", "sessionpools.gateway", "--help"]
    said = subprocess.run(command, env={"PYTHONPATH": str(OPERATOR)}, capture_output=True, text=True, check=True).stdout
    for word in ("agent", "haproxy", *(name for name, _, _ in ENVIRONMENT)):
        assert re.search(rf"^ +{word}\b", said, re.MULTILINE), word
