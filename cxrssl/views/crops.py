"""Random crops of one image, and the antialiased resize behind every view."""

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrssl.errors import InputError
from cxrssl.views.base import check_range

__all__ = [
    "Box",
    "CropMode",
    "Resampling",
    "check_crop",
    "draw_box",
    "random_resized_crop",
    "resize",
]

CropMode = Literal["area", "side"]
Resampling = Literal["area", "pillow"]

TRIES = 10


class Box(NamedTuple):
    """A crop's place in its image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def check_crop(
    scale: tuple[float, float],
    ratio: tuple[float, float],
    mode: CropMode = "area",
    resampling: Resampling = "area",
) -> None:
    """Refuse options no crop can follow.

    Raises:
        InputError: The scale is not in (0, 1], the ratio not positive and finite, one of them
            reversed, or the mode or the resampling unknown.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise InputError(
            f"a crop's scale must be (low, high) with 0 < low <= high <= 1, got {scale}"
        )
    check_range("a crop's ratio", ratio, zero=False)
    if mode not in ("area", "side"):
        raise InputError(f"crop mode must be 'area' or 'side', got {mode!r}")
    if resampling not in ("area", "pillow"):
        raise InputError(f"resampling must be 'area' or 'pillow', got {resampling!r}")


def resize(
    image: NDArray[np.uint8], height: int, width: int, resampling: Resampling = "area"
) -> NDArray[np.uint8]:
    """Return an image (H, W) uint8 at another size, antialiased.

    In ``"area"``, the quicker one, an axis that shrinks is averaged over the area of each new
    pixel: interpolating between the nearest old pixels would alias fine structures (ribs,
    trabeculae, noise) into patterns that are not in the radiograph. An axis that grows is
    interpolated bicubically, where the area rule would repeat pixels. With one axis of each kind,
    the shrinking one goes first.

    ``"pillow"`` is Pillow's bicubic filter, which widens as an axis shrinks. Released weights of
    methods that read their images with Pillow were trained on it.

    The result may share memory with the image when no axis changes, and may be read-only.
    """
    if resampling == "pillow":
        # Pillow takes the pixels without a copy of its own if they lie in one piece.
        source = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(source.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    resized = image
    if smaller != image.shape:
        resized = np.asarray(
            cv2.resize(resized, smaller[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8
        )
    if smaller != (height, width):
        resized = np.asarray(
            cv2.resize(resized, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
        )
    return resized


def draw_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    mode: CropMode = "area",
) -> Box:
    """Draw the box of a random crop in an image of a given height and width.

    Arguments and law are those of `random_resized_crop`.
    """
    if mode == "side":
        side = max(1, round(rng.uniform(*scale) * min(height, width)))
        return _place(height, width, side, side, rng)
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(TRIES):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(*log_ratio))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return _place(height, width, box_height, box_width, rng)
    return _central_box(height, width, ratio)


def random_resized_crop(
    image: NDArray[np.uint8],
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    mode: CropMode = "area",
    resampling: Resampling = "area",
) -> tuple[NDArray[np.uint8], Box]:
    """Cut a random box out of an image and resize it to a square.

    In mode ``"area"`` the law is that of torchvision's RandomResizedCrop: the box has a share of
    the image's area uniform in ``scale`` and an aspect log-uniform in ``ratio``, and is drawn again
    while it does not fit; after ten tries it is the largest central box of an allowed aspect. In
    mode ``"side"``, as RAD-DINO (arXiv 2401.10815) words it, the box is square and its side is a
    share of the image's shorter side uniform in ``scale``; nothing is stretched. A scale of
    (0.5, 1) on a square image thus means areas from 0.5 in the one mode and from 0.25 in the other.

    Args:
        image: (H, W) uint8.
        size: Side of the result in pixels.
        scale: Smallest and largest share, in (0, 1].
        ratio: Smallest and largest width / height; has no effect in mode ``"side"``.
        rng: Source of every draw.
        mode: What ``scale`` is a share of.
        resampling: See `resize`.

    Returns:
        The crop, (size, size) uint8, and its box in the image.
    """
    height, width = image.shape
    box = draw_box(height, width, scale, ratio, rng, mode)
    cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
    return resize(cut, size, size, resampling), box


def _place(
    height: int, width: int, box_height: int, box_width: int, rng: np.random.Generator
) -> Box:
    top = int(rng.integers(height - box_height, endpoint=True))
    left = int(rng.integers(width - box_width, endpoint=True))
    return Box(top, left, box_height, box_width)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    aspect = min(max(width / height, ratio[0]), ratio[1])
    # Only one of the two sides is shortened, the one that is too long for the aspect. An image of
    # one pixel across has no box of an extreme aspect; one pixel is the nearest.
    box_height = min(height, max(1, round(width / aspect)))
    box_width = min(width, max(1, round(height * aspect)))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
