"""The kinds SessionPool and WebService, version v1alpha1: one description for code, CRDs and reference pages.

The CRDs in crds/ and the pages in docs/reference are generated from these models (`sessionpools.api.crds`): a field's
docstring is what `kubectl explain` prints. Reading an object that the API server accepted never fails: unknown fields
are ignored and only types are checked. Zero values ("", [], {}, None) mean "not given" and are no defaults in the CRDs.
No I/O here and no decisions; controller, gateway, web API and client all read and write objects through these models.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from sessionpools.api import names

JsonObject = dict[str, Any]

# Bounds that whoever writes status has to keep, as the API server refuses the whole status otherwise.
MAX_STATUS_NODES = 500  # of about 300 bytes each: an object stays far below etcd's 1.5 MiB
MAX_NODE_MESSAGE = 1024  # characters; 500 of these still fit into an object
MAX_CONDITION_MESSAGE = 32768  # characters; the bound of Kubernetes' own conditions


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]


class Model(BaseModel):
    """What all parts of the kinds have in common: snake_case here, camelCase in the API, immutable once read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_json(self, *, defaults: bool = True) -> JsonObject:
        """As the API server takes it: camelCase, times as RFC 3339 in seconds, without None.

        Status is written with defaults, so that a 0 is shown as one; spec without, as its author would write it.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults)


class ObjectMeta(Model):
    """The part of an object's metadata that somebody here reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


class Condition(Model):
    """One aspect of an object's state, as `kubectl wait --for=condition=...`, Flux, Argo CD and Helm read it."""

    type: str
    """What the condition is about, in CamelCase, for example Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds: True, False or Unknown."""
    reason: str
    """Why, as one CamelCase word for programs."""
    message: str
    """Why, as a sentence for people."""
    observed_generation: int = 0
    """metadata.generation of the object when this was observed."""
    last_transition_time: Time
    """When status last changed from one value to another."""


class State(StrEnum):
    """Success: the sessions asked for are ready. Pending: they are awaited. NotFound: none are there nor awaited."""

    SUCCESS = "Success"
    PENDING = "Pending"
    NOT_FOUND = "NotFound"


class Isolation(StrEnum):
    """Pod: a pod per session. Process: one pod per node, with the sessions as processes in it."""

    POD = "Pod"
    PROCESS = "Process"


# --- SessionPool --------------------------------------------------------------------------------------------


class Queue(Model):
    """Calls that wait in the gateway for a free session."""

    max_length: int = 100
    """How many calls may wait for this pool; the next one gets 429."""
    timeout_seconds: int = 10
    """How long a call may wait; then it gets 503."""


class Update(Model):
    """How sessions of an old revision are replaced, on each node."""

    max_surge: int = 1
    """How many sessions beyond the wanted number may exist during a rollout."""
    max_unavailable: int = 0
    """How many of the wanted sessions may be missing during a rollout."""


class Toleration(Model):
    """A taint that the pool's session pods tolerate, as in a pod."""

    key: str = ""
    """The taint's key; empty with operator Exists: every taint."""
    operator: str = "Equal"
    """Equal compares the taint's value, Exists does not."""
    value: str = ""
    """The taint's value, with operator Equal."""
    effect: str = ""
    """NoSchedule, PreferNoSchedule or NoExecute; empty: all of them."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated; absent: for ever."""


class Placement(Model):
    """Which nodes are the pool's compute nodes."""

    node_selector: dict[str, str] = {}
    """Labels that a node must carry; empty: every node."""
    tolerations: list[Toleration] = []
    """Taints that do not keep the pool away from a node."""
    priority_class_name: str = ""
    """PriorityClass of the session pods."""


