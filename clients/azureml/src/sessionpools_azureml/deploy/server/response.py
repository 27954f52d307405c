"""What a call gave."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from sessionpools_azureml.deploy.server.encoding_type import EncodingType

__all__ = ["ServiceResponse"]


class ServiceResponse:
    """What a call gave.

    - api: the path of the call
    - error: what went wrong, else empty: nothing is raised when the service's code failed
    - console_output: what the code printed
    - outputs, raw_outputs: by name, as arrays and data frames where they are such, and as they came
    - artifacts: the content of files in base64, by name
    """

    def __init__(self, api: str, response: Mapping[str, Any], output_schema: Sequence[Mapping[str, str]]) -> None:
        self.api = api
        self.error = response.get("errorMessage") or ""
        self.console_output = response.get("consoleOutput") or ""
        self.raw_outputs: dict[str, Any] = response.get("outputParameters") or {}
        self.artifacts: dict[str, str | None] = response.get("outputFiles") or {}
        self.outputs = {
            each["name"]: EncodingType.cast_to_python(each["type"], self.raw_outputs.get(each["name"]))
            for each in output_schema
        }

    def output(self, output: str) -> Any:
        """An output; None where there is none of this name."""
        return self.outputs.get(output)

    def artifact(self, artifact_name: str, decode: bool = True, encoding: str | None = None) -> Any:
        """A file: its bytes, with `encoding` its text, without `decode` its base64; None where the call wrote none."""
        content = self.artifacts.get(artifact_name)
        if content is None or not decode:
            return content
        try:
            decoded = base64.b64decode(content)
            return decoded if encoding is None else decoded.decode(encoding)
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError(f"Artifact b64decode error: {type(error).__name__}\n{error}\n{artifact_name}") from error

    def __str__(self) -> str:
        fields = ("api", "error", "console_output", "outputs", "raw_outputs", "artifacts")
        return "\n".join(["<ServiceResponse> ", *(f"   {name}: {getattr(self, name)}" for name in fields)])
