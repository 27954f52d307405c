"""What the API server refuses, and what its user reads: one row per rule of the kinds.

`tests/contract/test_crd_validation.py` puts every row to a real API server; `tests/unit/api` proves that no rule of the
CRDs is without a row.
"""

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
API_VERSION = "sessionpools.dev/v1alpha1"
LONG_NAME = "n" * 64


@dataclass(frozen=True)
class Refusal:
    """An object, and the part of kubectl's answer that tells its author what to change."""

    id: str
    object: Object
    says: str


def pool(object_name: str = "score", /, **spec: Any) -> Object:
    """A pool that is accepted, with some fields of its spec changed; None takes a field out."""
    fields = {"serviceName": "Score", "serviceVersion": "v1", "initialPoolSize": 0, "maxPoolSize": 2}
    return _object("SessionPool", object_name, fields | spec)


def generic_pool(**spec: Any) -> Object:
    """The same for the generic pool."""
    return pool("generic", **{"serviceName": None, "serviceVersion": None} | spec)


def service(object_name: str = "score", /, **spec: Any) -> Object:
    """A web service that is accepted, with some fields of its spec changed; None takes a field out."""
    code = {"inline": {"service.py": "def predict(bmi: float) -> float:\n    return bmi\n"}}
    fields = {"name": "Score", "version": "v1", "code": code, "entrypoint": "service:predict"}
    return _object("WebService", object_name, fields | spec)


def _object(kind: str, name: str, spec: Object) -> Object:
    given = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": copy.deepcopy(given)}


def _toleration(**toleration: Any) -> Object:
    return pool(placement={"tolerations": [toleration]})


def _code(**code: Any) -> Object:
    return service(code=code)


def _variable(**variable: Any) -> Object:
    return service(env=[{"name": "MODEL"} | variable])


def _volume(**volume: Any) -> Object:
    return service(volumes=[{"name": "models"} | volume])


def _mount(path: str, **mount: Any) -> Object:
    return service(
        volumes=[{"name": "models", "emptyDir": {}}], volumeMounts=[{"name": "models", "mountPath": path} | mount]
    )


def _projected(**source: Any) -> Object:
    return _volume(projected={"sources": [source]})


