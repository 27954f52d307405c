"""Values that the API server refuses by themselves, as what they are for cannot be so named or so large."""

from support.kinds import (
    LONG_NAME,
    generic_pool,
    pool,
    service,
    with_code,
    with_mount,
    with_projected,
    with_variable,
    with_volume,
)
from support.refusal import Refusal

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

VALUES = [
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
        with_code(inline={"service.py": "", "/etc/passwd": ""}),
        f'spec.code.inline: Invalid value: "object": file name "/etc/passwd" {_RELATIVE}',
    ),
    Refusal(
        "image_path_that_is_relative",
        with_code(imagePath="app"),
        'spec.code.imagePath: Invalid value: "string": "app" must be an absolute directory in the image without '
        '"..", such as /app',
    ),
    Refusal(
        "bundle_without_scheme",
        with_code(bundle={"url": "host/bundle.tar.gz", "sha256": "0" * 64}),
        'spec.code.bundle.url: Invalid value: "string": "host/bundle.tar.gz" must be a URL with a scheme and without '
        "white space, such as https://host/path/bundle.tar.gz",
    ),
    Refusal(
        "bundle_with_half_a_digest",
        with_code(bundle={"url": "https://host/bundle.tar.gz", "sha256": "0" * 32}),
        f'spec.code.bundle.sha256: Invalid value: "string": "{"0" * 32}" must be a SHA-256 digest: 64 lower-case '
        "hexadecimal digits",
    ),
    Refusal(
        "variable_with_dash",
        with_variable(name="MY-MODEL"),
        f'spec.env[0].name: Invalid value: "string": "MY-MODEL" {_VARIABLE_NAME}',
    ),
    Refusal(
        "variable_of_the_product",
        with_variable(name="SESSIONPOOLS_POOL"),
        'spec.env[0].name: Invalid value: "string": "SESSIONPOOLS_POOL" must not begin with SESSIONPOOLS_, which is '
        "kept for Session Pools itself",
    ),
    Refusal(
        "variable_with_two_values",
        with_variable(value="a", valueFrom={"fieldRef": {"fieldPath": "spec.nodeName"}}),
        'spec.env[0]: Invalid value: "object": variable MODEL has both value and valueFrom: give one of them',
    ),
    Refusal(
        "variable_from_two_places",
        with_variable(
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
        with_volume(),
        f'spec.volumes[0]: Invalid value: "object": volume models {_ONE_VOLUME}',
    ),
    Refusal(
        "volume_with_two_sources",
        with_volume(emptyDir={}, secret={"secretName": "keys"}),
        f'spec.volumes[0]: Invalid value: "object": volume models {_ONE_VOLUME}',
    ),
    Refusal(
        "volume_name_in_capitals",
        with_volume(name="Models", emptyDir={}),
        'spec.volumes[0].name: Invalid value: "string": "Models" must be lower-case letters, digits and "-", such as '
        "model-data",
    ),
    Refusal(
        "volume_of_the_product",
        with_volume(name="session-pools-code", emptyDir={}),
        'spec.volumes[0].name: Invalid value: "string": "session-pools-code" must not begin with session-pools, '
        "which is kept for Session Pools itself",
    ),
    Refusal(
        "projection_of_nothing",
        with_projected(),
        'spec.volumes[0].projected.sources[0]: Invalid value: "object": must have exactly one of configMap, secret and '
        "downwardAPI; no other source is supported",
    ),
    Refusal(
        "downward_file_of_nothing",
        with_volume(downwardAPI={"items": [{"path": "labels"}]}),
        'spec.volumes[0].downwardAPI.items[0]: Invalid value: "object": must have exactly one of fieldRef and '
        "resourceFieldRef",
    ),
    Refusal(
        "projected_downward_file_of_nothing",
        with_projected(downwardAPI={"items": [{"path": "labels"}]}),
        'spec.volumes[0].projected.sources[0].downwardAPI.items[0]: Invalid value: "object": must have exactly one of '
        "fieldRef and resourceFieldRef",
    ),
    Refusal(
        "mount_below_config",
        with_mount("/etc/session-pools/code"),
        f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/etc/session-pools/code" {_MOUNT}',
    ),
    Refusal(
        "mount_of_tmp", with_mount("/tmp"), f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/tmp" {_MOUNT}'
    ),
    Refusal(
        "mount_of_etc", with_mount("/etc"), f'spec.volumeMounts[0].mountPath: Invalid value: "string": "/etc" {_MOUNT}'
    ),
    Refusal(
        "mount_that_climbs",
        with_mount("/models/../tmp"),
        'spec.volumeMounts[0].mountPath: Invalid value: "string": "/models/../tmp" must be an absolute path without '
        '"..", ":" and a "/" at the end, such as /models',
    ),
    Refusal(
        "sub_path_that_climbs",
        with_mount("/models", subPath="../secrets"),
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
