"""What the readers of all containers share: limits, depths, and the reason a file is refused."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "Depth",
    "UnreadableError",
    "check_frame",
    "check_size",
    "kind",
    "quantise",
    "scale",
]

MAX_PIXELS = 2**26
"""Largest image that is decoded, four times a stitched radiograph; a damaged size claims more."""

MAX_BYTES = 2**31
"""Largest file that is read, and largest size to which compressed content may unfold."""

Depth = Literal["uint8", "float32"]


class UnreadableError(Exception):
    """Why a file cannot be read, raised behind the door where its path is not known."""


def quantise(unit: NDArray[np.floating[Any]], depth: Depth) -> NDArray[Any]:
    """Return grey values in [0, 1] as uint8, rounded to the nearest, or as float32."""
    grey: NDArray[Any] = np.clip(unit, 0, 1)
    if depth == "float32":
        return grey.astype(np.float32)
    return (grey * 255).round().astype(np.uint8)


def scale(grey: NDArray[Any], bits: int, depth: Depth) -> NDArray[Any]:
    """Return an image (H, W) uint8 or uint16, whose white is 2**bits - 1, at a depth."""
    if depth == "uint8" and bits == 8 and grey.dtype == np.uint8:
        return grey
    table = quantise(np.arange(256**grey.dtype.itemsize) / (2**bits - 1), depth)
    scaled: NDArray[Any] = table[grey]
    return scaled


def kind(error: BaseException) -> str:
    """Return the type of an error, which says something where its text must not be quoted."""
    module, name = type(error).__module__, type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def check_size(width: int, height: int) -> None:
    """Refuse a size, as a header claims it, that is empty or beyond `MAX_PIXELS`."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise UnreadableError(
            f"its header claims {width} x {height} pixels; from 1 to {MAX_PIXELS} are accepted"
        )


def check_frame(frame: int | None, count: int) -> int:
    """Return the number of the frame to decode, and refuse a choice that does not exist."""
    if frame is None and count > 1:
        raise UnreadableError(
            f"it holds {count} frames; say which with frame=0 to frame={count - 1}"
        )
    if not 0 <= (frame or 0) < count:
        raise UnreadableError(f"it has no frame {frame}; it holds {count}, numbered from 0")
    return frame or 0
