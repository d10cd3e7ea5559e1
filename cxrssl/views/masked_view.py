"""The view of I-JEPA: one crop, and which of its patches are context and target."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD, Views, check_image, patch_grid
from cxrssl.views.crops import Resampling, check_crop, random_resized_crop
from cxrssl.views.multiblock import BlockSampler, MultiBlockMasking

__all__ = ["MaskedView"]

RATIO = (3 / 4, 4 / 3)


class MaskedView(Views):
    """One random crop with context and target blocks, as I-JEPA (arXiv 2301.08243) trains on.

    A sample is ``image (C, H, W)``; a batch is ``image (B, C, H, W)`` and, int64, ``context_index
    (B, E, Kc)`` and ``target_index (B, P, Kt)``: the patches of each of the E contexts and of each
    of the P target blocks. Nothing changes the grey values.

    Deviations from the released code: the image has one channel, and the crop is resized over areas
    or bicubically instead of bilinearly.

    Args:
        image_size: Side of the crop in pixels, a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        scale: Smallest and largest share of the image's area in the crop.
        flip: Probability of a horizontal flip.
        resampling: See :func:`resize`.
        sampler: Law of the blocks; see :class:`MultiBlockMasking`.
        context_scale: Smallest and largest area of a context block, as a share of the grid.
        target_scale: Smallest and largest area of a target block, as a share of the grid.
        target_ratio: Smallest and largest height / width of a target block.
        n_contexts: Contexts E of an image.
        n_targets: Target blocks P of an image, which all its contexts share.
        min_keep: Contexts and blocks have more patches than this before ``max_keep`` shortens
            them; see :class:`MultiBlockMasking`.
        max_keep: Largest Kc and Kt. ``None`` sets no bound.
        random_keep: Whether sets are shortened at random; see :class:`MultiBlockMasking`.
        in_chans: Channels C of the tensors; the grey image is repeated C times.
        mean: Mean subtracted after scaling the pixels to [0, 1].
        std: Standard deviation the result is divided by.

    Raises:
        InputError: An option is out of range, or the blocks and ``min_keep`` do not fit the grid.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        scale: tuple[float, float] = (0.3, 1.0),
        flip: float = 0.0,
        resampling: Resampling = "area",
        sampler: BlockSampler = "ijepa",
        context_scale: tuple[float, float] = (0.85, 1.0),
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_ratio: tuple[float, float] = (0.75, 1.5),
        n_contexts: int = 1,
        n_targets: int = 4,
        min_keep: int = 10,
        max_keep: int | None = None,
        random_keep: bool = False,
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        check_crop(scale, RATIO, resampling=resampling)
        if not 0 <= flip <= 1:
            raise InputError(f"flip must be a probability, got {flip}")
        self.patch_size = patch_size
        self.scale = scale
        self.flip = flip
        self.resampling: Resampling = resampling
        self.masking = MultiBlockMasking(
            patch_grid(image_size, patch_size),
            context_scale=context_scale,
            target_scale=target_scale,
            target_ratio=target_ratio,
            n_contexts=n_contexts,
            n_targets=n_targets,
            sampler=sampler,
            min_keep=min_keep,
            max_keep=max_keep,
            random_keep=random_keep,
        )

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``image (C, H, W)`` of an image (H, W) uint8."""
        check_image(image)
        crop, _ = random_resized_crop(
            image, self.image_size, self.scale, RATIO, rng, resampling=self.resampling
        )
        if rng.random() < self.flip:
            crop = np.asarray(cv2.flip(crop, 1), dtype=np.uint8)
        return {"image": self.to_tensor(crop)}

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Stack samples into a batch and draw its ``context_index`` and ``target_index``."""
        batch = super().collate(samples, rng)
        contexts, targets = self.masking.collate_masks(len(samples), rng)
        batch["context_index"] = torch.from_numpy(contexts)
        batch["target_index"] = torch.from_numpy(targets)
        return batch
