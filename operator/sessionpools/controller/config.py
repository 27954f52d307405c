"""The controller's settings, read once from the environment that the chart sets."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Config", "ConfigError", "from_environment"]


class ConfigError(ValueError):
    """A variable is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class Config:
    session_image: str
    pull_policy: str = "IfNotPresent"
    namespaces: tuple[str, ...] = ()  # empty: all
    log_level: str = "INFO"
    http_port: int = 8080
    pod_name: str = ""
    pod_namespace: str = ""


def from_environment(env: Mapping[str, str]) -> Config:
    image = env.get("SESSIONPOOLS_SESSION_IMAGE", "")
    if not image:
        raise ConfigError("SESSIONPOOLS_SESSION_IMAGE is not set: the image of sessions whose WebService names none")
    pull_policy = env.get("SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY") or "IfNotPresent"
    if pull_policy not in ("Always", "IfNotPresent", "Never"):
        raise ConfigError(
            f"SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY is {pull_policy!r}: use Always, IfNotPresent or Never"
        )
    port = env.get("SESSIONPOOLS_HTTP_PORT") or "8080"
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise ConfigError(f"SESSIONPOOLS_HTTP_PORT is {port!r}: use a port number")
    level = (env.get("SESSIONPOOLS_LOG_LEVEL") or "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"SESSIONPOOLS_LOG_LEVEL is {level!r}: use debug, info, warning or error")
    return Config(
        session_image=image,
        pull_policy=pull_policy,
        namespaces=tuple(filter(None, (n.strip() for n in env.get("SESSIONPOOLS_WATCH_NAMESPACES", "").split(",")))),
        log_level=level,
        http_port=int(port),
        pod_name=env.get("POD_NAME", ""),
        pod_namespace=env.get("POD_NAMESPACE", ""),
    )