_BETWEEN_FIELDS = [
    Refusal(
        "initial_above_max",
        pool(initialPoolSize=11, maxPoolSize=10),
        'spec.initialPoolSize: Invalid value: "object": initialPoolSize (11) must not exceed maxPoolSize (10): lower '
        "the one or raise the other",
    ),
    Refusal(
        "drain_shorter_than_request",
        pool(requestTimeoutSeconds=120),
        'spec.drainTimeoutSeconds: Invalid value: "object": drainTimeoutSeconds (60) must be at least '
        "requestTimeoutSeconds (120), or a rollout would cut calls off: raise the one or lower the other",
    ),
    Refusal(
        "name_without_version",
        pool(serviceVersion=None),
        'spec: Invalid value: "object": serviceName and serviceVersion belong together: give both for a dedicated '
        "pool, neither for the generic pool",
    ),
    Refusal(
        "generic_pool_as_process",
        generic_pool(isolation="Process"),
        'spec.isolation: Invalid value: "object": the generic pool (without serviceName) must have isolation Pod, as '
        "it runs the code of several services",
    ),
    Refusal(
        "image_of_a_dedicated_pool",
        pool(image="registry/other:1"),
        "spec.image: Forbidden: image is for the generic pool only: a dedicated pool takes spec.image of its "
        "WebService",
    ),
    Refusal(
        "rollout_that_cannot_move",
        pool(update={"maxSurge": 0}),
        'spec.update.maxSurge: Invalid value: "object": maxSurge and maxUnavailable must not both be 0, as no '
        "session could ever be replaced: set one of them to 1",
    ),
    Refusal(
        "toleration_value_with_exists",
        _toleration(key="gpu", operator="Exists", value="yes"),
        'spec.placement.tolerations[0].value: Invalid value: "object": value must be empty with operator Exists, '
        "which does not compare it",
    ),
    Refusal(
        "toleration_of_everything_with_equal",
        _toleration(value="yes"),
        'spec.placement.tolerations[0].operator: Invalid value: "object": operator must be Exists when key is empty, '
        "which then tolerates every taint",
    ),
    Refusal(
        "toleration_for_a_time_that_never_ends",
        _toleration(key="gpu", effect="NoSchedule", tolerationSeconds=5),
        'spec.placement.tolerations[0].effect: Invalid value: "object": effect must be NoExecute when '
        "tolerationSeconds is given",
    ),
    Refusal(
        "no_code",
        _code(),
        'spec.code: Invalid value: "object": exactly one of inline, configMap, bundle and imagePath must be given',
    ),
    Refusal(
        "two_codes",
        _code(imagePath="/app", configMap={"name": "code"}),
        'spec.code: Invalid value: "object": exactly one of inline, configMap, bundle and imagePath must be given',
    ),
    Refusal(
        "neither_entrypoint_nor_script",
        service(entrypoint=""),
        'spec: Invalid value: "object": exactly one of entrypoint (module:function) and script (a file of the code) '
        "must be given",
    ),
    Refusal(
        "both_entrypoint_and_script",
        service(script="service.py"),
        'spec: Invalid value: "object": exactly one of entrypoint (module:function) and script (a file of the code) '
        "must be given",
    ),
    Refusal(
        "script_that_is_not_in_the_code",
        service(entrypoint=None, script="main.py"),
        'spec.script: Invalid value: "object": script "main.py" is not among the files of code.inline',
    ),
    Refusal(
        "mount_of_no_volume",
        service(volumeMounts=[{"name": "models", "mountPath": "/models"}]),
        'spec.volumeMounts: Invalid value: "object": there is no volume named "models": add it to spec.volumes',
    ),
    Refusal(
        "request_above_limit",
        service(resources={"requests": {"cpu": 1, "memory": "2Gi"}, "limits": {"cpu": 1, "memory": "512Mi"}}),
        'spec.resources.requests: Invalid value: "object": the request for memory must not exceed its limit',
    ),
    Refusal(
        "too_many_files",
        _code(inline={f"f{n}.py": "" for n in range(200)}),
        'spec.code.inline: Invalid value: "object": 200 files are more than inline may hold (64): use a bundle or '
        "imagePath",
    ),
    Refusal(
        "too_many_characters",
        _code(inline={f"f{n}.py": "#" * 500_000 for n in range(2)} | {"service.py": "#"}),
        'spec.code.inline: Invalid value: "object": 1000001 characters are more than inline may hold in all '
        "(1000000): use a bundle or imagePath",
    ),
]

_RELATIVE = (
    'must be a relative path of at most 255 characters without "..", "\\" and control characters, such as lib/model.py'
)
_KEY = 'must not contain "/" or control characters, as it is a segment of the path that calls the service'
_VARIABLE_NAME = 'must be letters, digits and "_", not beginning with a digit'
_ONE_VOLUME = (
    "must have exactly one source of configMap, secret, emptyDir, persistentVolumeClaim, projected, downwardAPI; no "
    "other source is supported"
)
_MOUNT = (
    "must not be /dev, /etc or anything in /etc/session-pools, /tmp, /proc, /sys, which Session Pools or the system "
    "need: use a directory of your own, such as /models"
)
_QUANTITY = "must be a quantity that is not negative, such as 2, 500m or 1Gi"
_LABEL = 'must be a label\'s value: at most 63 letters, digits, "-", "_" and ".", a letter or digit at both ends'
_OBJECT_NAME = 'must be the name of a Kubernetes object: lower-case letters, digits, "-" and ".", such as my-object'

