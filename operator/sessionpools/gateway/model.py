"""What the gateway serves, as frozen values: decided in routes.py, rendered by config.py, compared by sync.py."""

from base64 import b64encode
from dataclasses import dataclass

__all__ = ["OpenSlot", "Route", "route_key"]


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """A slot that calls may be sent to."""

    server: str  # HAProxy's name of it, "<node>:<pod>:<slot>", unique in the cluster
    address: str  # the pod's IP address
    port: int  # 9000 + slot
    rank: int  # HAProxy's server id, >= 1, unique in the pool: a call takes the lowest free one


@dataclass(frozen=True, slots=True)
class Route:
    """A published web service and where its calls go."""

    namespace: str
    service: str  # as published, not encoded
    version: str
    pool: str  # the SessionPool's metadata.name; "": published without a pool
    pool_uid: str
    queue_length: int  # calls that may wait, held ones included
    queue_seconds: int  # how long a call may wait
    request_seconds: int  # how long a call may take once a session has it
    slots: tuple[OpenSlot, ...] = ()  # sorted by rank
    # (revision, count) of the pods whose slots these are, or will be when older ones leave them room
    pods: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> str:
        """Its key in HAProxy's map."""
        return route_key(self.namespace, self.service, self.version)


def route_key(namespace: str, service: str, version: str) -> str:
    """The form "<namespace>/<base64(service)>/<base64(version)>": no name, whatever is in it, can look like another's
    key, nor break the map's lines. The encoding is what HAProxy's `base64` converter makes."""
    return f"{namespace}/{_base64(service)}/{_base64(version)}"


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
