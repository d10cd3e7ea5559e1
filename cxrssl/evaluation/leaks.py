"""What the pretraining of the encoders has seen of the evaluation images."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cxrssl.data import CXRDataModule
from cxrssl.data.duplicates import (
    Copies,
    find_leaks,
    known_fingerprints,
    leak_level,
    read_fingerprints,
    read_index,
    trained_on,
)

__all__ = ["NOT_STATED", "state_level"]

NOT_STATED = "not stated: give --pretrained_on, the indices that the encoders were pretrained on"


def state_level(
    data: CXRDataModule,
    rows: pd.DataFrame,
    pretrained_on: Sequence[str],
    fingerprints: str | None = None,
) -> dict[str, Any]:
    """Return the leak level of test images as plain data, and the sentence that states it.

    Args:
        data: Where the images are from.
        rows: Rows of the test images.
        pretrained_on: Indices, ``INDEX[=ROOT]`` each, whose training images were pretrained on.
        fingerprints: File that `cxrssl check` wrote for images of both; names alone are compared
            where it is None or lacks some of them.

    Raises:
        InputError: If an index or the file cannot be read.
    """
    if not pretrained_on:
        return {"level": None, "statement": NOT_STATED}
    frames = [trained_on(read_index(text)) for text in pretrained_on]
    pretraining = pd.concat(frames).drop_duplicates("path", ignore_index=True)
    copies, lacking = None, 0
    if fingerprints is not None:
        paths = pd.concat([pretraining["path"], rows["path"]]).drop_duplicates()
        own = dict(zip(rows["path"], data.image_keys(rows), strict=True))
        keys = [own.get(path, path) for path in paths]
        known = known_fingerprints(keys, read_fingerprints(fingerprints))
        lacking = int(known["state"].isna().sum())
        copies = None if lacking else Copies(paths, known)
    level = leak_level(pretraining, rows, find_leaks(pretraining, rows, copies), copies)
    statement = str(level)
    if lacking:
        statement += f"; {fingerprints} lacks {lacking:,} images: run cxrssl check for them"
    return {
        "level": level.name,
        "statement": statement,
        "images": level.images,
        "exposed": level.exposed,
        "of_patients": level.patients,
        "perceptual_hashes": copies is not None,
    }