_VALUES = [
    Refusal(
        "slash_in_service_name", pool(serviceName="a/b"), f'spec.serviceName: Invalid value: "string": "a/b" {_KEY}'
    ),
    Refusal(
        "line_break_in_service_name", pool(serviceName="a\nb"), f'spec.serviceName: Invalid value: "string": {_KEY}'
    ),
    Refusal(
        "dots_as_version",
        pool(serviceVersion=".."),
        'spec.serviceVersion: Invalid value: "string": ".." must not be "." or "..", which have a meaning of their '
        "own in a path",
    ),
    Refusal(
        "blank_around_service_name",
        pool(serviceName="Score "),
        'spec.serviceName: Invalid value: "string": "Score " must not begin or end with white space',
    ),
    Refusal("slash_in_version", service(version="1/2"), f'spec.version: Invalid value: "string": "1/2" {_KEY}'),
    Refusal(
        "image_with_blank",
        generic_pool(image="my image"),
        'spec.image: Invalid value: "string": "my image" must be the reference of an image, such as registry/path:tag, '
        "without white space",
    ),
    Refusal(
        "priority_class_in_capitals",
        pool(placement={"priorityClassName": "High"}),
        f'spec.placement.priorityClassName: Invalid value: "string": "High" {_OBJECT_NAME}',
    ),
    Refusal(
        "selector_key_with_blank",
        pool(placement={"nodeSelector": {"my disk": "ssd"}}),
        'spec.placement.nodeSelector: Invalid value: "object": "my disk" must be the key of a node label, such as '
        "kubernetes.io/arch",
    ),
    Refusal(
        "selector_value_with_blank",
        pool(placement={"nodeSelector": {"disk": "s s d"}}),
        f'spec.placement.nodeSelector[disk]: Invalid value: "string": "s s d" {_LABEL}',
    ),
    Refusal(
        "entrypoint_without_module",
        service(entrypoint="predict"),
        'spec.entrypoint: Invalid value: "string": "predict" must be module:function, such as service:predict for the '
        "function predict in service.py",
    ),
    Refusal(
        "init_with_arguments",
        service(init="service:load()"),
        'spec.init: Invalid value: "string": "service:load()" must be module:function',
    ),
    Refusal(
        "module_with_dash",
        service(modules=["numpy", "scikit-learn"]),
        'spec.modules[1]: Invalid value: "string": "scikit-learn" must be the name of a Python module as in an '
        "import, such as sklearn.svm",
    ),
    Refusal(
        "keyword_as_input",
        service(inputs=[{"name": "lambda", "type": "numeric"}]),
        'spec.inputs[0].name: Invalid value: "string": "lambda" must be a Python identifier, as it is the name of an '
        "argument or a variable, such as body_mass_index",
    ),
    Refusal(
        "output_file_outside",
        service(outputFiles=["../plot.png"]),
        f'spec.outputFiles[0]: Invalid value: "string": "../plot.png" {_RELATIVE}',
    ),
    Refusal(
        "file_name_outside",
        _code(inline={"service.py": "", "/etc/passwd": ""}),
        f'spec.code.inline: Invalid value: "object": file name "/etc/passwd" {_RELATIVE}',
    ),
    Refusal(
        "image_path_that_is_relative",
        _code(imagePath="app"),
        'spec.code.imagePath: Invalid value: "string": "app" must be an absolute directory in the image without '
        '"..", such as /app',
    ),
    Refusal(
        "bundle_without_scheme",
        _code(bundle={"url": "host/bundle.tar.gz", "sha256": "0" * 64}),
        'spec.code.bundle.url: Invalid value: "string": "host/bundle.tar.gz" must be a URL with a scheme and without '
        "white space, such as https://host/path/bundle.tar.gz",
    ),
    Refusal(
        "bundle_with_half_a_digest",
        _code(bundle={"url": "https://host/bundle.tar.gz", "sha256": "0" * 32}),
        f'spec.code.bundle.sha256: Invalid value: "string": "{"0" * 32}" must be a SHA-256 digest: 64 lower-case '
        "hexadecimal digits",
    ),
    Refusal(
        "variable_with_dash",
        _variable(name="MY-MODEL"),
        f'spec.env[0].name: Invalid value: "string": "MY-MODEL" {_VARIABLE_NAME}',
    ),
    Refusal(
        "variable_of_the_product",
        _variable(name="SESSIONPOOLS_POOL"),
        'spec.env[0].name: Invalid value: "string": "SESSIONPOOLS_POOL" must not begin with SESSIONPOOLS_, which is '
        "kept for Session Pools itself",
    ),
    Refusal(
        "variable_with_two_values",
        _variable(value="a", valueFrom={"fieldRef": {"fieldPath": "spec.nodeName"}}),
        'spec.env[0]: Invalid value: "object": variable MODEL has both value and valueFrom: give one of them',
    ),
    Refusal(
        "variable_from_two_places",
        _variable(
            valueFrom={"fieldRef": {"fieldPath": "spec.nodeName"}, "secretKeyRef": {"name": "keys", "key": "token"}}
        ),
        'spec.env[0].valueFrom: Invalid value: "object": must have exactly one of configMapKeyRef, secretKeyRef, '
        "fieldRef and resourceFieldRef",
    ),
    Refusal(
        "variables_from_nowhere",
        service(envFrom=[{"prefix": "A_"}]),
        'spec.envFrom[0]: Invalid value: "object": must have exactly one of configMapRef and secretRef',
    ),
    Refusal(
        "prefix_that_is_no_name",
        service(envFrom=[{"prefix": "1-", "secretRef": {"name": "keys"}}]),
        f'spec.envFrom[0].prefix: Invalid value: "string": "1-" {_VARIABLE_NAME}',
    ),
    Refusal(
        "prefix_of_the_product",
        service(envFrom=[{"prefix": "SESSIONPOOLS_", "secretRef": {"name": "keys"}}]),
        'spec.envFrom[0].prefix: Invalid value: "string": "SESSIONPOOLS_" must not begin with SESSIONPOOLS_, which '
        "is kept for Session Pools itself",
    ),
    Refusal(
        "volume_without_source",
        _volume(),
        f'spec.volumes[0]: Invalid value: "object": volume models {_ONE_VOLUME}',
    ),
    Refusal(
        "volume_with_two_sources",
        _volume(emptyDir={}, secret={"secretName": "keys"}),
        f'spec.volumes[0]: Invalid value: "object": volume models {_ONE_VOLUME}',
    ),
    Refusal(
        "volume_name_in_capitals",
        _volume(name="Models", emptyDir={}),
        'spec.volumes[0].name: Invalid value: "string": "Models" must be lower-case letters, digits and "-", such as '
        "model-data",
    ),
    Refusal(
        "volume_of_the_product",
        _volume(name="session-pools-code", emptyDir={}),
        'spec.volumes[0].name: Invalid value: "string": "session-pools-code" must not begin with session-pools, '
        "which is kept for Session Pools itself",
    ),
    Refusal(
        "projection_of_nothing",
        _projected(),
        'spec.volumes[0].projected.sources[0]: Invalid value: "object": must have exactly one of configMap, secret and '
        "downwardAPI; no other source is supported",
    ),
    Refusal(
        "downward_file_of_nothing",
        _volume(downwardAPI={"items": [{"path": "labels"}]}),
        'spec.volumes[0].downwardAPI.items[0]: Invalid value: "object": must have exactly one of fieldRef and '
        "resourceFieldRef",
    ),
    Refusal(
        "projected_downward_file_of_nothing",
        _projected(downwardAPI={"items": [{"path": "labels"}]}),
        'spec.volumes[0].projected.sources[0].downwardAPI.items[0]: Invalid value: "object": must have exactly one of '
        "fieldRef and resourceFieldRef",
    ),
    Refusal(
        "mount_below_config",
        _mount("/etc/session-pools/code"),
        f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/etc/session-pools/code" {_MOUNT}',
    ),
    Refusal(
        "mount_of_tmp", _mount("/tmp"), f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/tmp" {_MOUNT}'
    ),
    Refusal(
        "mount_of_etc", _mount("/etc"), f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/etc" {_MOUNT}'
    ),
    Refusal(
        "mount_that_climbs",
        _mount("/models/../tmp"),
        'spec.volumeMounts[0].mountPath: Invalid value: "string": "/models/../tmp" must be an absolute path without '
        '"..", ":" and a "/" at the end, such as /models',
    ),
    Refusal(
        "sub_path_that_climbs",
        _mount("/models", subPath="../secrets"),
        f'spec.volumeMounts[0].subPath: Invalid value: "string": "../secrets" {_RELATIVE}',
    ),
    Refusal(
        "unknown_resource",
        service(resources={"limits": {"mem": "1Gi"}}),
        'spec.resources.limits: Invalid value: "object": there is no resource mem: use cpu, memory, '
        "ephemeral-storage or a domain's, such as nvidia.com/gpu",
    ),
    Refusal(
        "quantity_with_a_wrong_unit",
        service(resources={"limits": {"memory": "1GB"}}),
        f'spec.resources.limits[memory]: Invalid value: "": "1GB" {_QUANTITY}',
    ),
    Refusal(
        "negative_quantity",
        service(resources={"requests": {"cpu": -1}}),
        f'spec.resources.requests[cpu]: Invalid value: "": "-1" {_QUANTITY}',
    ),
    Refusal(
        "object_name_with_dot",
        pool("my.pool"),
        'metadata.name "my.pool" must be a DNS label, at most 63 lower-case letters, digits and "-"; only the name '
        "of the web service, in spec, is free",
    ),
    Refusal("object_name_too_long", service(LONG_NAME), f'metadata.name "{LONG_NAME}" must be a DNS label'),
    Refusal(
        "pull_secret_in_capitals",
        service(imagePullSecrets=[{"name": "Regcred"}]),
        f'spec.imagePullSecrets[0].name: Invalid value: "string": "Regcred" {_OBJECT_NAME}',
    ),
]


