"""What all bodies have in common.

Machine Learning Server's swagger has PascalCase for the bodies of pools and camelCase for all others, its server took
any casing, and its Python client's own objects have snake_case: `InitialPoolSize`, `initialPoolSize` and
`initial_pool_size` are the same key here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["Answer", "Body"]


class Answer(BaseModel):
    """What is written."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class Body(Answer):
    """What is read. Keys that mean nothing here are ignored, as Machine Learning Server did."""

    @model_validator(mode="before")
    @classmethod
    def _any_casing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {_folded(name): to_camel(name) for name in cls.model_fields}
        read: dict[str, Any] = {}
        for key, value in given.items():
            name = known.get(_folded(key), key) if isinstance(key, str) else key
            if name in read and read[name] != value:
                raise ValueError(f"{key} is given twice with different values: give it once, as {name}")
            read[name] = value
        return read


def _folded(key: str) -> str:
    return key.replace("_", "").lower()
