"""The kind SessionPool."""

from enum import StrEnum
from typing import Annotated, ClassVar

from sessionpools.api import names, rules
from sessionpools.api.scalars import (
    Count,
    IdleSeconds,
    Image,
    LabelValue,
    ObjectName,
    ObservedGeneration,
    PoolSize,
    Seconds,
    ServiceKey,
)
from sessionpools.api.schema import Column, Resource, Schema
from sessionpools.api.v1alpha1.meta import ATOMIC, NOT_OBSERVED, Condition, Model, ObjectMeta, by, checked

# Bounds that whoever writes status has to keep, as the API server refuses the whole status otherwise.
MAX_STATUS_NODES = 500
MAX_NODE_MESSAGE = 1024  # characters; 500 rows of these still fit into etcd's 1.5 MiB


class State(StrEnum):
    """Success: the sessions asked for are ready. Pending: they are awaited. NotFound: none are there nor awaited."""

    SUCCESS = "Success"
    PENDING = "Pending"
    NOT_FOUND = "NotFound"


class Isolation(StrEnum):
    """Pod: a pod per session. Process: one pod per node, with the sessions as processes in it."""

    POD = "Pod"
    PROCESS = "Process"


class Queue(Model):
    """Calls that wait in the gateway for a free session."""

    max_length: Annotated[int, Schema(minimum=0, maximum=100_000)] = 100
    """How many calls may wait for this pool; the next one gets 429."""
    timeout_seconds: Annotated[int, Schema(minimum=1, maximum=3_600)] = 10
    """How long a call may wait; then it gets 503."""


class Update(Model):
    """How sessions of an old revision are replaced, on each node."""

    model_config = checked(rules.UPDATE)

    max_surge: PoolSize = 1
    """How many sessions beyond the wanted number may exist during a rollout. With isolation Process one more pod,
    whatever the number."""
    max_unavailable: PoolSize = 0
    """How many of the wanted sessions may be missing during a rollout. With isolation Process and without maxSurge at
    least initialPoolSize."""


class Toleration(Model):
    """A taint that the pool's session pods tolerate, as in a pod."""

    model_config = checked(rules.TOLERATION)

    key: Annotated[str, Schema(maxLength=317)] = ""
    """The taint's key; empty with operator Exists: every taint."""
    operator: Annotated[str, Schema(enum=["Equal", "Exists"])] = "Equal"
    """Equal compares the taint's value, Exists does not."""
    value: LabelValue = ""
    """The taint's value, with operator Equal."""
    effect: Annotated[str, Schema(enum=["", "NoSchedule", "PreferNoSchedule", "NoExecute"])] = ""
    """NoSchedule, PreferNoSchedule or NoExecute; empty: all of them."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated; absent: for ever."""


class Placement(Model):
    """Which nodes are the pool's compute nodes."""

    node_selector: Annotated[
        dict[str, LabelValue],
        Schema(
            *rules.NODE_SELECTOR,
            maxProperties=64,
        ),
    ] = {}
    """Labels that a node must carry; empty: every node."""
    tolerations: Annotated[list[Toleration], Schema(maxItems=64, **ATOMIC)] = []
    """Taints that do not keep the pool away from a node."""
    priority_class_name: ObjectName = ""
    """PriorityClass of the session pods."""


class SessionPoolSpec(Model):
    """What a pool shall be on every compute node."""

    model_config = checked(rules.SESSION_POOL)

    service_name: ServiceKey = ""
    """Name of the web service, case-sensitive. With serviceVersion the key of the pool; absent, as serviceVersion: the
    generic pool, for all web services of the namespace without a pool of their own. Immutable."""
    service_version: ServiceKey = ""
    """Version of the web service, case-sensitive. Immutable."""
    initial_pool_size: PoolSize
    """Sessions that are warmed on every compute node and stay."""
    max_pool_size: PoolSize
    """The most sessions that a compute node ever holds; those above initialPoolSize come with demand."""
    isolation: Isolation = Isolation.POD
    """Pod: a pod per session. Process: one pod per node, the sessions forked inside it from one warmed process."""
    idle_timeout_seconds: IdleSeconds = 300
    """Sessions above initialPoolSize end after this long without a call."""
    request_timeout_seconds: Seconds = 60
    """A call that takes longer gets 504, and its session is killed and replaced."""
    start_timeout_seconds: Seconds = 600
    """A warm-up (imports, init, first call) that takes longer has failed."""
    drain_timeout_seconds: Seconds = 60
    """How long a session that shall end may finish its call; at least requestTimeoutSeconds."""
    recycle_after_requests: Annotated[int, Schema(minimum=0, maximum=1_000_000_000)] = 0
    """A session is replaced after so many calls. 0: never; 1: every call gets a fresh session."""
    queue: Queue = Queue()
    """Calls that wait for a free session."""
    update: Update = Update()
    """How sessions of an old revision are replaced."""
    placement: Placement = Placement()
    """Which nodes are the pool's compute nodes."""
    image: Image = ""
    """Image of the generic pool's sessions; empty: the chart's session image. A dedicated pool takes its service's."""


