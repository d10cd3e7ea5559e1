"""Numbers in words: values with their intervals, probabilities, counts."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["count", "interval", "p_value", "with_interval"]


def interval(row: Mapping[Any, Any], style: str = ".3f") -> str:
    """Return the ends of an interval, such as ``0.612 to 0.733``; empty where there is none."""
    low, high = row["low"], row["high"]
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"{_number(low, style)} to {_number(high, style)}"


def with_interval(row: Mapping[Any, Any], name: str = "value", style: str = ".3f") -> str:
    """Return a value with its interval, such as ``0.680 [0.612, 0.733]``.

    Args:
        row: Holds the value, ``low`` and ``high``.
        name: Of the value.
        style: How numbers are written.
    """
    value = _number(row[name], style)
    if math.isnan(row["low"]) or math.isnan(row["high"]):
        return f"{value} [no interval]"
    return f"{value} [{_number(row['low'], style)}, {_number(row['high'], style)}]"


def p_value(p: float) -> str:
    """Return a probability; ``-`` where there is none."""
    if math.isnan(p):
        return "-"
    return f"{p:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number of things, such as ``1 image`` or ``1,200 images``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _number(value: float, style: str) -> str:
    sign, rest = ("+", style[1:]) if style.startswith("+") else ("", style)
    return f"{value:{sign}z{rest}}".replace("-", "\u2212")  # z: no minus before zero
