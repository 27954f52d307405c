"""What the controller has observed, as frozen values: the input of every decision in this package.

Made once at the edge (core.observe parses API objects, the controller adds the reports it read from session pods) and
passed on; nothing in here is changed after it is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sessionpools.api.v1alpha1 import Isolation

__all__ = ["Failure", "NodeView", "Ownership", "PodView", "SessionReport", "Taint"]


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str  # NoSchedule | PreferNoSchedule | NoExecute


@dataclass(frozen=True, slots=True)
class NodeView:
    """A Kubernetes node, as far as placement depends on it."""

    name: str
    uid: str
    ready: bool
    schedulable: bool  # not cordoned
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    cpus: int = 1  # whole ones that pods may use


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a session does not become ready: `reason` CamelCase for machines, `message` one line for people.

    One that `lasts` has happened again, or will: nothing gets better before somebody changes something."""

    reason: str
    message: str
    lasts: bool = True


@dataclass(frozen=True, slots=True)
class Ownership:
    """Where a session pod belongs, read from its labels and annotations."""

    pool: str  # the SessionPool's metadata.name
    pool_uid: str
    node: str
    node_uid: str
    revision: str
    slot: int
    incarnation: int
    isolation: Isolation | None = None  # None: the pool's, see core.sessions


@dataclass(frozen=True, slots=True)
class PodView:
    """A session pod. Times are seconds since the epoch."""

    namespace: str
    name: str
    uid: str
    owner: Ownership
    ready: bool
    deleting: bool
    settings: str  # the raw annotation
    address: str = ""
    image: str = ""
    failure: Failure | None = None
    started: bool = False  # its container runs, so its control port can be asked
    was_ready: bool = False  # it is not, but the container that runs was once
    bundle_url: str = ""  # where it fetches its code, if that is a bundle
    created_at: float = 0.0
    # The kubelet will not run it again (evicted, node shut down): only another pod takes its place.
    ended: bool = False
    ended_at: float = 0.0
    version: str = field(default="", compare=False)  # resourceVersion: most of its changes are none to us

    @property
    def alive(self) -> bool:
        return not self.deleting and not self.ended


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a session pod's control port said (GET :8999/sessions)."""

    ready_sessions: int  # idle or busy
    busy_sessions: int
    phase: str
    phase_seconds: float
    initial_seen: int  # initialPoolSize as the supervisor has read it
    max_seen: int
    warmed: bool = True
    threads: tuple[str, ...] = ()
    idle_seconds: float = 0.0  # since the last call of any of its sessions ended; 0 while one is busy
