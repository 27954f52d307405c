"""Schemas of the parts of a pod that a WebService may set: subsets of the Kubernetes types of the same names.

The policy: what a web service needs, and nothing that reaches the node or an identity. Volumes are configMap, secret,
emptyDir, persistentVolumeClaim, downwardAPI and projected from these; no hostPath, csi, ephemeral or network volume and
no serviceAccountToken. No lifecycle hooks, probes, security contexts, commands or host settings: the product sets them.
The objects stay raw JSON (`dict`) in the models, as they are only handed on to the API server.
"""

from sessionpools.api.names import CONFIG_DIR, ENV_PREFIX, VOLUME_PREFIX, WORK_DIR
from sessionpools.api.scalars import FILE_RULE, OBJECT_NAME_RULE, RELATIVE_PATH, dns_label, quantity
from sessionpools.api.schema import RULES, JsonSchema, array, flag, must, number, record, rule, text


def _one_of(*fields: str) -> str:
    """CEL: exactly one of the fields is there."""
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(given, given).size() == 1"


def _name(of: str) -> JsonSchema:
    return text(253, f"metadata.name of the {of}.", OBJECT_NAME_RULE, minLength=1)


def _key(of: str) -> JsonSchema:
    return text(253, f"Key in the {of}'s data.", pattern="^[-._a-zA-Z0-9]+$")


_OPTIONAL = flag("Whether a session starts although it does not exist.")
_MODE = number(0, 0o777, "Permission bits, in decimal (0644 is 420).")
_PATH = text(255, "Relative path of the file in the volume.", pattern=RELATIVE_PATH)

_RESOURCE_FIELD = record(
    "A request or limit of the session's container.",
    required=("resource",),
    resource=text(64, "limits.cpu, limits.memory, requests.cpu, requests.memory, or the same with ephemeral-storage.")
    | {"enum": [f"{of}.{what}" for of in ("limits", "requests") for what in ("cpu", "memory", "ephemeral-storage")]},
    divisor=quantity("Unit of the value, 1 if absent."),
)


def _field(description: str, expression: str) -> JsonSchema:
    return record(
        "A field of the session pod.",
        required=("fieldPath",),
        apiVersion=text(16, "v1."),
        fieldPath=text(512, description, pattern=f"^({expression})$"),
    )


_METADATA_ENTRY = r"metadata\.(labels|annotations)\['[^']+'\]"
_ENV_FIELD = _field(
    "metadata.name, metadata.namespace, metadata.uid, metadata.labels['key'], metadata.annotations['key'], "
    "spec.nodeName, spec.serviceAccountName, status.podIP, status.podIPs, status.hostIP or status.hostIPs.",
    r"metadata\.(name|namespace|uid)|spec\.(nodeName|serviceAccountName)|status\.(podIPs?|hostIPs?)|" + _METADATA_ENTRY,
)
_VOLUME_FIELD = _field(
    "metadata.name, metadata.namespace, metadata.uid, metadata.labels, metadata.annotations, metadata.labels['key'] or "
    "metadata.annotations['key'].",
    r"metadata\.(name|namespace|uid|labels|annotations)|" + _METADATA_ENTRY,
)


# --- environment ----------------------------------------------------------------------------------------------

_VARIABLE_NAME = 'be letters, digits and "_", not beginning with a digit'
_VARIABLE = [
    must("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')", _VARIABLE_NAME),
    must(f"!self.startsWith('{ENV_PREFIX}')", f"not begin with {ENV_PREFIX}, which is kept for Session Pools itself"),
]

ENV = array(
    256,
    record(
        "An environment variable.",
        rule(
            "!(has(self.value) && self.value != '' && has(self.valueFrom))",
            "variable %s has both value and valueFrom: give one of them",
            "self.name",
        ),
        required=("name",),
        name=text(256, "Name of the variable.", *_VARIABLE, minLength=1),
        value=text(32768, "Value of the variable."),
        valueFrom=record(
            "Where the value comes from; exactly one of the fields.",
            rule(
                _one_of("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"),
                "must have exactly one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef",
            ),
            configMapKeyRef=record(
                "A key of a ConfigMap.",
                required=("name", "key"),
                name=_name("ConfigMap"),
                key=_key("ConfigMap"),
                optional=_OPTIONAL,
            ),
            secretKeyRef=record(
                "A key of a Secret.",
                required=("name", "key"),
                name=_name("Secret"),
                key=_key("Secret"),
                optional=_OPTIONAL,
            ),
            fieldRef=_ENV_FIELD,
            resourceFieldRef=_RESOURCE_FIELD,
        ),
    ),
    "Environment variables of the sessions, as in a container.",
    key="name",
)

ENV_FROM = array(
    32,
    record(
        "A ConfigMap or Secret whose keys become variables.",
        rule(_one_of("configMapRef", "secretRef"), "must have exactly one of configMapRef and secretRef"),
        prefix=text(
            128,
            "Put before each key.",
            must("self == '' || self.matches('^[A-Za-z_][A-Za-z0-9_]*$')", _VARIABLE_NAME),
            _VARIABLE[1],
        ),
        configMapRef=record("A ConfigMap.", required=("name",), name=_name("ConfigMap"), optional=_OPTIONAL),
        secretRef=record("A Secret.", required=("name",), name=_name("Secret"), optional=_OPTIONAL),
    ),
    "ConfigMaps and Secrets whose keys become environment variables of the sessions, as in a container.",
)


# --- volumes --------------------------------------------------------------------------------------------------


