"""Polygons: masks as corner points, in the spellings of the datasets."""

import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrssl.data.runs import EMPTY
from cxrssl.errors import InputError

__all__ = ["fill_polygons"]

FURTHEST = 2**15
"""Size from which a coordinate is no pixel of any radiograph, and OpenCV may overflow."""

SHOWN = 60
"""Characters of a wrong text that a message shows."""


def fill_polygons(polygons: str | Sequence[Any], height: int, width: int) -> NDArray[np.bool_]:
    """Return the union of polygons, each filled with ``cv2.fillPoly``, border pixels included.

    Args:
        polygons: A polygon, or a list of polygons. A polygon is a list of points ``[x, y]``
            (ChestX-Det) or ``{"x": x, "y": y}`` (VinDr-RibCXR), or flat: a list, or a text, of
            numbers ``x1 y1 x2 y2 ...`` (Object-CXR). Lists may come as JSON text. ``None`` as a
            text, or an empty list, is an empty mask. Polygons in one text may be separated by
            ``|``.
        height: Rows H of the grid that the coordinates were written for.
        width: Columns W of that grid. What lies outside the grid is cut off.

    Returns:
        (H, W) bool.

    Raises:
        InputError: Something is no polygon, or a coordinate no finite number of pixels.
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    for points in _polygons(polygons):
        # One at a time: of several polygons in one call, fillPoly leaves overlaps empty.
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask.astype(np.bool_)


def _polygons(value: Any) -> list[NDArray[np.float64]]:
    """Return the points (n, 2) of every polygon in a value, whichever way it is written."""
    if isinstance(value, str):
        return [polygon for part in value.split("|") for polygon in _polygons(_parse(part))]
    if not isinstance(value, Sequence):
        raise InputError(f"{_shortened(value)} is no polygon")
    if not value:
        return []
    if all(isinstance(item, (int, float)) for item in value):
        if len(value) % 2:
            raise InputError(f"x and y come in pairs, got {len(value)} numbers")
        return [_points([value[i : i + 2] for i in range(0, len(value), 2)])]
    if all(_is_point(item) for item in value):
        return [_points([[p["x"], p["y"]] if isinstance(p, dict) else p for p in value])]
    return [polygon for item in value for polygon in _polygons(item)]


def _parse(text: str) -> Any:
    text = text.strip()
    if text in ("None", EMPTY):
        return []
    try:
        if text.startswith(("[", '"')):
            return json.loads(text)
        numbers = [float(word) for word in text.split()]
    except ValueError:
        raise InputError(
            f"{_shortened(text)} is neither JSON nor numbers separated by blanks"
        ) from None
    if not numbers:
        raise InputError("a text without a polygon: write None for an empty mask")
    return numbers


def _is_point(item: Any) -> bool:
    if isinstance(item, dict):
        item = [item.get("x"), item.get("y")]
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and all(isinstance(number, (int, float)) for number in item)
    )


def _points(pairs: list[Any]) -> NDArray[np.float64]:
    points = np.array(pairs, dtype=np.float64)
    wrong = points[~(np.abs(points) < FURTHEST)]
    if wrong.size:
        raise InputError(f"{wrong[0]} is no coordinate in pixels")
    return points


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
