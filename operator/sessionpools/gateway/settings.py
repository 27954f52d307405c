"""The gateway's settings, read once from the environment that the chart sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessionpools.gateway import config

__all__ = ["ENVIRONMENT", "GatewaySettings", "SettingsError", "check_agent", "from_environment"]

# name, default, meaning: what `--help` shows
ENVIRONMENT: Final = (
    ("SESSIONPOOLS_GATEWAY_DIR", "/run/session-pools", "directory that agent and HAProxy share"),
    ("SESSIONPOOLS_GATEWAY_PORT", "12800", "where callers connect"),
    ("SESSIONPOOLS_HTTP_PORT", "12801", "/livez, /readyz, /metrics and /demand of the agent"),
    ("SESSIONPOOLS_API_NAMESPACE", "default", "namespace that the path /api/NAME/VERSION means"),
    ("SESSIONPOOLS_WATCH_NAMESPACES", "", "comma-separated; empty: all namespaces"),
    ("SESSIONPOOLS_IGNORE_NAMESPACES", "", "comma-separated: all namespaces but these"),
    ("SESSIONPOOLS_MAX_CONNECTIONS", "4000", "of callers; needs an open files limit of about twice as many"),
    ("SESSIONPOOLS_TLS_CERTIFICATE", "", "PEM file with certificate and key; empty: no TLS"),
    ("SESSIONPOOLS_AUTH_ENABLED", "true", "calls need a token of the web API's; false: everybody may call"),
    ("SESSIONPOOLS_TOKEN_ISSUER", "session-pools", "what the claim iss of a token has to be"),
    ("SESSIONPOOLS_TOKEN_AUDIENCE", "session-pools", "what the claim aud of a token has to be"),
    ("SESSIONPOOLS_KEYS_CONFIG_MAP", "session-pools-keys-public", "ConfigMap in POD_NAMESPACE with the public keys"),
    ("SESSIONPOOLS_WEB_API", "", "HOST:PORT of the web API; empty: there is none, and its paths are unknown"),
    ("SESSIONPOOLS_WEB_MAX_BODY_MIB", "512", "of a request to the web API"),
    ("SESSIONPOOLS_ACCESS_LOG", "true", "a JSON line per call on HAProxy's standard output"),
    ("SESSIONPOOLS_LOG_LEVEL", "info", "debug, info, warning or error: of the agent"),
    ("POD_NAME", "", "name of this pod: the identity in the election of the active gateway"),
    ("POD_NAMESPACE", "", "namespace of this pod, of the election's Lease and of the public keys"),
    ("SESSIONPOOLS_LEASE", "session-pools-gateway", "the election's Lease"),
    (
        "SESSIONPOOLS_GATEWAY_LABELS",
        "app.kubernetes.io/name=session-pools,app.kubernetes.io/component=gateway",
        "of the gateway pods among which it elects",
    ),
)
_DEFAULTS: Final = {name: default for name, default, _ in ENVIRONMENT}


class SettingsError(ValueError):
    """A variable is wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    haproxy: config.Settings
    http_port: int = 12801
    namespaces: tuple[str, ...] = ()  # empty: all
    ignored_namespaces: tuple[str, ...] = ()  # of all
    log_level: str = "INFO"
    pod_name: str = ""
    pod_namespace: str = ""
    lease: str = _DEFAULTS["SESSIONPOOLS_LEASE"]
    labels: str = _DEFAULTS["SESSIONPOOLS_GATEWAY_LABELS"]
    keys: tuple[str, str] | None = None  # namespace and name of the ConfigMap with the public keys; None: no tokens


def check_agent(settings: GatewaySettings) -> None:
    """What the agent needs besides: HAProxy's container is given the directory only."""
    if settings.keys and not settings.pod_namespace:
        raise SettingsError(
            "POD_NAMESPACE is empty, and the public keys that verify tokens are in a ConfigMap there: set it, or "
            "SESSIONPOOLS_AUTH_ENABLED=false"
        )


