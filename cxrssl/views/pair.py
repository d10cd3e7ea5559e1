"""The views of VICReg and MLVICX: two random crops of one image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
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
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD, Views, check_image
from cxrssl.views.crops import CropMode, Resampling, check_crop
from cxrssl.views.photometry import Photometry

__all__ = ["PairViews"]


def _vicreg() -> Preset:
    first, second = (
        Photometry(
            brightness=(0.6, 1.4),
            contrast=(0.6, 1.4),
            jitter_p=0.8,
            blur_p=blur_p,
            blur_sigma=(0.1, 2.0),
            blur_kernel=23,
            solarise_p=solarise_p,
        )
        for blur_p, solarise_p in ((1.0, 0.0), (0.1, 0.2))
    )
    return Preset(0.5, (first, second))


PRESETS = {"radiograph": Preset(0.0, (RADIOGRAPH, RADIOGRAPH)), "vicreg": _vicreg()}


class PairViews(Views):
    """Two crops of one image, as VICReg (arXiv 2105.04906) and MLVICX (arXiv 2403.11504) train on.

    A sample is ``views (2, C, H, W)``, a batch ``views (B, 2, C, H, W)``.

    Presets:
        ``"radiograph"`` (default) is that of :class:`MultiCrop`: it changes exposure and display
        curve and blurs mildly, alike for both views; nothing is solarised or flipped.

        ``"vicreg"`` is the set of both released codes on a grey image, where their hue, saturation
        and greyscale steps are identities: flips in 0.5 of the cases; brightness and contrast
        within 0.4 of 1 in 0.8; a blur of view 1 always, of view 2 in 0.1; solarisation of view 2
        in 0.2. VICReg blurs with Pillow's approximation of a Gaussian, MLVICX with a kernel of 23
        pixels; the preset has the kernel, which holds all of the widest Gaussian drawn.

    The released codes resize with Pillow: ``resampling="pillow"``.

    Args:
        image_size: Side of the views in pixels.
        scale: Smallest and largest share of the image in a view. The default is the published one,
            made for photographs; a larger lower bound keeps more of a finding's surroundings.
        ratio: Smallest and largest width / height of a crop's box.
        crop_mode: Whether shares are of the ``"area"`` or of the shorter ``"side"``; see
            :func:`random_resized_crop`.
        flip: Probability of a horizontal flip of a view. ``None`` is the preset's.
        preset: Name of the photometry and the flip probability.
        photometry: Photometry of view 1 and of view 2, instead of the preset's.
        resampling: See :func:`resize`.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1].
        std: Standard deviation the result is divided by.

    Raises:
        InputError: An option is out of range or unknown, or there are not two photometries.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = RATIO,
        crop_mode: CropMode = "area",
        flip: float | None = None,
        preset: Literal["radiograph", "vicreg"] = "radiograph",
        photometry: Sequence[Photometry] | None = None,
        resampling: Resampling = "area",
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        check_crop(scale, ratio, crop_mode, resampling)
        self.flip, self.photometry = choose_preset(PRESETS, preset, flip, photometry)
        if len(self.photometry) != 2:
            raise InputError(
                f"photometry takes two entries (view 1, view 2), got {len(self.photometry)}"
            )
        self.scale = scale
        self.ratio = ratio
        self.crop_mode: CropMode = crop_mode
        self.resampling: Resampling = resampling

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``views (2, C, H, W)`` of an image (H, W) uint8."""
        check_image(image)
        law = CropLaw(
            self.image_size, self.scale, self.ratio, self.flip, self.crop_mode, self.resampling
        )
        crops = augmented_crops(image, law, self.photometry, self.normalised_levels, rng)
        return {"views": crops.expand(-1, self.in_chans, -1, -1)}
