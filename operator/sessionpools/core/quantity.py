"""Kubernetes quantities ("500m", "1.5Gi"), multiplied: a Process pod's resources are those of its sessions together."""

import re
from decimal import Decimal

__all__ = ["times", "to_bytes", "to_whole"]

_QUANTITY = re.compile(r"([+-]?[0-9.]+)((?:[eE][+-]?[0-9]+)|(?:[KMGTPE]i)|[numkMGTPE]?)")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18} | {
    f"{unit}i": 2 ** (10 * power) for power, unit in enumerate("KMGTPE", start=1)
}


def times(quantity: str | int | float, factor: int) -> str:
    """`factor` times `quantity` in its own unit: times("500m", 3) == "1500m". ValueError if it is no quantity."""
    number, unit = _split(quantity)
    return f"{_plain(number * factor)}{unit}"


def to_bytes(quantity: str | int | float) -> int:
    """A memory quantity in bytes, rounded up; milli-bytes, which Kubernetes allows, included."""
    return int(_value(quantity).to_integral_value(rounding="ROUND_CEILING"))


def to_whole(quantity: str | int | float) -> int:
    """Whole units, rounded down: to_whole("1500m") == 1."""
    return int(_value(quantity).to_integral_value(rounding="ROUND_FLOOR"))


def _value(quantity: str | int | float) -> Decimal:
    number, unit = _split(quantity)
    if unit[:1] in ("e", "E") and unit[1:]:
        number, unit = number * Decimal(f"1{unit}"), ""
    factor = Decimal(_FACTORS[unit]) if unit in _FACTORS else Decimal(10) ** {"n": -9, "u": -6, "m": -3}[unit]
    return number * factor


def _split(quantity: str | int | float) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(str(quantity))
    if not match:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity")
    return Decimal(match[1]), match[2]


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