def from_environment(env: Mapping[str, str]) -> GatewaySettings:
    def get(name: str) -> str:
        return env.get(name) or _DEFAULTS[name]

    def number(name: str, least: int, most: int) -> int:
        text = get(name)
        if not text.isdecimal() or not least <= int(text) <= most:
            raise SettingsError(f"{name} is {text!r}: use a number from {least} to {most}")
        return int(text)

    def one_of(name: str, *values: str) -> str:
        text = get(name).lower()
        if text not in values:
            raise SettingsError(f"{name} is {text!r}: use {', '.join(values[:-1])} or {values[-1]}")
        return text

    def names(name: str) -> tuple[str, ...]:
        return tuple(filter(None, (each.strip() for each in get(name).split(","))))

    def tokens() -> config.Tokens | None:
        if one_of("SESSIONPOOLS_AUTH_ENABLED", "true", "false") == "false":
            return None
        try:
            return config.Tokens(get("SESSIONPOOLS_TOKEN_ISSUER"), get("SESSIONPOOLS_TOKEN_AUDIENCE"))
        except ValueError as error:
            raise SettingsError(f"SESSIONPOOLS_TOKEN_ISSUER, SESSIONPOOLS_TOKEN_AUDIENCE: {error}") from None

    def web() -> config.WebApi | None:
        text, most = get("SESSIONPOOLS_WEB_API"), number("SESSIONPOOLS_WEB_MAX_BODY_MIB", 1, 1 << 20)
        try:
            return config.WebApi.parse(text, most) if text else None
        except ValueError as error:
            raise SettingsError(f"SESSIONPOOLS_WEB_API is {text!r}: {error}") from None

    keys_config_map = get("SESSIONPOOLS_KEYS_CONFIG_MAP")
    if not re.fullmatch(r"[a-z0-9.-]{1,253}", keys_config_map):
        raise SettingsError(f"SESSIONPOOLS_KEYS_CONFIG_MAP is {keys_config_map!r}: use the name of a ConfigMap")
    certificate = get("SESSIONPOOLS_TLS_CERTIFICATE")
    if any(character.isspace() for character in certificate):
        raise SettingsError(f"SESSIONPOOLS_TLS_CERTIFICATE is {certificate!r}: use a path without blanks")
    api_namespace = get("SESSIONPOOLS_API_NAMESPACE")
    if not re.fullmatch(r"[a-z0-9-]{1,63}", api_namespace):
        raise SettingsError(f"SESSIONPOOLS_API_NAMESPACE is {api_namespace!r}: use the name of a namespace")
    try:
        haproxy = config.Settings(
            directory=Path(get("SESSIONPOOLS_GATEWAY_DIR")),
            port=number("SESSIONPOOLS_GATEWAY_PORT", 1, 65535),
            api_namespace=api_namespace,
            tls_certificate=certificate,
            access_log=one_of("SESSIONPOOLS_ACCESS_LOG", "true", "false") == "true",
            max_connections=number("SESSIONPOOLS_MAX_CONNECTIONS", 1, 1_000_000),
            tokens=tokens(),
            web=web(),
        )
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"SESSIONPOOLS_GATEWAY_DIR: {error}") from None
    return GatewaySettings(
        haproxy=haproxy,
        http_port=number("SESSIONPOOLS_HTTP_PORT", 1, 65535),
        namespaces=names("SESSIONPOOLS_WATCH_NAMESPACES"),
        ignored_namespaces=names("SESSIONPOOLS_IGNORE_NAMESPACES"),
        log_level=one_of("SESSIONPOOLS_LOG_LEVEL", "debug", "info", "warning", "error").upper(),
        pod_name=get("POD_NAME"),
        pod_namespace=get("POD_NAMESPACE"),
        lease=get("SESSIONPOOLS_LEASE"),
        labels=get("SESSIONPOOLS_GATEWAY_LABELS"),
        keys=(get("POD_NAMESPACE"), keys_config_map) if haproxy.tokens else None,
    )
