"""Run lengths: masks as text, in the dialects of the challenges."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["EMPTY", "RunDialect", "decode_runs", "encode_runs"]

RunDialect = Literal["gap", "absolute", "kaggle"]

EMPTY = "-1"
"""Text of an image that was annotated and has nothing of the structure."""


def decode_runs(text: str, height: int, width: int, dialect: RunDialect) -> NDArray[np.bool_]:
    """Return the mask that pairs of numbers, a start and a length, describe.

    ========  ======================  ========================================  ============
    dialect   used by                 start                                     pixel order
    ========  ======================  ========================================  ============
    gap       SIIM-ACR, CANDID-PTX    pixels since the end of the previous run  down columns
    absolute  CheXmask                number of the pixel, from 1               along rows
    kaggle    most other challenges   number of the pixel, from 1               down columns
    ========  ======================  ========================================  ============

    Args:
        text: Numbers separated by blanks; ``-1`` is an empty mask. Regions separated by ``|`` are
            united; each starts anew.
        height: Rows H of the grid that the runs were written for.
        width: Columns W of that grid.
        dialect: How starts are counted.

    Returns:
        (H, W) bool.

    Raises:
        InputError: The text has no numbers, an odd count of them or something else; a run is
            shorter than a pixel or leaves the grid; or the dialect is unknown.
    """
    _check_dialect(dialect)
    flat = np.zeros(height * width, dtype=np.bool_)
    for region in text.split("|"):
        if region.strip() == EMPTY:
            continue
        end = 0
        for number, length in _pairs(region):
            start = end + number if dialect == "gap" else number - 1
            end = start + length
            if length < 1:
                raise InputError(f"the run '{number} {length}' is not at least one pixel long")
            if start < 0 or number < 0 or end > flat.size:
                raise InputError(
                    f"the run '{number} {length}' leaves the frame of {height} x {width} pixels: "
                    f"check the frame and the dialect, which is {dialect!r}"
                )
            flat[start:end] = True
    return flat.reshape((height, width), order="C" if dialect == "absolute" else "F")


def encode_runs(mask: NDArray[np.bool_], dialect: RunDialect) -> str:
    """Return the shortest text of which `decode_runs` makes a mask (H, W) bool.

    Raises:
        InputError: The mask is not (H, W), or the dialect is unknown.
    """
    _check_dialect(dialect)
    if mask.ndim != 2:
        raise InputError(f"a mask must be (H, W), got shape {mask.shape}")
    flat = mask.ravel(order="C" if dialect == "absolute" else "F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    first = starts - np.append(0, ends[:-1]) if dialect == "gap" else starts + 1
    runs = np.stack([first, ends - starts], axis=1)
    return " ".join(map(str, runs.ravel().tolist())) or EMPTY


def _check_dialect(dialect: RunDialect) -> None:
    if dialect not in get_args(RunDialect):
        raise InputError(
            f"the dialect of runs must be one of {', '.join(get_args(RunDialect))}, got {dialect!r}"
        )


def _pairs(region: str) -> list[tuple[int, int]]:
    """Return the start and the length of every run of a text."""
    numbers = []
    for word in region.split():
        try:
            numbers.append(int(word))
        except ValueError:
            raise InputError(f"run lengths are whole numbers, got {word!r}") from None
    if not numbers:
        raise InputError(f"a text without run lengths: write {EMPTY} for an empty mask")
    if len(numbers) % 2:
        raise InputError(
            f"run lengths come in pairs of a start and a length, got {len(numbers)} numbers, the "
            f"last of them {numbers[-1]}"
        )
    return list(zip(numbers[::2], numbers[1::2], strict=True))
