"""A user's ConfigMap as code files: keys are file names, `binaryData` is decoded."""

import base64

from sessionpools.core.revision import CodeFiles
from sessionpools.kube.protocol import Json

__all__ = ["read_code"]


def read_code(config_map: Json) -> CodeFiles:
    text = {path: content.encode() for path, content in (config_map.get("data") or {}).items()}
    binary = {path: base64.b64decode(content) for path, content in (config_map.get("binaryData") or {}).items()}
    return CodeFiles(tuple(sorted((text | binary).items())))
