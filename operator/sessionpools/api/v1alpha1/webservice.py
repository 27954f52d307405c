"""The kind WebService."""

from enum import StrEnum
from typing import Annotated, ClassVar

from sessionpools.api import names, podfields, rules
from sessionpools.api.scalars import (
    File,
    Function,
    Identifier,
    Image,
    ImageDirectory,
    Module,
    ObjectName,
    ObservedGeneration,
    RequiredObjectName,
    ServiceKey,
)
from sessionpools.api.schema import PRESERVE, Column, Resource, Schema, must
from sessionpools.api.v1alpha1.meta import (
    ATOMIC,
    NOT_OBSERVED,
    Condition,
    JsonObject,
    Model,
    ObjectMeta,
    by,
    checked,
)


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

    name: Identifier
    """A Python identifier."""
    type: Annotated[ParameterType, Schema(enum=[t.value for t in ParameterType if t != ParameterType.ANY])]
    """numeric, integer, logical, character, vector (numpy array), matrix (2-dimensional) or data.frame (pandas)."""


class SignatureParameter(Parameter):
    """An input or output as the running service has it."""

    name: Annotated[str, Schema(maxLength=512)]
    """The argument's or output's name."""
    type: ParameterType
    """As in spec; any: the function does not say."""
    required: bool = True
    """Whether a call must give it: the function has no default for it."""


class LocalObjectReference(Model):
    """An object of the same namespace."""

    name: RequiredObjectName
    """metadata.name of the object."""


class Bundle(Model):
    """An archive of code."""

    url: Annotated[
        str,
        Schema(
            must(
                r"self.matches(r'^[a-z][a-z0-9+.-]*://[^\s]+$')",
                "be a URL with a scheme and without white space, such as https://host/path/bundle.tar.gz",
            ),
            maxLength=2048,
        ),
    ]
    """Where to load it from."""
    sha256: Annotated[
        str,
        Schema(
            must("self.matches('^[0-9a-f]{64}$')", "be a SHA-256 digest: 64 lower-case hexadecimal digits"),
            maxLength=64,
        ),
    ]
    """Its digest, in lower-case hexadecimal."""


class Code(Model):
    """Where the code comes from; exactly one of the fields."""

    model_config = checked(rules.CODE)

    inline: (
        Annotated[
            dict[str, Annotated[str, Schema(maxLength=512 * 1024)]],
            Schema(*rules.INLINE, minProperties=1, maxProperties=256),
        ]
        | None
    ) = None
    """File names (relative paths) and their text."""
    config_map: LocalObjectReference | None = None
    """A ConfigMap whose keys are the file names. A change of its data is a new revision."""
    bundle: Bundle | None = None
    """An archive, by URL and digest."""
    image_path: ImageDirectory = ""
    """An absolute directory in the image."""


class WebServiceSpec(Model):
    """Published code."""

    model_config = checked(rules.WEB_SERVICE)

    name: ServiceKey
    """Name under which the service is called, case-sensitive. Immutable."""
    version: ServiceKey
    """Version under which the service is called, case-sensitive. Immutable."""
    description: Annotated[str, Schema(maxLength=4096)] = ""
    """For people."""
    image: Image = ""
    """Image of the sessions; empty: the chart's session image."""
    code: Code
    """Where the code comes from."""
    entrypoint: Function = ""
    """module:function that answers a call: def or async def, no generator. Exactly one of entrypoint and script."""
    script: File = ""
    """A file of the code that is run for each call with the inputs as variables; its variables are the outputs."""
    init: Function = ""
    """module:function that runs once before the first call, for example to load a model."""
    modules: Annotated[list[Module], Schema(maxItems=64, **ATOMIC)] = []
    """Modules that are imported before the code, in this order."""
    warmup: Annotated[JsonObject, Schema(**{PRESERVE: True})] | None = None
    """Inputs of a call that every session answers before it counts as ready. Absent: none (condition Warmed=False)."""
    inputs: Annotated[list[Parameter], Schema(maxItems=256, **by("name"))] | None = None
    """Inputs of a call. Absent: read from the function's annotations; shown in status."""
    outputs: Annotated[list[Parameter], Schema(maxItems=256, **by("name"))] | None = None
    """Outputs of a call. Absent: read from the function's annotations; shown in status."""
    output_files: Annotated[list[File], Schema(maxItems=64, **ATOMIC)] = []
    """Files (relative paths) that a call writes in its working directory and that are returned in base64."""
    fork_safe: bool = True
    """false: each session imports for itself, as the code starts threads, CUDA or gRPC while it is imported."""
    env: Annotated[list[JsonObject], Schema(**podfields.ENV)] = []
    """Environment variables, as in a container."""
    env_from: Annotated[list[JsonObject], Schema(**podfields.ENV_FROM)] = []
    """ConfigMaps and Secrets whose keys become environment variables, as in a container."""
    volumes: Annotated[list[JsonObject], Schema(**podfields.VOLUMES)] = []
    """Volumes, as in a pod: configMap, secret, emptyDir, persistentVolumeClaim, projected, downwardAPI."""
    volume_mounts: Annotated[list[JsonObject], Schema(**podfields.VOLUME_MOUNTS)] = []
    """Where the volumes are mounted, as in a container."""
    image_pull_secrets: Annotated[list[LocalObjectReference], Schema(maxItems=16, **by("name"))] = []
    """Secrets with the credentials for the image's registry."""
    service_account_name: ObjectName = ""
    """ServiceAccount of the session pods; its token is not mounted."""
    resources: Annotated[JsonObject, Schema(**podfields.RESOURCES)] = {}
    """Requests and limits of one session, as in a container. A Process pod requests them times initialPoolSize and is
    limited to them times maxPoolSize."""


class PoolKind(StrEnum):
    """Which pool serves a web service."""

    DEDICATED = "dedicated"
    GENERIC = "generic"
    NONE = "none"


class WebServiceStatus(Model):
    """What was observed of the web service."""

    observed_generation: ObservedGeneration = NOT_OBSERVED
    """metadata.generation that this status is about; -1: nobody has looked at the object yet."""
    revision: Annotated[str, Schema(maxLength=63)] = ""
    """Hash of all that decides what a session is."""
    pool: PoolKind | None = None
    """dedicated: a SessionPool of its own; generic: the generic pool; none: no pool."""
    inputs: Annotated[list[SignatureParameter], Schema(maxItems=256, **by("name"))] = []
    """Inputs as the running service has them."""
    outputs: Annotated[list[SignatureParameter], Schema(maxItems=256, **by("name"))] = []
    """Outputs as the running service has them."""
    conditions: Annotated[list[Condition], Schema(maxItems=16, **by("type"))] = []
    """Ready: the service can be called."""


class WebService(Model):
    """Published code: a function or a script with typed inputs and outputs, called by name and version."""

    model_config = checked(rules.OBJECT)
    RESOURCE: ClassVar = Resource(
        kind="WebService",
        plural="webservices",
        singular="webservice",
        short_name="ws",
        columns=(
            Column("Service", ".spec.name"),
            Column("Version", ".spec.version"),
            Column("Pool", ".status.pool"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            Column("Revision", ".status.revision", wide=True),
            Column("Image", ".spec.image", wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )

    api_version: str = names.API_VERSION
    kind: str = "WebService"
    metadata: ObjectMeta = ObjectMeta()
    spec: WebServiceSpec
    status: WebServiceStatus = WebServiceStatus()
