"""The random view that labelled images are learned from."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.views.augment import RATIO
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD, Channels, Views, check_image
from cxrssl.views.crops import Resampling
from cxrssl.views.eval_view import EvalView, stretched_levels
from cxrssl.views.photometry import Photometry
from cxrssl.views.structures import check_masks
from cxrssl.views.warp import Warp, WarpLaw

__all__ = ["EXPOSURE", "SupervisedView"]

EXPOSURE = Photometry(brightness=(0.8, 1.2), contrast=(0.8, 1.2), noise=0.02)
"""Brightness, contrast and noise that vary between radiographs with the same findings."""


class SupervisedView(Views):
    """A random view of a labelled image, and of its masks.

    A sample is ``image (C, H, W)``, a batch ``image (B, C, H, W)``; with masks, a sample has
    ``masks (K, H, W)`` uint8 too.

    The steps are those RAD-DINO (arXiv 2401.10815, App. C.3) names for its probes and decoders:
    flip, crop, affine map, colour jitter, noise, and for masks an elastic deformation. It does not
    publish their ranges; the defaults are moderate ones of ours. Crop and affine map are one map,
    so that pixels are interpolated once. What it shows beside the image is black.

    A horizontal flip exchanges the sides. Switch it off (``flip=0``) where a target tells left from
    right: lungs or ribs by side, lung zones; and mind that it shows the heart on the other side
    (dextrocardia), and side markers in mirror writing.

    Published transforms for fine-tuning, with ``degrees=0``, ``translate=0``, ``zoom=(1, 1)``:
    CheXWorld (arXiv 2504.13820) has ``scale=(0.4, 1)``, brightness and contrast in (0.8, 1.2) and
    ``resize=256`` at 224 pixels; CheXFound ``scale=(0.75, 1)``, ``rescale=True`` and no photometry.
    Both resample with Pillow.

    Args:
        image_size: Side of the view in pixels, H = W.
        scale: Smallest and largest share of the image's area in the crop.
        ratio: Smallest and largest width / height of the crop's box, which becomes a square.
        flip: Probability of a horizontal flip.
        degrees: Largest rotation to either side.
        translate: Largest shift in each direction, as a share of the side; at most 0.5.
        zoom: Smallest and largest magnification about the centre.
        elastic: Standard deviation of a smooth random displacement, in each direction, as a share
            of the side; at most 0.1. From about 0.03 the image may fold.
        photometry: Change of the grey values. ``None`` is none.
        rescale: Whether the grey values of the view are stretched to the whole range before the
            photometry, as in CheXFound. A view of a single grey value becomes 0.
        resize: Length in pixels of the shorter side before the centre crop of the deterministic
            view; see :class:`EvalView`. The random view does not depend on it.
        resampling: See :func:`cxrssl.views.resize`.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1], of all channels or of each.
        std: Standard deviation the result is divided by, of all channels or of each.

    Raises:
        InputError: An option is out of range or unknown.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = RATIO,
        flip: float = 0.5,
        degrees: float = 15.0,
        translate: float = 0.05,
        zoom: tuple[float, float] = (0.9, 1.1),
        elastic: float = 0.0,
        photometry: Photometry | None = EXPOSURE,
        rescale: bool = False,
        resize: int | None = None,
        resampling: Resampling = "area",
        in_chans: int = 1,
        mean: Channels = MIMIC_MEAN,
        std: Channels = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        self.law = WarpLaw(image_size, scale, ratio, flip, degrees, translate, zoom, elastic)
        self.photometry = photometry
        self._eval_view = EvalView(
            image_size=image_size,
            resize=resize,
            rescale=rescale,
            resampling=resampling,
            in_chans=in_chans,
            mean=mean,
            std=std,
        )

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``image (C, H, W)`` of an image (H, W) uint8."""
        check_image(image)
        height, width = image.shape
        return {"image": self._view(image, self.law.draw(height, width, rng), rng)}

    def with_masks(
        self, image: NDArray[np.uint8], masks: NDArray[np.uint8], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Return a view of an image with its masks.

        Args:
            image: (H, W) uint8.
            masks: (K, H, W) uint8.
            rng: Source of every draw; the draws are those without masks.

        Returns:
            ``image (C, H, W)``, as without masks, and ``masks (K, H, W)`` uint8 under the same
            geometry, of which each pixel is the nearest in the masks given; 0 beside the image.
        """
        check_image(image)
        check_masks(masks, image)
        height, width = image.shape
        warp = self.law.draw(height, width, rng)
        return {
            "image": self._view(image, warp, rng),
            "masks": torch.from_numpy(warp.masks(masks)),
        }

    def eval_view(self) -> EvalView:
        """Return the deterministic view of the same size, grey values and resampling."""
        return self._eval_view

    def _view(self, image: NDArray[np.uint8], warp: Warp, rng: np.random.Generator) -> Tensor:
        rescale = self._eval_view.rescale
        # The stretch makes the darkest pixels black, and with them what is beside the image.
        fill = int(image.min()) if rescale else 0
        view = warp.image(image, fill, self._eval_view.resampling)
        if self.photometry is None:
            return self.to_tensor(view, self._eval_view.levels(view))
        if rescale:
            table = np.rint(255 * stretched_levels(view)).astype(np.uint8)
            view = np.asarray(cv2.LUT(view, table), dtype=np.uint8)
        pixels, table = self.photometry.draw(view, rng)
        return self.to_tensor(pixels, self.normalised_levels[table])
