"""The web API's settings, read once from the environment that the chart sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ENVIRONMENT", "STORE_URL", "Settings", "SettingsError", "from_environment"]

STORE_URL: Final = "SESSIONPOOLS_STORE_URL"

# name, default, meaning: what `--help` shows
ENVIRONMENT: Final = (
    ("SESSIONPOOLS_REST_PORT", "12802", "the REST API"),
    ("SESSIONPOOLS_BUNDLES_PORT", "12803", "GET /bundles/SHA256.tar.gz, for session pods"),
    ("SESSIONPOOLS_HTTP_PORT", "12804", "/livez, /readyz and /metrics"),
    ("SESSIONPOOLS_API_NAMESPACE", "default", "namespace of the web services and pools that this API is about"),
    ("SESSIONPOOLS_WATCH_NAMESPACES", "", "comma-separated: whose web services keep bundles alive; empty: all"),
    ("SESSIONPOOLS_NODES", "", "comma-separated names of the compute nodes, where nodes may not be read"),
    (STORE_URL, "file:///var/lib/session-pools", "bundles, authoring, batches: file, s3, gs or az"),
    ("SESSIONPOOLS_BUNDLES_URL", "", "where session pods find them; default http://session-pools-web.NAMESPACE:12803"),
    ("SESSIONPOOLS_GATEWAY_URL", "http://session-pools-gateway:12800", "where batches are called"),
    (
        "SESSIONPOOLS_GATEWAY_CERTIFICATE",
        "",
        "PEM file: the one certificate that is believed there; empty: any valid one",
    ),
    (
        "SESSIONPOOLS_GATEWAY_LABELS",
        "app.kubernetes.io/name=session-pools,app.kubernetes.io/component=gateway",
        "of the gateway pods in POD_NAMESPACE, which are asked for usage",
    ),
    ("SESSIONPOOLS_GATEWAY_PORT", "12801", "where those say it"),
    ("SESSIONPOOLS_AUTH_ENABLED", "true", "false: everybody is Owner, for laptops"),
    ("SESSIONPOOLS_ADMIN_PASSWORD_FILE", "/etc/session-pools/admin/password", "password of the user admin"),
    ("SESSIONPOOLS_USERS_FILE", "/etc/session-pools/users/users.yaml", "other users, if there is such a file"),
    ("SESSIONPOOLS_KEYS_SECRET", "session-pools-keys", "Secret in POD_NAMESPACE with the keys that sign tokens"),
    ("SESSIONPOOLS_KEYS_CONFIG_MAP", "session-pools-keys-public", "ConfigMap there with their public halves"),
    ("SESSIONPOOLS_BEHIND_GATEWAY", "true", "whether callers' addresses are the gateway's X-Forwarded-For"),
    ("SESSIONPOOLS_LOG_LEVEL", "info", "debug, info, warning or error"),
    ("POD_NAME", "web", "name of this pod: which replica it is"),
    ("POD_NAMESPACE", "", "namespace of this pod, of the keys and of the gateway"),
)
_DEFAULTS: Final = {name: default for name, default, _ in ENVIRONMENT}


class SettingsError(ValueError):
    """A variable is wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    namespace: str  # of the release
    api_namespace: str
    watched: tuple[str, ...] = ()  # empty: all
    nodes: tuple[str, ...] = ()  # named, as the API server's may not be read; empty: they are read
    rest_port: int = 12802
    bundles_port: int = 12803
    http_port: int = 12804
    store_url: str = _DEFAULTS[STORE_URL]
    bundles_url: str = ""
    gateway_url: str = _DEFAULTS["SESSIONPOOLS_GATEWAY_URL"]
    gateway_certificate: Path | None = None
    gateway_labels: str = _DEFAULTS["SESSIONPOOLS_GATEWAY_LABELS"]
    gateway_port: int = 12801
    auth_enabled: bool = True
    admin_password: Path = Path(_DEFAULTS["SESSIONPOOLS_ADMIN_PASSWORD_FILE"])
    users: Path = Path(_DEFAULTS["SESSIONPOOLS_USERS_FILE"])
    keys_secret: str = _DEFAULTS["SESSIONPOOLS_KEYS_SECRET"]
    keys_config_map: str = _DEFAULTS["SESSIONPOOLS_KEYS_CONFIG_MAP"]
    behind_gateway: bool = True
    log_level: str = "INFO"
    pod: str = "web"


