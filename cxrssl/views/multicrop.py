"""The views of DINOv2: two global crops, several local ones, and block masks."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.augment import (
    RADIOGRAPH,
    RATIO,
    CropLaw,
    Preset,
    augmented_crops,
    choose_preset,
)
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD, Views, check_image, patch_grid
from cxrssl.views.crops import CropMode, check_crop
from cxrssl.views.masking import BlockMasking
from cxrssl.views.photometry import Photometry

__all__ = ["MultiCrop"]


def _dinov2(blur: tuple[float, float, float]) -> Preset:
    first, second, local = (
        Photometry(brightness=(0.6, 1.4), contrast=(0.6, 1.4), jitter_p=0.8, blur_p=p, solarise_p=s)
        for p, s in zip(blur, (0.0, 0.2, 0.0), strict=True)
    )
    return Preset(0.5, (first, second, local))


PRESETS = {
    "radiograph": Preset(0.0, (RADIOGRAPH,) * 3),
    "dinov2": _dinov2(blur=(0.0, 0.9, 0.5)),
    "dinov2-published": _dinov2(blur=(1.0, 0.1, 0.5)),
}


class MultiCrop(Views):
    """Multi-crop views with masks, as DINOv2 (arXiv 2304.07193) trains on.

    A sample is ``global_crops (2, C, H, W)`` and ``local_crops (L, C, h, w)``; a batch adds ``masks
    (B, 2, N)``, True where a patch of a global crop is masked for the student. Without local crops
    (L = 0) the key ``local_crops`` is absent.

    Presets:
        ``"radiograph"`` (default) changes exposure and display curve (brightness, contrast, gamma)
        and blurs mildly, alike for all crops. Grey values and fine texture carry the findings, so
        nothing is solarised; a mirrored chest is another diagnosis, so nothing is flipped.

        ``"dinov2"`` is the set of the released DINOv2 code on a grey image, where its hue,
        saturation and greyscale steps are identities. That code hands the probability of *not*
        blurring to a function that takes the probability of applying, so it blurs global crop 1
        never, global crop 2 in 0.9 and local crops in 0.5 of the cases; its weights were trained
        so, and the preset repeats it.

        ``"dinov2-published"`` has the blur probabilities of the paper: 1.0, 0.1 and 0.5.

    Args:
        global_size: Side of the global crops in pixels, a multiple of ``patch_size``.
        local_size: Side of the local crops in pixels, a multiple of ``patch_size``.
        n_local: Number of local crops L of an image.
        global_scale: Smallest and largest share of the image in a global crop.
        local_scale: Smallest and largest share of the image in a local crop.
        crop_mode: Whether shares are of the ``"area"`` (DINOv2) or of the shorter ``"side"`` (the
            words of RAD-DINO, arXiv 2401.10815, with scales (0.5, 1) and (0.2, 0.5)).
        flip: Probability of a horizontal flip of a crop. ``None`` is the preset's.
        preset: Name of the photometry and the flip probability.
        photometry: Photometry of global crop 1, global crop 2 and the local crops, instead of the
            preset's.
        patch_size: Side of a patch in pixels; N = (global_size / patch_size)^2.
        mask_ratio: Smallest and largest share of the patches that a masked crop loses.
        mask_probability: Share of the global crops of a batch that are masked.
        mask_exact: Reach the target of each mask exactly; see `BlockMasking`.
        mask_shift: Shift each mask circularly; see `BlockMasking`.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1].
        std: Standard deviation the result is divided by.
    """

    def __init__(
        self,
        *,
        global_size: int = 224,
        local_size: int = 96,
        n_local: int = 8,
        global_scale: tuple[float, float] = (0.32, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.32),
        crop_mode: CropMode = "area",
        flip: float | None = None,
        preset: Literal["radiograph", "dinov2", "dinov2-published"] = "radiograph",
        photometry: Sequence[Photometry] | None = None,
        patch_size: int = 16,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        mask_exact: bool = False,
        mask_shift: bool = False,
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=global_size, in_chans=in_chans, mean=mean, std=std)
        chosen = choose_preset(PRESETS, preset, flip, photometry)
        if n_local < 0:
            raise InputError(f"n_local must not be negative, got {n_local}")
        grid = patch_grid(global_size, patch_size, "global_size")
        if n_local > 0:
            patch_grid(local_size, patch_size, "local_size")
        check_crop(global_scale, RATIO, crop_mode)
        check_crop(local_scale, RATIO, crop_mode)
        self.local_size = local_size
        self.n_local = n_local
        self.global_scale = global_scale
        self.local_scale = local_scale
        self.crop_mode: CropMode = crop_mode
        self.flip = chosen.flip
        self.photometry = _checked_kinds(chosen.photometry)
        self.patch_size = patch_size
        self.masking = BlockMasking(
            grid,
            ratio=mask_ratio,
            probability=mask_probability,
            exact=mask_exact,
            shift=mask_shift,
        )

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``global_crops`` and ``local_crops`` of an image (H, W) uint8."""
        check_image(image)
        first, second, local = self.photometry
        sample = {
            "global_crops": self._crops(
                image, self.image_size, self.global_scale, (first, second), rng
            )
        }
        if self.n_local > 0:
            sample["local_crops"] = self._crops(
                image, self.local_size, self.local_scale, (local,) * self.n_local, rng
            )
        return sample

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Stack samples into a batch and draw its ``masks (B, 2, N)``."""
        batch = super().collate(samples, rng)
        masks = self.masking.collate_masks(2 * len(samples), rng)
        batch["masks"] = torch.from_numpy(masks).view(len(samples), 2, -1)
        return batch

    def _crops(
        self,
        image: NDArray[np.uint8],
        size: int,
        scale: tuple[float, float],
        photometry: Sequence[Photometry],
        rng: np.random.Generator,
    ) -> Tensor:
        """Return one crop per photometry, (len(photometry), C, size, size)."""
        law = CropLaw(size, scale, RATIO, self.flip, self.crop_mode)
        crops = augmented_crops(image, law, photometry, self.normalised_levels, rng)
        return crops.expand(-1, self.in_chans, -1, -1)


def _checked_kinds(
    photometry: Sequence[Photometry],
) -> tuple[Photometry, Photometry, Photometry]:
    if len(photometry) != 3:
        raise InputError(
            "photometry takes three entries (global crop 1, global crop 2, local crops), "
            f"got {len(photometry)}"
        )
    first, second, local = photometry
    return first, second, local
