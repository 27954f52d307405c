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
    ignored_namespaces: tuple[str, ...] = ()  # of all
    nodes: tuple[str, ...] = ()  # named, as the API server's may not be read; empty: they are read
    log_level: str = "INFO"
    http_port: int = 8080
    pod_name: str = ""
    pod_namespace: str = ""
    lease: str = ""  # of the controllers, in their own namespace: its holder works; empty: this one is alone
    # Of the gateway pod that is active, in the controller's own namespace; empty: there is no gateway, and pools with
    # isolation Pod have initialPoolSize sessions a node.
    gateway_selector: str = ""
    gateway_port: int = 12801  # where it says what is asked of each pool
    max_sessions_per_node: int = 0  # of all pools together (core.limits); 0: no limit


def from_environment(env: Mapping[str, str]) -> Config:
    image = env.get("SESSIONPOOLS_SESSION_IMAGE", "")
    if not image:
        raise ConfigError("SESSIONPOOLS_SESSION_IMAGE is not set: the image of sessions whose WebService names none")
    pull_policy = env.get("SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY") or "IfNotPresent"
    if pull_policy not in ("Always", "IfNotPresent", "Never"):
        raise ConfigError(
            f"SESSIONPOOLS_SESSION_IMAGE_PULL_POLICY is {pull_policy!r}: use Always, IfNotPresent or Never"
        )
    http_port, gateway_port = _port(env, "SESSIONPOOLS_HTTP_PORT", 8080), _port(env, "SESSIONPOOLS_GATEWAY_PORT", 12801)
    level = (env.get("SESSIONPOOLS_LOG_LEVEL") or "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"SESSIONPOOLS_LOG_LEVEL is {level!r}: use debug, info, warning or error")
    selector, namespace = env.get("SESSIONPOOLS_GATEWAY_LABELS", ""), env.get("POD_NAMESPACE", "")
    if selector and not namespace:
        raise ConfigError("POD_NAMESPACE is not set: SESSIONPOOLS_GATEWAY_LABELS finds gateways in that namespace")
    lease, pod_name = env.get("SESSIONPOOLS_LEASE", ""), env.get("POD_NAME", "")
    if lease and not (namespace and pod_name):
        raise ConfigError("POD_NAME and POD_NAMESPACE must be set: who holds SESSIONPOOLS_LEASE, and where it is")
    namespaces, ignored = _list(env, "SESSIONPOOLS_WATCH_NAMESPACES"), _list(env, "SESSIONPOOLS_IGNORE_NAMESPACES")
    if namespaces and ignored:
        raise ConfigError("SESSIONPOOLS_IGNORE_NAMESPACES: give it or SESSIONPOOLS_WATCH_NAMESPACES, not both")
    return Config(
        session_image=image,
        pull_policy=pull_policy,
        namespaces=namespaces,
        ignored_namespaces=ignored,
        nodes=_list(env, "SESSIONPOOLS_NODES"),
        log_level=level,
        http_port=http_port,
        pod_name=pod_name,
        pod_namespace=namespace,
        lease=lease,
        gateway_selector=selector,
        gateway_port=gateway_port,
        max_sessions_per_node=_count(env, "SESSIONPOOLS_MAX_SESSIONS_PER_NODE"),
    )


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (each.strip() for each in env.get(name, "").split(",")))))


def _count(env: Mapping[str, str], name: str) -> int:
    count = env.get(name) or "0"
    if not count.isdecimal():
        raise ConfigError(f"{name} is {count!r}: use a number, 0 for no limit")
    return int(count)


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    port = env.get(name) or str(default)
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise ConfigError(f"{name} is {port!r}: use a port number")
    return int(port)
