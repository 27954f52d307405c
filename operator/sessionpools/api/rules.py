"""The rules that hold between fields of the kinds, in CEL, with what a user reads who breaks one.

Rules of a single string stand with its type in `scalars`, those of pod fields in `podfields`. What needs more than the
object itself (does the web service exist? is the ConfigMap there?) is for the controller to say in a condition.
"""

from sessionpools.api.scalars import RELATIVE_PATH_MESSAGE, dns_label, relative_path
from sessionpools.api.schema import JsonSchema, rule

# Inline code is copied into a ConfigMap, which holds 1 MiB. CEL counts characters, not bytes: the controller has the
# last word for code that is not ASCII.
MAX_INLINE_FILES = 64
MAX_INLINE_CHARACTERS = 1_000_000


def _immutable(field: str) -> JsonSchema:
    return rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} is immutable: create another object for another service or version",
        path=f".{field}",
        forbidden=True,
    )


# The object's own name becomes a part of labels and of other objects' names.
OBJECT = [
    rule(
        dns_label("self.metadata.name"),
        'metadata.name "%s" must be a DNS label, at most 63 lower-case letters, digits and "-"; only the name of the '
        "web service, in spec, is free",
        "self.metadata.name",
    )
]

# --- SessionPool ----------------------------------------------------------------------------------------------

SESSION_POOL = [
    rule(
        "has(self.serviceName) == has(self.serviceVersion)",
        "serviceName and serviceVersion belong together: give both for a dedicated pool, neither for the generic pool",
    ),
    _immutable("serviceName"),
    _immutable("serviceVersion"),
    rule(
        "self.initialPoolSize <= self.maxPoolSize",
        "initialPoolSize (%d) must not exceed maxPoolSize (%d): lower the one or raise the other",
        "self.initialPoolSize",
        "self.maxPoolSize",
        path=".initialPoolSize",
    ),
    rule(
        "self.drainTimeoutSeconds >= self.requestTimeoutSeconds",
        "drainTimeoutSeconds (%d) must be at least requestTimeoutSeconds (%d), or a rollout would cut calls off: "
        "raise the one or lower the other",
        "self.drainTimeoutSeconds",
        "self.requestTimeoutSeconds",
        path=".drainTimeoutSeconds",
    ),
    rule(
        "self.isolation != 'Process' || self.update.maxSurge > 0 || self.update.maxUnavailable >= self.initialPoolSize",
        "maxUnavailable (%d) must be at least initialPoolSize (%d) where isolation is Process and maxSurge 0, as all "
        "sessions of a node are one pod: raise it or set maxSurge to 1",
        "self.update.maxUnavailable",
        "self.initialPoolSize",
        path=".update",
    ),
    rule(
        "has(self.serviceName) || self.isolation == 'Pod'",
        "the generic pool (without serviceName) must have isolation Pod, as it runs the code of several services",
        path=".isolation",
    ),
    rule(
        "!has(self.serviceName) || !has(self.image) || self.image == ''",
        "image is for the generic pool only: a dedicated pool takes spec.image of its WebService",
        path=".image",
        forbidden=True,
    ),
]

UPDATE = [
    rule(
        "self.maxSurge + self.maxUnavailable > 0",
        "maxSurge and maxUnavailable must not both be 0, as no session could ever be replaced: set one of them to 1",
        path=".maxSurge",
    )
]

TOLERATION = [
    rule(
        "self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "value must be empty with operator Exists, which does not compare it",
        path=".value",
    ),
    rule(
        "self.operator == 'Exists' || (has(self.key) && self.key != '')",
        "operator must be Exists when key is empty, which then tolerates every taint",
        path=".operator",
    ),
    rule(
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "effect must be NoExecute when tolerationSeconds is given",
        path=".effect",
    ),
]

_LABEL_KEY = "(size(k) <= 317 && k.matches('^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))"

NODE_SELECTOR = [
    rule(
        f"self.all(k, {_LABEL_KEY})",
        '"%s" must be the key of a node label, such as kubernetes.io/arch',
        f"self.filter(k, !{_LABEL_KEY})[0]",
    )
]

# --- WebService -----------------------------------------------------------------------------------------------

WEB_SERVICE = [
    _immutable("name"),
    _immutable("version"),
    rule(
        "(has(self.entrypoint) && self.entrypoint != '') != (has(self.script) && self.script != '')",
        "exactly one of entrypoint (module:function) and script (a file of the code) must be given",
    ),
    rule(
        "!has(self.script) || self.script == '' || !has(self.code.inline) || self.script in self.code.inline",
        'script "%s" is not among the files of code.inline',
        "self.script",
        path=".script",
    ),
    rule(
        "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
        "self.volumes.exists(v, v.name == m.name))",
        'there is no volume named "%s": add it to spec.volumes',
        "self.volumeMounts.filter(m, !has(self.volumes) || !self.volumes.exists(v, v.name == m.name))[0].name",
        path=".volumeMounts",
    ),
]

_SOURCES = "has(self.inline), has(self.configMap), has(self.bundle), has(self.imagePath) && self.imagePath != ''"

CODE = [
    rule(
        f"[{_SOURCES}].filter(given, given).size() == 1",
        "exactly one of inline, configMap, bundle and imagePath must be given",
    )
]

INLINE = [
    rule(
        f"size(self) <= {MAX_INLINE_FILES}",
        f"%d files are more than inline may hold ({MAX_INLINE_FILES}): use a bundle or imagePath",
        "size(self)",
    ),
    rule(
        f"self.all(k, {relative_path('k')})",
        f'file name "%s" must {RELATIVE_PATH_MESSAGE}',
        f"self.filter(k, !({relative_path('k')}))[0]",
    ),
    rule(
        f"self.map(k, size(self[k])).sum() <= {MAX_INLINE_CHARACTERS}",
        f"%d characters are more than inline may hold in all ({MAX_INLINE_CHARACTERS}): use a bundle or imagePath",
        "self.map(k, size(self[k])).sum()",
    ),
]
