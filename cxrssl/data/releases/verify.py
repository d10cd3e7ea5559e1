"""Counting what a release holds, and comparing it with what it should."""

from collections.abc import Mapping

import pandas as pd

from cxrssl.data.releases.boxes import parse_boxes
from cxrssl.data.validate import MASK, SPLITS, label_names

__all__ = ["Difference", "compare", "measure"]

Difference = tuple[str, int, int]
"""What was counted, how many a whole release has, how many there are."""


def measure(index: pd.DataFrame) -> dict[str, int]:
    """Return how many things an index has.

    The keys are ``images``, ``patients``, ``studies``, ``train``, ``val`` and ``test`` (images),
    ``train patients`` and so on, ``boxes``, ``images with boxes``, ``reports``, ``masks`` (of any
    structure), ``mask/<structure>`` and the findings, for which positive images are counted.
    """
    counts = {
        "images": len(index),
        "patients": index["patient_id"].nunique(),
        "studies": index["study_id"].nunique(),
    }
    for split in SPLITS:
        rows = index[index["split"] == split]
        counts |= {split: len(rows), f"{split} patients": rows["patient_id"].nunique()}
    if "boxes" in index:
        boxes = index["boxes"].dropna()
        counts["images with boxes"] = len(boxes)
        counts["boxes"] = sum(len(parse_boxes(text)) for text in boxes)
    if "text" in index:
        counts["reports"] = int(index["text"].notna().sum())
    masks = [str(name) for name in index if str(name).startswith(MASK)]
    counts |= {name: int(index[name].notna().sum()) for name in masks}
    if masks:
        counts["masks"] = int(index[masks].notna().any(axis=1).sum())
    return counts | {name: int((index[name] == 1).sum()) for name in label_names(index)}


def compare(index: pd.DataFrame, expected: Mapping[str, int]) -> list[Difference]:
    """Return what an index has more or fewer of than expected, in the order of the expected."""
    found = measure(index)
    return [
        (what, number, found.get(what, 0))
        for what, number in expected.items()
        if found.get(what, 0) != number
    ]
