"""What the API server refuses, and what its user reads: one row per rule of the kinds, the rules of
single values in refused_values.py.

`tests/contract/test_crd_validation.py` puts every row to a real API server; `tests/unit/api` proves that no rule of the
CRDs is without a row.
"""

from support.kinds import generic_pool, pool, service, with_code, with_toleration, with_variable
from support.refusal import Refusal
from support.refused_values import VALUES

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
        "rollout_of_process_pods_that_cannot_move",
        pool(isolation="Process", initialPoolSize=5, update={"maxSurge": 0, "maxUnavailable": 4}),
        'spec.update: Invalid value: "object": maxUnavailable (4) must be at least initialPoolSize (5) '
        "where isolation is Process and maxSurge 0, as all sessions of a node are one pod: raise it or set maxSurge "
        "to 1",
    ),
    Refusal(
        "toleration_value_with_exists",
        with_toleration(key="gpu", operator="Exists", value="yes"),
        'spec.placement.tolerations[0].value: Invalid value: "object": value must be empty with operator Exists, '
        "which does not compare it",
    ),
    Refusal(
        "toleration_of_everything_with_equal",
        with_toleration(value="yes"),
        'spec.placement.tolerations[0].operator: Invalid value: "object": operator must be Exists when key is empty, '
        "which then tolerates every taint",
    ),
    Refusal(
        "toleration_for_a_time_that_never_ends",
        with_toleration(key="gpu", effect="NoSchedule", tolerationSeconds=5),
        'spec.placement.tolerations[0].effect: Invalid value: "object": effect must be NoExecute when '
        "tolerationSeconds is given",
    ),
    Refusal(
        "no_code",
        with_code(),
        'spec.code: Invalid value: "object": exactly one of inline, configMap, bundle and imagePath must be given',
    ),
    Refusal(
        "two_codes",
        with_code(imagePath="/app", configMap={"name": "code"}),
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
        with_code(inline={f"f{n}.py": "" for n in range(200)}),
        'spec.code.inline: Invalid value: "object": 200 files are more than inline may hold (64): use a bundle or '
        "imagePath",
    ),
    Refusal(
        "too_many_characters",
        with_code(inline={f"f{n}.py": "#" * 500_000 for n in range(2)} | {"service.py": "#"}),
        'spec.code.inline: Invalid value: "object": 1000001 characters are more than inline may hold in all '
        "(1000000): use a bundle or imagePath",
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
        with_code(inline={}),
        "spec.code.inline: Invalid value: 0: spec.code.inline in body should have at least 1 properties",
    ),
    Refusal(
        "file_too_long",
        with_code(inline={"service.py": "#" * (512 * 1024 + 1)}),
        "spec.code.inline.service.py: Too long: may not be more than 524288 bytes",
    ),
    Refusal(
        "field_of_the_pod_that_is_not_offered",
        with_variable(valueFrom={"fieldRef": {"fieldPath": "spec.hostname"}}),
        'spec.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.hostname"',
    ),
]

REFUSALS = [*_BETWEEN_FIELDS, *VALUES, *_BOUNDS]
