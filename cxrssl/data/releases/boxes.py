"""Boxes of findings as text in one cell of an index."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cxrssl.errors import InputError

__all__ = ["Box", "boxes_by_image", "format_boxes", "parse_boxes"]


@dataclass(frozen=True)
class Box:
    """Where a finding is, in pixels of the stored image from its top left corner.

    Args:
        finding: Name of the finding, in the release's spelling.
        left: x of the left side.
        top: y of the upper side.
        right: x of the right side.
        bottom: y of the lower side.
        reader: Who drew it, where several did.
    """

    finding: str
    left: float
    top: float
    right: float
    bottom: float
    reader: str | None = None


def format_boxes(boxes: Iterable[Box]) -> str:
    """Return boxes as JSON, the text of a cell of the column `boxes`."""
    rows = [
        {name: value for name, value in asdict(box).items() if value is not None} for box in boxes
    ]
    return json.dumps(rows)


def parse_boxes(text: str) -> list[Box]:
    """Return the boxes of a cell.

    Raises:
        InputError: If the text is not what `format_boxes` writes.
    """
    try:
        boxes = [Box(**row) for row in json.loads(text)]
        sides = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"no boxes can be read from {text[:80]!r}: {error}") from None
    if not np.isfinite(sides).all():
        raise InputError(f"a box of {text[:80]!r} has a side that is not finite")
    return boxes


def boxes_by_image(boxes: Mapping[str, list[Box]], images: Iterable[str]) -> "pd.Series[str]":
    """Return the text of each image's boxes, missing where it has none.

    Args:
        boxes: Boxes by the name of their image.
        images: Names (n,) of images.
    """
    texts = [format_boxes(boxes[name]) if boxes.get(name) else pd.NA for name in images]
    return pd.Series(pd.array(texts, dtype="string"))