def from_environment(env: Mapping[str, str]) -> Settings:
    def get(name: str) -> str:
        return env.get(name) or _DEFAULTS[name]

    def port(name: str) -> int:
        text = get(name)
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise SettingsError(f"{name} is {text!r}: use a number from 1 to 65535")
        return int(text)

    def one_of(name: str, *values: str) -> str:
        text = get(name).lower()
        if text not in values:
            raise SettingsError(f"{name} is {text!r}: use {', '.join(values[:-1])} or {values[-1]}")
        return text

    def names(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, (each.strip() for each in get(name).split(",")))))

    def url(name: str, text: str, *schemes: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)) or re.search(r"\s", text):
            raise SettingsError(f"{name} is {text!r}: use a URL that begins with {' or '.join(schemes)}://")
        return text.rstrip("/")

    def object_name(name: str) -> str:
        text = get(name)
        if not re.fullmatch(r"[a-z0-9.-]{1,253}", text):
            raise SettingsError(f"{name} is {text!r}: use the name of an object")
        return text

    certificate = get("SESSIONPOOLS_GATEWAY_CERTIFICATE")
    namespace = get("POD_NAMESPACE")
    if not namespace:
        raise SettingsError("POD_NAMESPACE is not set: the namespace of this pod, in which the keys are kept")
    api_namespace = get("SESSIONPOOLS_API_NAMESPACE")
    if not re.fullmatch(r"[a-z0-9-]{1,63}", api_namespace):
        raise SettingsError(f"SESSIONPOOLS_API_NAMESPACE is {api_namespace!r}: use the name of a namespace")
    bundles_port = port("SESSIONPOOLS_BUNDLES_PORT")
    bundles_url = get("SESSIONPOOLS_BUNDLES_URL") or f"http://session-pools-web.{namespace}:{bundles_port}"
    return Settings(
        namespace=namespace,
        api_namespace=api_namespace,
        watched=names("SESSIONPOOLS_WATCH_NAMESPACES"),
        nodes=names("SESSIONPOOLS_NODES"),
        rest_port=port("SESSIONPOOLS_REST_PORT"),
        bundles_port=bundles_port,
        http_port=port("SESSIONPOOLS_HTTP_PORT"),
        store_url=get(STORE_URL),
        bundles_url=url("SESSIONPOOLS_BUNDLES_URL", bundles_url, "http", "https"),
        gateway_url=url("SESSIONPOOLS_GATEWAY_URL", get("SESSIONPOOLS_GATEWAY_URL"), "http", "https"),
        gateway_certificate=Path(certificate) if certificate else None,
        gateway_labels=get("SESSIONPOOLS_GATEWAY_LABELS"),
        gateway_port=port("SESSIONPOOLS_GATEWAY_PORT"),
        auth_enabled=one_of("SESSIONPOOLS_AUTH_ENABLED", "true", "false") == "true",
        admin_password=Path(get("SESSIONPOOLS_ADMIN_PASSWORD_FILE")),
        users=Path(get("SESSIONPOOLS_USERS_FILE")),
        keys_secret=object_name("SESSIONPOOLS_KEYS_SECRET"),
        keys_config_map=object_name("SESSIONPOOLS_KEYS_CONFIG_MAP"),
        behind_gateway=one_of("SESSIONPOOLS_BEHIND_GATEWAY", "true", "false") == "true",
        log_level=one_of("SESSIONPOOLS_LOG_LEVEL", "debug", "info", "warning", "error").upper(),
        pod=get("POD_NAME"),
    )