class NodeStatus(Model):
    """The pool on one compute node."""

    name: Annotated[str, Schema(maxLength=253)]
    """The node's name."""
    state: State
    """Success: ready sessions >= initialPoolSize. Pending: they are awaited. NotFound: none are."""
    desired: Count = 0
    """Sessions wanted on the node."""
    ready: Count = 0
    """Sessions ready on the node, of any revision."""
    message: Annotated[str, Schema(maxLength=MAX_NODE_MESSAGE)] = ""
    """Why the node is not Success."""


class NodeCounts(Model):
    """How many compute nodes are in which state."""

    total: Count = 0
    """All compute nodes of the pool."""
    success: Count = 0
    """Nodes in state Success."""
    pending: Count = 0
    """Nodes in state Pending."""
    not_found: Count = 0
    """Nodes in state NotFound."""


class SessionCounts(Model):
    """Sessions of the pool on all nodes."""

    desired: Count = 0
    """Sessions wanted."""
    ready: Count = 0
    """Sessions ready, of any revision."""
    updated: Count = 0
    """Ready sessions of the current revision."""
    old: Count = 0
    """Ready sessions of older revisions; ready is updated + old."""


class SessionPoolStatus(Model):
    """What was observed of the pool."""

    observed_generation: ObservedGeneration = NOT_OBSERVED
    """metadata.generation that this status is about; -1: nobody has looked at the object yet."""
    state: State | None = None
    """Success: every node is. NotFound: no node holds or awaits a session. Else Pending."""
    nodes: Annotated[list[NodeStatus], Schema(maxItems=MAX_STATUS_NODES, **ATOMIC)] = []
    """One row per compute node, those that are not Success first; at most 500, nodeCounts is always complete."""
    node_counts: NodeCounts = NodeCounts()
    """How many nodes are in which state."""
    sessions: SessionCounts = SessionCounts()
    """Sessions on all nodes."""
    image: Annotated[str, Schema(maxLength=1024)] = ""
    """The sessions' image as resolved for the current revision."""
    revision: Annotated[str, Schema(maxLength=63)] = ""
    """Hash of all that decides what a session is."""
    conditions: Annotated[list[Condition], Schema(maxItems=16, **by("type"))] = []
    """Ready, Reconciling (a rollout or a change is under way), Stalled (no progress without a change by somebody)."""


class SessionPool(Model):
    """Warmed interpreters of one web service (or of all without a pool of their own) on every compute node."""

    model_config = checked(rules.OBJECT)
    RESOURCE: ClassVar = Resource(
        kind="SessionPool",
        plural="sessionpools",
        singular="sessionpool",
        short_name="sp",
        columns=(
            Column("Service", ".spec.serviceName"),
            Column("Version", ".spec.serviceVersion"),
            Column("State", ".status.state"),
            Column("Ready", ".status.sessions.ready", "integer", "Sessions that are ready, on all nodes"),
            Column("Desired", ".status.sessions.desired", "integer", "Sessions that are wanted, on all nodes"),
            Column(
                "Updated", ".status.sessions.updated", "integer", "Ready sessions of the current revision", wide=True
            ),
            Column("Old", ".status.sessions.old", "integer", "Ready sessions of older revisions", wide=True),
            Column("Nodes", ".status.nodeCounts.total", "integer", "Compute nodes", wide=True),
            Column("Isolation", ".spec.isolation", wide=True),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )

    api_version: str = names.API_VERSION
    kind: str = "SessionPool"
    metadata: ObjectMeta = ObjectMeta()
    spec: SessionPoolSpec
    status: SessionPoolStatus = SessionPoolStatus()
