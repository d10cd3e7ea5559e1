"""Operations on 8-bit images that round after each step, as Pillow's do.

Whatever acts on single pixels is a table of 256 levels, so that a chain of steps costs one look-up
of the image and still has each step's rounding.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["LEVELS", "bend_levels", "gaussian_blur", "look_up", "mean_level", "scale_levels"]

LEVELS: NDArray[np.uint8] = np.arange(256, dtype=np.uint8)
"""The table that changes nothing."""


def look_up(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``table[image]`` for an image (H, W) uint8 and a table (256,) uint8."""
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def scale_levels(table: NDArray[np.uint8], factor: float, centre: int = 0) -> NDArray[np.uint8]:
    """Scale the levels of a table about a centre: Pillow's Brightness (0) and Contrast (mean).

    The result is clipped to [0, 255] and rounded down, in single precision as Pillow computes it.
    """
    middle = np.float32(centre)
    scaled = middle + np.float32(factor) * (table.astype(np.float32) - middle)
    return scaled.clip(0, 255).astype(np.uint8)


def bend_levels(table: NDArray[np.uint8], exponent: float) -> NDArray[np.uint8]:
    """Raise the levels of a table, as shares of 255, to a power, as torchvision's adjust_gamma."""
    # Just under 256, so that the full range has 256 equal steps and 255 stays in the last.
    return ((255 + 1 - 1e-3) * (table / 255) ** exponent).astype(np.uint8)


def mean_level(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> int:
    """Return the mean of ``table[image]``, rounded half up, without making that image."""
    if table is LEVELS:
        total = cv2.sumElems(image)[0]
    else:
        counts = cv2.calcHist([image], [0], None, [256], [0, 256])
        total = float(counts.ravel() @ table.astype(np.float64))
    return int(total / image.size + 0.5)


def gaussian_blur(image: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Return an image (H, W) uint8 after Pillow's Gaussian blur of a radius (std) in pixels."""
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, dtype=np.uint8)