class SessionPoolSpec(Model):
    """What a pool shall be on every compute node."""

    service_name: str = ""
    """Name of the web service, case-sensitive. With serviceVersion the key of the pool; absent, as serviceVersion: the
    generic pool, for all web services of the namespace without a pool of their own. Immutable."""
    service_version: str = ""
    """Version of the web service, case-sensitive. Immutable."""
    initial_pool_size: int
    """Sessions that are warmed on every compute node and stay."""
    max_pool_size: int
    """The most sessions that a compute node ever holds; those above initialPoolSize come with demand."""
    isolation: Isolation = Isolation.POD
    """Pod: a pod per session. Process: one pod per node, the sessions forked inside it from one warmed process."""
    idle_timeout_seconds: int = 300
    """Sessions above initialPoolSize end after this long without a call."""
    request_timeout_seconds: int = 60
    """A call that takes longer gets 504, and its session is killed and replaced."""
    start_timeout_seconds: int = 600
    """A warm-up (imports, init, first call) that takes longer has failed."""
    drain_timeout_seconds: int = 60
    """How long a session that shall end may finish its call; at least requestTimeoutSeconds."""
    recycle_after_requests: int = 0
    """A session is replaced after so many calls. 0: never; 1: every call gets a fresh session."""
    queue: Queue = Queue()
    """Calls that wait for a free session."""
    update: Update = Update()
    """How sessions of an old revision are replaced."""
    placement: Placement = Placement()
    """Which nodes are the pool's compute nodes."""
    image: str = ""
    """Image of the generic pool's sessions; empty: the chart's session image. A dedicated pool takes its service's."""


class NodeStatus(Model):
    """The pool on one compute node."""

    name: str
    """The node's name."""
    state: State
    """Success: ready sessions >= initialPoolSize. Pending: they are awaited. NotFound: none are."""
    desired: int = 0
    """Sessions wanted on the node."""
    ready: int = 0
    """Sessions ready on the node, of any revision."""
    message: str = ""
    """Why the node is not Success."""


class NodeCounts(Model):
    """How many compute nodes are in which state."""

    total: int = 0
    """All compute nodes of the pool."""
    success: int = 0
    """Nodes in state Success."""
    pending: int = 0
    """Nodes in state Pending."""
    not_found: int = 0
    """Nodes in state NotFound."""


class SessionCounts(Model):
    """Sessions of the pool on all nodes."""

    desired: int = 0
    """Sessions wanted."""
    ready: int = 0
    """Sessions ready, of any revision."""
    updated: int = 0
    """Ready sessions of the current revision."""


class SessionPoolStatus(Model):
    """What was observed of the pool."""

    observed_generation: int = 0
    """metadata.generation that this status is about."""
    state: State | None = None
    """Success: every node is. NotFound: no node holds or awaits a session. Else Pending."""
    nodes: list[NodeStatus] = []
    """One row per compute node, those that are not Success first; at most 500, nodeCounts is always complete."""
    node_counts: NodeCounts = NodeCounts()
    """How many nodes are in which state."""
    sessions: SessionCounts = SessionCounts()
    """Sessions on all nodes."""
    image: str = ""
    """The sessions' image as resolved for the current revision."""
    revision: str = ""
    """Hash of all that decides what a session is."""
    conditions: list[Condition] = []
    """Ready, Reconciling (a rollout or a change is under way), Stalled (no progress without a change by somebody)."""


class SessionPool(Model):
    """Warmed interpreters of one web service (or of all without a pool of their own) on every compute node."""

    api_version: str = names.API_VERSION
    kind: str = "SessionPool"
    metadata: ObjectMeta = ObjectMeta()
    spec: SessionPoolSpec
    status: SessionPoolStatus = SessionPoolStatus()


# --- WebService ---------------------------------------------------------------------------------------------


class ParameterType(StrEnum):
    """ML Server's types: numeric (float), integer, logical (bool), character (str), vector, matrix, data.frame."""

    NUMERIC = "numeric"
    INTEGER = "integer"
    LOGICAL = "logical"
    CHARACTER = "character"
    VECTOR = "vector"
    MATRIX = "matrix"
    DATA_FRAME = "data.frame"
    ANY = "any"  # status only: the function does not say


class Parameter(Model):
    """A named, typed input or output."""

    name: str
    """A Python identifier."""
    type: ParameterType
    """numeric, integer, logical, character, vector (numpy array), matrix (2-dimensional) or data.frame (pandas)."""