def _items(of: str) -> JsonSchema:
    return array(
        64,
        record("A key and its file.", required=("key", "path"), key=_key(of), path=_PATH, mode=_MODE),
        "The keys that become files; absent: all of them.",
    )


_DOWNWARD_ITEMS = array(
    16,
    record(
        "A file that holds a field of the pod.",
        rule(_one_of("fieldRef", "resourceFieldRef"), "must have exactly one of fieldRef and resourceFieldRef"),
        required=("path",),
        path=_PATH,
        fieldRef=_VOLUME_FIELD,
        resourceFieldRef=_RESOURCE_FIELD,
        mode=_MODE,
    ),
    "The files.",
)

SOURCES = ("configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI")

VOLUMES = array(
    32,
    record(
        "A volume; exactly one of the sources.",
        rule(
            _one_of(*SOURCES),
            f"volume %s must have exactly one source of {', '.join(SOURCES)}; no other source is supported",
            "self.name",
        ),
        required=("name",),
        name=text(
            63,
            "Name of the volume.",
            must(dns_label(), 'be lower-case letters, digits and "-", such as model-data'),
            must(
                f"!self.startsWith('{VOLUME_PREFIX}')",
                f"not begin with {VOLUME_PREFIX}, which is kept for Session Pools itself",
            ),
        ),
        configMap=record(
            "A ConfigMap, a file per key.",
            required=("name",),
            name=_name("ConfigMap"),
            items=_items("ConfigMap"),
            defaultMode=_MODE,
            optional=_OPTIONAL,
        ),
        secret=record(
            "A Secret, a file per key.",
            required=("secretName",),
            secretName=_name("Secret"),
            items=_items("Secret"),
            defaultMode=_MODE,
            optional=_OPTIONAL,
        ),
        emptyDir=record(
            "An empty directory that lives as long as the session pod.",
            medium=text(16, "Memory: in memory; absent: on the node's disk.") | {"enum": ["", "Memory"]},
            sizeLimit=quantity("The most it may hold."),
        ),
        persistentVolumeClaim=record(
            "A claim; sessions on several nodes need one that several nodes can mount.",
            required=("claimName",),
            claimName=_name("PersistentVolumeClaim"),
            readOnly=flag("Whether it is mounted read-only."),
        ),
        projected=record(
            "Several sources in one directory.",
            required=("sources",),
            sources=array(
                16,
                record(
                    "A source; exactly one of the fields.",
                    rule(
                        _one_of("configMap", "secret", "downwardAPI"),
                        "must have exactly one of configMap, secret and downwardAPI; no other source is supported",
                    ),
                    configMap=record(
                        "A ConfigMap.",
                        required=("name",),
                        name=_name("ConfigMap"),
                        items=_items("ConfigMap"),
                        optional=_OPTIONAL,
                    ),
                    secret=record(
                        "A Secret.",
                        required=("name",),
                        name=_name("Secret"),
                        items=_items("Secret"),
                        optional=_OPTIONAL,
                    ),
                    downwardAPI=record("Fields of the pod.", items=_DOWNWARD_ITEMS),
                ),
                "The sources.",
            ),
            defaultMode=_MODE,
        ),
        downwardAPI=record("Fields of the pod, a file each.", items=_DOWNWARD_ITEMS, defaultMode=_MODE),
    ),
    f"Volumes of the session pods, as in a pod: {', '.join(SOURCES)}.",
    key="name",
)

_TAKEN = [CONFIG_DIR, WORK_DIR, "/proc", "/sys"]
_FREE = " && ".join(f"!(self + '/').startsWith('{path}/')" for path in _TAKEN)

VOLUME_MOUNTS = array(
    64,
    record(
        "Where a volume is mounted.",
        required=("name", "mountPath"),
        name=text(63, "Name of the volume."),
        mountPath=text(
            1024,
            "Absolute directory in the session's container.",
            must(
                r"self.matches(r'^(/[^/:\x00-\x1f\x7f]+)+$') && !(self + '/').matches(r'/\.\.?/')",
                'be an absolute path without "..", ":" and a "/" at the end, such as /models',
            ),
            must(
                f"{_FREE} && !(self in ['/dev', '/etc'])",
                f"not be /dev, /etc or anything in {', '.join(_TAKEN)}, which Session Pools or the system need: use a "
                "directory of your own, such as /models",
            ),
        ),
        subPath=text(255, "Path in the volume that is mounted; absent: all of it.", FILE_RULE),
        readOnly=flag("Whether it is mounted read-only."),
    ),
    "Where the volumes are mounted, as in a container.",
    key="mountPath",
)


# --- resources ------------------------------------------------------------------------------------------------


_KNOWN = "(k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-') || k.contains('/'))"


def _amounts(description: str) -> JsonSchema:
    return {
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity("An amount."),
        "description": description,
        RULES: [
            rule(
                f"self.all(k, {_KNOWN})",
                "there is no resource %s: use cpu, memory, ephemeral-storage or a domain's, such as nvidia.com/gpu",
                f"self.filter(k, !{_KNOWN})[0]",
            )
        ],
    }


_EXCEEDS = "k in self.limits && quantity(string(self.requests[k])).isGreaterThan(quantity(string(self.limits[k])))"

RESOURCES = record(
    "Requests and limits of one session, as in a container.",
    rule(
        f"!has(self.requests) || !has(self.limits) || !self.requests.exists(k, {_EXCEEDS})",
        "the request for %s must not exceed its limit",
        f"self.requests.filter(k, {_EXCEEDS})[0]",
        path=".requests",
    ),
    requests=_amounts("What is set aside for a session."),
    limits=_amounts("The most that a session may use."),
)
