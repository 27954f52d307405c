"""What a reconciler of pools remembers between two runs, and how often it does what no event asks for."""

from dataclasses import dataclass, field

from sessionpools.api.v1alpha1 import SessionPoolStatus
from sessionpools.controller.inquiry import Inquiry
from sessionpools.core.backoff import Backoff
from sessionpools.core.holds import Holds
from sessionpools.core.model import PodView
from sessionpools.core.revision import CodeFiles
from sessionpools.core.target import CodeProblem

__all__ = ["Code", "Memory", "Pace"]

# Of a node where session pods are refused or deleted (core.holds): at most what the kubelet lets a container wait that
# fails (MaxContainerBackOff).
BACKOFF = Backoff(15.0, 300.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are done that no event asks for; seconds. Simulations go faster."""

    status: float = 1.0  # between two status writes of a pool, at least
    progress: float = 10.0  # at most, where they tell of progress only: the time between them is doubled up to this
    # That one more of a pool's pods starts waits for so long for each that is on its way, `progress` at most: it is
    # for the status alone. Else 50 pools that fill with 10,000 pods would be looked at for each of these (bench-scale).
    a_start: float = 0.1
    config_map: float = 5.0  # users' ConfigMaps are read, not watched: that would take every ConfigMap there is
    starting: float = 3.0  # starting pods are asked for their phase
    backoff: Backoff = BACKOFF
    # After a pod has left a node the scheduler tries those that wait for room again: after a back-off of 10 s at most
    # (podMaxBackoffSeconds), and a pod that was refused for a quota comes again at once, and after 23 s at most if that
    # was too early: the quota's controller has to see it first.
    room: float = 25.0
    unseen: float = 5.0  # a rollout that waits for gateways says so
    gateway: float = 30.0  # a rollout waits for gateways that do not answer; one takes over within 10 s
    deleted: float = 1.0  # until a deletion is tried again of what was no longer as it was seen
    written: float = 5.0  # the watch shows a status that was written within this time


@dataclass(frozen=True, slots=True)
class Code:
    """A user's ConfigMap as it was read."""

    name: str
    read_at: float
    content: CodeFiles | CodeProblem


@dataclass(slots=True)
class Memory:
    """What is remembered of a pool between two runs; all of it can be lost. Times are monotonic seconds."""

    uid: str
    inquiry: Inquiry = field(default_factory=Inquiry)
    holds: Holds = field(default_factory=Holds)
    made_for: tuple[int, str] = (0, "")  # generation and revision that the holds are about
    deleted: set[str] = field(default_factory=set)  # uids of pods that are there and that this controller has deleted
    taken: list[PodView] = field(default_factory=list)  # that somebody else has deleted since the last run
    standing: frozenset[str] = frozenset()  # uids of the pods that took of a quota at the last run
    status: SessionPoolStatus | None = None  # as last written, until the watch shows it
    written_at: float = -1e9
    progress_told: int = 0  # times in a row
    filling: bool = False  # of its pods that start none is awaited by a rollout or a caller, only by the status
    code: Code | None = None
    written: bool = False  # a status was, and its web service has not been looked at since
    handled: tuple[str, int] = ("", 0)  # uid and generation of the web service that the written status is about
    unseen_since: float | None = None  # during a rollout: gateways do not have all new sessions yet
    unknown_since: float | None = None  # during a rollout: no gateway says what it has
    unknown_told: str = ""  # the revision of which that was logged
    left: dict[str, float] = field(default_factory=dict)  # when a pod was last seen to be leaving, by node
    settled: bool = False  # as the status says: no rollout or change is under way
    collected: frozenset[str] = frozenset()  # the revisions in use when old code was last collected
    sessions: dict[str, int] = field(default_factory=dict)  # that each node should have by demand, as last decided
