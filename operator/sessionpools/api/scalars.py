"""The strings and numbers that the kinds are made of, with what the API server checks and says about each.

A user reads `spec.entrypoint: Invalid value: "string": "predict" must be module:function, such as ...`; what stands
before the second quote is the API server's. An empty string means "not given" and passes where a field is optional.
"""

from typing import Annotated

from sessionpools.api.schema import INT_OR_STRING, RULES, JsonSchema, Schema, must

# Regular expressions are RE2, in CEL strings (r'...' where they hold a backslash).
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IDENTIFIER = r"[\p{L}_][\p{L}\p{N}\p{M}_]*"
# May begin with one dot, not with two: as ConfigMap volumes have it.
_SEGMENT = r"\.?[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
RELATIVE_PATH = f"^{_SEGMENT}(/{_SEGMENT})*$"
_MODULE = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"

_KEYWORDS = (
    "['False','None','True','and','as','assert','async','await','break','class','continue','def','del','elif','else',"
    "'except','finally','for','from','global','if','import','in','is','lambda','nonlocal','not','or','pass','raise',"
    "'return','try','while','with','yield']"
)


def dns_label(what: str = "self") -> str:
    """CEL: `what` is a DNS label."""
    return f"{what}.matches('^{_LABEL}$') && size({what}) <= 63"


def relative_path(what: str) -> str:
    """CEL: `what` is a relative path that stays below where it starts."""
    return f"{what}.matches(r'{RELATIVE_PATH}') && size({what}) <= 255"


RELATIVE_PATH_MESSAGE = (
    'be a relative path of at most 255 characters without "..", "\\" and control characters, such as lib/model.py'
)
OBJECT_NAME_RULE = must(
    rf"self == '' || self.matches(r'^{_LABEL}(\.{_LABEL})*$')",
    'be the name of a Kubernetes object: lower-case letters, digits, "-" and ".", such as my-object',
)
FILE_RULE = must(f"self == '' || ({relative_path('self')})", RELATIVE_PATH_MESSAGE)

# A service's name and version are segments of the path under which it is called, and nothing else: everything that a
# percent-encoded path segment can carry is allowed.
ServiceKey = Annotated[
    str,
    Schema(
        must(
            r"!self.matches(r'[/\x00-\x1f\x7f-\x9f]')",
            'not contain "/" or control characters, as it is a segment of the path that calls the service',
        ),
        must("!(self in ['.', '..'])", 'not be "." or "..", which have a meaning of their own in a path'),
        must("self == self.trim()", "not begin or end with white space"),
        minLength=1,
        maxLength=128,
    ),
]
Image = Annotated[
    str,
    Schema(
        must(r"!self.matches(r'\s')", "be the reference of an image, such as registry/path:tag, without white space"),
        maxLength=512,
    ),
]
ObjectName = Annotated[str, Schema(OBJECT_NAME_RULE, maxLength=253)]
RequiredObjectName = Annotated[str, Schema(OBJECT_NAME_RULE, minLength=1, maxLength=253)]
Identifier = Annotated[
    str,
    Schema(
        must(
            rf"self.matches(r'^{_IDENTIFIER}$') && !(self in {_KEYWORDS})",
            "be a Python identifier, as it is the name of an argument or a variable, such as body_mass_index",
        ),
        maxLength=128,
    ),
]
Module = Annotated[
    str,
    Schema(
        must(rf"self.matches(r'^{_MODULE}$')", "be the name of a Python module as in an import, such as sklearn.svm"),
        maxLength=255,
    ),
]
Function = Annotated[
    str,
    Schema(
        must(
            rf"self == '' || self.matches(r'^{_MODULE}:{_IDENTIFIER}$')",
            "be module:function, such as service:predict for the function predict in service.py",
        ),
        maxLength=255,
    ),
]
File = Annotated[str, Schema(FILE_RULE, maxLength=255)]
ImageDirectory = Annotated[
    str,
    Schema(
        must(
            r"self == '' || (self.matches(r'^/[^\x00-\x1f\x7f]+$') && !(self + '/').contains('/../'))",
            'be an absolute directory in the image without "..", such as /app',
        ),
        maxLength=1024,
    ),
]
LabelValue = Annotated[
    str,
    Schema(
        must(
            "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
            'be a label\'s value: at most 63 letters, digits, "-", "_" and ".", a letter or digit at both ends',
        ),
        maxLength=63,
    ),
]

PoolSize = Annotated[int, Schema(minimum=0, maximum=1000)]  # slot n listens on port 9000 + n: up to 9999
Seconds = Annotated[int, Schema(minimum=1, maximum=86_400)]  # at most a day
IdleSeconds = Annotated[int, Schema(minimum=1, maximum=604_800)]  # at most a week
Count = Annotated[int, Schema(minimum=0)]
# metadata.generation; -1 where no controller has looked at the object yet.
ObservedGeneration = Annotated[int, Schema(minimum=-1)]


def quantity(description: str) -> JsonSchema:
    """A Kubernetes quantity: 2, "500m", "1Gi"."""
    return {
        INT_OR_STRING: True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 64,
        "description": description,
        RULES: [
            must(
                "isQuantity(string(self)) && !quantity(string(self)).isLessThan(quantity('0'))",
                "be a quantity that is not negative, such as 2, 500m or 1Gi",
            )
        ],
    }