def _more(field: str, limit: int) -> str:
    return f"{field}: Invalid value: {limit + 1}: {field} in body should be less than or equal to {limit}"


def _less(field: str, limit: int) -> str:
    return f"{field}: Invalid value: {limit - 1}: {field} in body should be greater than or equal to {limit}"


_BOUNDS = [
    Refusal("negative_initial", pool(initialPoolSize=-1), _less("spec.initialPoolSize", 0)),
    Refusal("negative_max", pool(maxPoolSize=-1), _less("spec.maxPoolSize", 0)),
    Refusal("max_too_large", pool(maxPoolSize=1001), _more("spec.maxPoolSize", 1000)),
    Refusal("no_idle_time", pool(idleTimeoutSeconds=0), _less("spec.idleTimeoutSeconds", 1)),
    Refusal("no_request_time", pool(requestTimeoutSeconds=0), _less("spec.requestTimeoutSeconds", 1)),
    Refusal("start_in_more_than_a_day", pool(startTimeoutSeconds=86_401), _more("spec.startTimeoutSeconds", 86_400)),
    Refusal("negative_recycling", pool(recycleAfterRequests=-1), _less("spec.recycleAfterRequests", 0)),
    Refusal("negative_queue", pool(queue={"maxLength": -1}), _less("spec.queue.maxLength", 0)),
    Refusal("no_queue_time", pool(queue={"timeoutSeconds": 0}), _less("spec.queue.timeoutSeconds", 1)),
    Refusal("no_initial", pool(initialPoolSize=None), "spec.initialPoolSize: Required value"),
    Refusal("no_max", pool(maxPoolSize=None), "spec.maxPoolSize: Required value"),
    Refusal(
        "empty_service_name",
        pool(serviceName=""),
        'spec.serviceName: Invalid value: "": spec.serviceName in body should be at least 1 chars long',
    ),
    Refusal(
        "service_name_too_long",
        pool(serviceName="n" * 129),
        "spec.serviceName: Too long: may not be more than 128 bytes",
    ),
    Refusal(
        "unknown_isolation",
        pool(isolation="Thread"),
        'spec.isolation: Unsupported value: "Thread": supported values: "Pod", "Process"',
    ),
    Refusal(
        "size_as_text",
        pool(maxPoolSize="10"),
        'spec.maxPoolSize: Invalid value: "string": spec.maxPoolSize in body must be of type integer: "string"',
    ),
    Refusal(
        "unknown_type_of_input",
        service(inputs=[{"name": "bmi", "type": "float"}]),
        'spec.inputs[0].type: Unsupported value: "float": supported values: "numeric", "integer", "logical", '
        '"character", "vector", "matrix", "data.frame"',
    ),
    Refusal(
        "two_inputs_of_one_name",
        service(inputs=[{"name": "bmi", "type": "numeric"}] * 2),
        'spec.inputs[1]: Duplicate value: {"name":"bmi"}',
    ),
    Refusal(
        "empty_inline",
        _code(inline={}),
        "spec.code.inline: Invalid value: 0: spec.code.inline in body should have at least 1 properties",
    ),
    Refusal(
        "file_too_long",
        _code(inline={"service.py": "#" * (512 * 1024 + 1)}),
        "spec.code.inline.service.py: Too long: may not be more than 524288 bytes",
    ),
    Refusal(
        "field_of_the_pod_that_is_not_offered",
        _variable(valueFrom={"fieldRef": {"fieldPath": "spec.hostname"}}),
        'spec.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.hostname"',
    ),
]

REFUSALS = [*_BETWEEN_FIELDS, *_VALUES, *_BOUNDS]
