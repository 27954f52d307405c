"""The small language in which the kinds say what the API server shall check: schema keywords and CEL rules on types.

The keywords are for the API server only, through the CRDs: pydantic checks types when it reads an object, never bounds
or rules. So an object that the API server once accepted can always be read, also when a later version is stricter.
Used by `sessionpools.api.v1alpha1` and `podfields`; read by the generator in `sessionpools.api.crds`.
"""

from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

JsonSchema = dict[str, Any]


class Schema:
    """Annotates a type with JSON schema keywords: `Annotated[str, Schema(maxLength=63)]`."""

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {**handler(core_schema), **self.keywords}


def rule(cel: str, *, says: str, path: str = "", reason: str = "") -> JsonSchema:
    """A CEL rule as the API server takes it. `says` is a CEL expression for the message, or a plain text after "=".

    `path` is the field, relative to where the rule stands, that the user's error message points to.
    """
    made: JsonSchema = {"rule": cel}
    if says.startswith("="):
        made["message"] = says[1:]
    else:
        made["messageExpression"] = says
    if path:
        made["fieldPath"] = path
    if reason:
        made["reason"] = reason
    return made


def rules(*made: JsonSchema) -> JsonSchema:
    """The keyword that holds rules, to be spread into a Schema or a model's json_schema_extra."""
    return {"x-kubernetes-validations": list(made)}
