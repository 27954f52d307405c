"""What a row of refusals.py and refused_values.py is."""

from dataclasses import dataclass

from support.kinds import Object


@dataclass(frozen=True)
class Refusal:
    """An object, and the part of kubectl's answer that tells its author what to change."""

    id: str
    object: Object
    says: str