class SignatureParameter(Parameter):
    """An input or output as the running service has it."""

    type: ParameterType
    """As in spec; any: the function does not say."""
    required: bool = True
    """Whether a call must give it: the function has no default for it."""


class LocalObjectReference(Model):
    """An object of the same namespace."""

    name: str
    """metadata.name of the object."""


class Bundle(Model):
    """An archive of code."""

    url: str
    """Where to load it from."""
    sha256: str
    """Its digest, in lower-case hexadecimal."""


class Code(Model):
    """Where the code comes from; exactly one of the fields."""

    inline: dict[str, str] | None = None
    """File names (relative paths) and their text."""
    config_map: LocalObjectReference | None = None
    """A ConfigMap whose keys are the file names. A change of its data is a new revision."""
    bundle: Bundle | None = None
    """An archive, by URL and digest."""
    image_path: str = ""
    """An absolute directory in the image."""


class WebServiceSpec(Model):
    """Published code."""

    name: str
    """Name under which the service is called, case-sensitive. Immutable."""
    version: str
    """Version under which the service is called, case-sensitive. Immutable."""
    description: str = ""
    """For people."""
    image: str = ""
    """Image of the sessions; empty: the chart's session image."""
    code: Code
    """Where the code comes from."""
    entrypoint: str = ""
    """module:function that answers a call: def or async def, no generator. Exactly one of entrypoint and script."""
    script: str = ""
    """A file of the code that is run for each call with the inputs as variables; its variables are the outputs."""
    init: str = ""
    """module:function that runs once before the first call, for example to load a model."""
    modules: list[str] = []
    """Modules that are imported before the code, in this order."""
    warmup: JsonObject | None = None
    """Inputs of a call that every session answers before it counts as ready. Absent: none (condition Warmed=False)."""
    inputs: list[Parameter] | None = None
    """Inputs of a call. Absent: read from the function's annotations; shown in status."""
    outputs: list[Parameter] | None = None
    """Outputs of a call. Absent: read from the function's annotations; shown in status."""
    output_files: list[str] = []
    """Files (relative paths) that a call writes in its working directory and that are returned in base64."""
    fork_safe: bool = True
    """false: each session imports for itself, as the code starts threads, CUDA or gRPC while it is imported."""
    env: list[JsonObject] = []
    """Environment variables, as in a container."""
    env_from: list[JsonObject] = []
    """ConfigMaps and Secrets whose keys become environment variables, as in a container."""
    volumes: list[JsonObject] = []
    """Volumes, as in a pod: configMap, secret, emptyDir, persistentVolumeClaim, projected, downwardAPI."""
    volume_mounts: list[JsonObject] = []
    """Where the volumes are mounted, as in a container."""
    image_pull_secrets: list[LocalObjectReference] = []
    """Secrets with the credentials for the image's registry."""
    service_account_name: str = ""
    """ServiceAccount of the session pods; its token is not mounted."""
    resources: JsonObject = {}
    """Requests and limits of ONE session, as in a container. A Process pod requests them times initialPoolSize and is
    limited to them times maxPoolSize."""


class PoolKind(StrEnum):
    """Which pool serves a web service."""

    DEDICATED = "dedicated"
    GENERIC = "generic"
    NONE = "none"


class WebServiceStatus(Model):
    """What was observed of the web service."""

    observed_generation: int = 0
    """metadata.generation that this status is about."""
    revision: str = ""
    """Hash of all that decides what a session is."""
    pool: PoolKind | None = None
    """dedicated: a SessionPool of its own; generic: the generic pool; none: no pool."""
    inputs: list[SignatureParameter] = []
    """Inputs as the running service has them."""
    outputs: list[SignatureParameter] = []
    """Outputs as the running service has them."""
    conditions: list[Condition] = []
    """Ready: the service can be called."""


class WebService(Model):
    """Published code: a function or a script with typed inputs and outputs, called by name and version."""

    api_version: str = names.API_VERSION
    kind: str = "WebService"
    metadata: ObjectMeta = ObjectMeta()
    spec: WebServiceSpec
    status: WebServiceStatus = WebServiceStatus()
