"""The index of a packed store: that of its images, with names in place of paths."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cxrssl.data.indexed import IndexedImages
from cxrssl.data.releases.boxes import Box, format_boxes, parse_boxes
from cxrssl.data.validate import MASK, validate_index
from cxrssl.errors import InputError

__all__ = ["packed_index"]

_HERE = "packed"
"""Reference to a mask that the store holds."""


def packed_index(
    data: IndexedImages, rows: pd.DataFrame, table: pd.DataFrame, structures: Sequence[str]
) -> pd.DataFrame:
    """Return the index of the images that could be read.

    Boxes get the size of the packed images. Columns of masks say where there is one.

    Args:
        data: What was packed.
        rows: Its n rows.
        table: The store's table, a row for each of them.
        structures: Structures whose masks were packed.

    Raises:
        InputError: If no image could be read.
    """
    readable = table["error"].isna().to_numpy()
    if not readable.any():
        raise InputError(
            f"none of {len(rows)} images can be read, the first: {table['error'].iloc[0]}"
        )
    masks = {
        MASK + name: pd.Series(_HERE, index=rows.index, dtype="string").where(
            data.has_mask(rows, name)
        )
        for name in structures
    }
    index = rows.assign(**masks, path=table["path"].astype("string").to_numpy())
    if "boxes" in index:
        scales = (
            (table["width"] / table["source_width"]).tolist(),
            (table["height"] / table["source_height"]).tolist(),
        )
        boxes = [_scaled(text, x, y) for text, x, y in zip(index["boxes"], *scales, strict=True)]
        index["boxes"] = pd.array(boxes, dtype="string")
    return validate_index(index[readable])


def _scaled(text: Any, x: float, y: float) -> Any:
    """Return the text of boxes in an image that is x times as wide and y times as high."""
    if not isinstance(text, str) or x == y == 1:
        return text
    return format_boxes(
        Box(box.finding, box.left * x, box.top * y, box.right * x, box.bottom * y, box.reader)
        for box in parse_boxes(text)
    )
