"""The curves of a run in bounded memory."""

import math
from collections.abc import Mapping
from typing import Any

from cxrssl.errors import InputError

__all__ = ["History"]


class History:
    """Points (step, value) of named metrics, thinned out evenly when there are too many.

    A metric that reaches the limit loses every other point, and takes new ones at twice the
    distance from then on. A value that has not changed is not a new point, nor is one that is not
    finite.

    Args:
        limit: Most points of a metric.

    Raises:
        InputError: If the limit is below 2.
    """

    def __init__(self, limit: int = 1000) -> None:
        if limit < 2:
            raise InputError(f"limit must be at least 2, got {limit}")
        self.limit = limit
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self._distance: dict[str, int] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take up the values of a step."""
        for name, value in values.items():
            curve = self.curves.setdefault(name, [])
            if not math.isfinite(value):
                continue
            if curve and (
                value == curve[-1][1] or step - curve[-1][0] < self._distance.get(name, 1)
            ):
                continue
            curve.append((step, value))
            if len(curve) >= self.limit:
                span = curve[-1][0] - curve[0][0]
                self.curves[name] = curve[::2]
                self._distance[name] = 2 * math.ceil(span / (len(curve) - 1))

    def state_dict(self) -> dict[str, Any]:
        """Return all points as plain lists."""
        curves = {name: [[s, v] for s, v in curve] for name, curve in self.curves.items()}
        return {"curves": curves, "distance": dict(self._distance)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the points of the run before."""
        self.curves = {
            name: [(int(step), value) for step, value in curve]
            for name, curve in state_dict["curves"].items()
        }
        self._distance = dict(state_dict["distance"])
