"""What copies of one image have in common, in a kilobyte."""

import hashlib
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from cxrssl.errors import InputError

__all__ = ["LOOKS", "SIDE", "Fingerprint", "fingerprint", "thumbnail"]

SIDE = 32
"""Height and width of thumbnails in pixels."""

LOOKS = ("as it is", "mirrored", "inverted", "mirrored and inverted")
"""What may have been done to a copy, in the order of hashes."""

_EXACT_SIDE = 256
_BLANK = 0.99
"""Share of a thumbnail with one grey level from which on nothing is on it."""


class Fingerprint(NamedTuple):
    """What an image is known by.

    Attributes:
        exact: Hash of the pixels, 16 bytes; equal where nothing but the file differs.
        hashes: 8 bytes for each of `LOOKS`, for each face.
        thumbnails: 1024 bytes for each face: ranks of grey values, (32, 32) uint8.
        blank: Whether next to nothing is on it; it then has no hashes that could tell it apart.
    """

    exact: bytes
    hashes: bytes
    thumbnails: bytes
    blank: bool


def fingerprint(pixels: NDArray[Any]) -> Fingerprint:
    """Return the fingerprint of an image (H, W) of any size and depth.

    An image has a face or two: the whole of it, and where it is not square the square at its
    centre, as reduced copies show either. A face becomes a thumbnail of the ranks of its grey
    values, which no change of brightness, contrast or gamma moves, and not even the equalisation
    of its histogram. Its perceptual hash is imagehash's `phash`.

    Raises:
        InputError: If imagehash is not installed.
    """
    low, high = float(pixels.min()), float(pixels.max())
    spread = (pixels - np.float32(low)) * np.float32(255 / max(high - low, 1e-12))
    # Halves go down whatever the depth: as floats they may come out on either side.
    grey = (spread + np.float32(0.4999)).astype(np.uint8)
    whole = _resize(grey, _EXACT_SIDE)
    faces = [whole]
    if grey.shape[0] != grey.shape[1]:
        faces.append(_resize(_centre(grey), _EXACT_SIDE))
    small = [thumbnail(face) for face in faces]
    return Fingerprint(
        exact=hashlib.sha256(whole.tobytes()).digest()[:16],
        hashes=b"".join(_hashes(face) for face in small),
        thumbnails=b"".join(face.tobytes() for face in small),
        blank=_is_blank(small[0]),
    )


def thumbnail(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ranks of grey values (32, 32), 0 the darkest and 255 the brightest; equals are equal.

    Args:
        grey: An image (H, W).
    """
    small = _resize(grey.astype(np.float32), SIDE)
    ranks = (rankdata(small) - 1) / (small.size - 1)
    return np.asarray((255 * ranks).round().astype(np.uint8).reshape(SIDE, SIDE))


def look(face: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return a thumbnail (..., 32, 32) after what a number in `LOOKS` stands for."""
    mirrored = face[..., ::-1] if number in (1, 3) else face
    return 255 - mirrored if number in (2, 3) else mirrored


def _hashes(face: NDArray[np.uint8]) -> bytes:
    hashes = []
    for number in range(len(LOOKS)):
        picture = Image.fromarray(np.ascontiguousarray(look(face, number)))
        hashes.append(np.packbits(_imagehash().phash(picture).hash).tobytes())
    return b"".join(hashes)


@cache
def _imagehash() -> ModuleType:
    try:
        import imagehash
    except ImportError as error:
        raise InputError(
            "images are compared by the library imagehash, which is not installed: "
            "pip install 'cxrssl[check]', or set hashes to false to compare names alone"
        ) from error
    module: ModuleType = imagehash
    return module


def _resize(grey: NDArray[Any], side: int) -> NDArray[Any]:
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def _centre(grey: NDArray[Any]) -> NDArray[Any]:
    """Return the largest square at the centre."""
    height, width = grey.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return grey[top : top + side, left : left + side]


def _is_blank(face: NDArray[np.uint8]) -> bool:
    return bool(np.bincount(face.ravel()).max() >= _BLANK * face.size)
