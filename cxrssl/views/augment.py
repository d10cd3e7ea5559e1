"""Random crops with changed grey values: what the multi-view methods have in common."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.crops import CropMode, Resampling, random_resized_crop
from cxrssl.views.photometry import Photometry

__all__ = ["RADIOGRAPH", "RATIO", "CropLaw", "Preset", "augmented_crops", "choose_preset"]

RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width / height of a crop's box, torchvision's default."""

RADIOGRAPH = Photometry(
    brightness=(0.8, 1.2),
    contrast=(0.7, 1.3),
    gamma=(0.8, 1.25),
    jitter_p=0.8,
    blur_p=0.2,
    blur_sigma=(0.1, 1.0),
)
"""Exposure, display curve and mild blur: what differs between radiographs of one patient."""


class Preset(NamedTuple):
    """Probability of a flip, and the photometry of each kind of view."""

    flip: float
    photometry: tuple[Photometry, ...]


class CropLaw(NamedTuple):
    """How random crops are cut; see :func:`random_resized_crop`."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    mode: CropMode
    resampling: Resampling = "area"


def choose_preset(
    presets: Mapping[str, Preset],
    name: str,
    flip: float | None,
    photometry: Sequence[Photometry] | None,
) -> Preset:
    """Return a preset, with what the user gave in its place.

    Args:
        presets: Presets by name.
        name: The one to take.
        flip: Probability of a flip. ``None`` is the preset's.
        photometry: Photometry of each kind of view. ``None`` is the preset's.

    Raises:
        InputError: There is no such preset, or the flip is no probability.
    """
    if name not in presets:
        raise InputError(f"preset must be one of {', '.join(presets)}, got {name!r}")
    preset = presets[name]
    if flip is None:
        flip = preset.flip
    if not 0 <= flip <= 1:
        raise InputError(f"flip must be a probability, got {flip}")
    return Preset(flip, preset.photometry if photometry is None else tuple(photometry))


def augmented_crops(
    image: NDArray[np.uint8],
    law: CropLaw,
    photometry: Sequence[Photometry],
    levels: NDArray[np.float32],
    rng: np.random.Generator,
) -> Tensor:
    """Cut random crops out of an image and change their grey values.

    Of each crop in turn, the box is drawn first, then the flip, then the photometry.

    Args:
        image: (H, W) uint8.
        law: How the crops are cut.
        photometry: The change of each of the n crops.
        levels: Value (256,) that each grey level becomes.
        rng: Source of every draw.

    Returns:
        (n, 1, size, size) float32.
    """
    crops = np.empty((len(photometry), 1, law.size, law.size), dtype=np.float32)
    for crop, change in zip(crops, photometry, strict=True):
        cut, _ = random_resized_crop(
            image, law.size, law.scale, law.ratio, rng, law.mode, law.resampling
        )
        if rng.random() < law.flip:
            cut = np.asarray(cv2.flip(cut, 1), dtype=np.uint8)
        pixels, table = change.draw(cut, rng)
        cv2.LUT(pixels, levels[table], dst=crop[0])
    return torch.from_numpy(crops)
