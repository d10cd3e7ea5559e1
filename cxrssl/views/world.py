"""Views of a world model: two crops of a radiograph, clean and distorted, and how they relate."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.errors import InputError
from cxrssl.views.base import (
    MIMIC_MEAN,
    MIMIC_STD,
    Views,
    check_image,
    check_range,
    patch_grid,
)
from cxrssl.views.crops import Box, Resampling, check_crop, draw_box, resize
from cxrssl.views.distortion import IDENTITY, Distortion
from cxrssl.views.multiblock import MultiBlockMasking
from cxrssl.views.pixels import LEVELS, look_up, mean_level, scale_levels

__all__ = ["CropPair", "Jitter", "WorldViews", "cut", "jitter_table", "relative_offsets"]

PUBLISHED_DISTORTION = Distortion()


class Jitter(NamedTuple):
    """Brightness and contrast of a whole image, and which comes first."""

    brightness: float
    contrast: float
    contrast_first: bool


class CropPair(NamedTuple):
    """Two crops of one image, of the same box size, and where they lie."""

    crops: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    """Crops (S, S)."""
    offset: NDArray[np.float32]
    """(2, 4): row v places crop v in the frame of the other; see :func:`relative_offsets`."""
    boxes: tuple[Box, Box]
    """Each box in its crop's frame: the image, mirrored where the crop is flipped."""
    flips: tuple[bool, bool]
    """Whether each crop is flipped horizontally."""
    width: int
    """Width of the image in pixels."""


class WorldViews(Views):
    """Views of CheXWorld (arXiv 2504.13820): two crops, of which the context is distorted.

    A sample is ``context (2, C, H, W)``, the distorted crops; ``target (2, C, H, W)``, the clean
    ones; ``action (2, 5)``, the parameters of the distortions in the order of ``ACTION``; and
    ``offset (2, 4)``, whose row v places crop v in the frame of the other crop (see
    :func:`relative_offsets`), which is what a prediction of crop v from the other is told. A batch
    adds ``context_index (B, 2, Kc)`` and ``target_index (B, 2, Kt)`` int64, the patches the context
    encoder sees and those to predict. One set of masks serves both crops: the second crops have the
    rows of the first in an order drawn once for both indices.

    The whole image is jittered first, so that both crops, clean or distorted, share it. Each crop
    is flipped or not on its own; both boxes have the same size, hence the same scale.

    Deviations from the released code: the image has one channel; ``min_overlap`` compares boxes in
    the image rather than in frames that may be mirrored.

    Args:
        image_size: Side of the crops in pixels, a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        scale: Smallest and largest share of the image's area in a crop.
        ratio: Smallest and largest width / height of a crop's box.
        min_overlap: Smallest overlap of the two boxes along each axis, as a share of the box's
            side and up to rounding to pixels. ``None`` sets no bound.
        flip: Probability of a horizontal flip, drawn for each crop.
        jitter_p: Probability that the whole image is jittered.
        jitter_brightness: Smallest and largest factor of the jitter.
        jitter_contrast: Smallest and largest factor of the jitter.
        distortion: The distortion of the contexts.
        normalise_action: Whether actions are given on common scales; see
            :meth:`Distortion.normalise`. Released weights take raw values.
        resampling: ``"pillow"`` equals the released code in every pixel, ``"area"`` is quicker; see
            :func:`resize`.
        context_scale: Smallest and largest area of a context block, as a share of the grid.
        target_scale: Smallest and largest area of a target block, as a share of the grid.
        target_ratio: Smallest and largest height / width of a target block.
        n_targets: Target blocks of an image, united into one target set.
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
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        min_overlap: float | None = None,
        flip: float = 0.5,
        jitter_p: float = 0.8,
        jitter_brightness: tuple[float, float] = (0.6, 1.4),
        jitter_contrast: tuple[float, float] = (0.6, 1.4),
        distortion: Distortion = PUBLISHED_DISTORTION,
        normalise_action: bool = False,
        resampling: Resampling = "pillow",
        context_scale: tuple[float, float] = (0.75, 1.0),
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_ratio: tuple[float, float] = (0.75, 1.5),
        n_targets: int = 4,
        min_keep: int = 10,
        max_keep: int | None = None,
        random_keep: bool = False,
        in_chans: int = 1,
        mean: float = MIMIC_MEAN,
        std: float = MIMIC_STD,
    ) -> None:
        super().__init__(image_size=image_size, in_chans=in_chans, mean=mean, std=std)
        check_crop(scale, ratio, resampling=resampling)
        for name, share in (("min_overlap", min_overlap), ("flip", flip), ("jitter_p", jitter_p)):
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"{name} must be in [0, 1], got {share}")
        check_range("jitter_brightness", jitter_brightness)
        check_range("jitter_contrast", jitter_contrast)
        self.patch_size = patch_size
        self.scale = scale
        self.ratio = ratio
        self.min_overlap = min_overlap
        self.flip = flip
        self.jitter_p = jitter_p
        self.jitter_brightness = jitter_brightness
        self.jitter_contrast = jitter_contrast
        self.distortion = distortion
        self.normalise_action = normalise_action
        self.resampling: Resampling = resampling
        self.masking = MultiBlockMasking(
            patch_grid(image_size, patch_size),
            context_scale=context_scale,
            target_scale=target_scale,
            target_ratio=target_ratio,
            n_targets=n_targets,
            sampler="corrected",
            merge=True,
            min_keep=min_keep,
            max_keep=max_keep,
            random_keep=random_keep,
        )

    @property
    def identity_action(self) -> NDArray[np.float32]:
        """The action (5,) of no distortion, as the predictor is told it."""
        return self._told(np.array(IDENTITY, dtype=np.float32))

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Tensor]:
        """Return ``context``, ``target``, ``action`` and ``offset`` of an image (H, W) uint8."""
        pair = self.crop_pair(self.jitter(image, rng), rng)
        actions = [self.distortion.draw(rng) for _ in pair.crops]
        return self.sample(pair, np.stack(actions), rng)

    def collate(
        self, samples: Sequence[dict[str, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Stack samples into a batch and draw its ``context_index`` and ``target_index``."""
        batch = super().collate(samples, rng)
        drawn = self.masking.collate_masks(len(samples), rng)
        # One order for both: a context must not meet the target set of another image.
        order = rng.permutation(len(samples))
        for name, indices in zip(("context_index", "target_index"), drawn, strict=True):
            both = np.concatenate([indices, indices[order]], axis=1)
            batch[name] = torch.from_numpy(both)
        return batch

    def jitter(
        self,
        image: NDArray[np.uint8],
        rng: np.random.Generator,
        probability: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return an image with random brightness and contrast.

        Args:
            image: (H, W) uint8; returned as it is where nothing is drawn.
            rng: Source of every draw.
            probability: Probability of a change, instead of ``jitter_p``.
        """
        check_image(image)
        if not rng.random() < (self.jitter_p if probability is None else probability):
            return image
        drawn = Jitter(
            rng.uniform(*self.jitter_brightness),
            rng.uniform(*self.jitter_contrast),
            bool(rng.random() < 0.5),
        )
        # Two crops have more pixels than the image on average: it is changed once, as a whole.
        return look_up(image, jitter_table(image, drawn))

    def crop_pair(self, image: NDArray[np.uint8], rng: np.random.Generator) -> CropPair:
        """Cut two random crops of the same box size out of an image (H, W) uint8."""
        check_image(image)
        height, width = image.shape
        flips = bool(rng.random() < self.flip), bool(rng.random() < self.flip)
        first = draw_box(height, width, self.scale, self.ratio, rng)
        top, left = first.top, first.left
        if flips[0] != flips[1]:
            left = width - first.width - left
        second = first._replace(
            top=self._place(top, first.height, height, rng),
            left=self._place(left, first.width, width, rng),
        )
        return self.pair_at(image, (first, second), flips)

    def pair_at(
        self, image: NDArray[np.uint8], boxes: tuple[Box, Box], flips: tuple[bool, bool]
    ) -> CropPair:
        """Cut two crops of the same box size at given places.

        Args:
            image: (H, W) uint8.
            boxes: The boxes, each in the mirrored image where its crop is flipped.
            flips: Whether each crop is flipped.
        """
        first, second = (
            resize(cut(image, box, flip), self.image_size, self.image_size, self.resampling)
            for box, flip in zip(boxes, flips, strict=True)
        )
        width = image.shape[1]
        offset = relative_offsets(boxes, flips, width)
        return CropPair((first, second), offset, boxes, flips, width)

    def distort(
        self,
        crop: NDArray[np.uint8],
        rng: np.random.Generator,
        probability: float | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Distort a crop at random.

        Args:
            crop: (S, S) uint8.
            rng: Source of every draw.
            probability: Probability of brightness, contrast and gamma, instead of the
                distortion's.

        Returns:
            The distorted crop (S, S) uint8, and the action (5,) as the predictor is told it.
        """
        action = self.distortion.draw(rng, probability)
        return self.distortion.apply(crop, action, rng), self._told(action)

    def sample(
        self, pair: CropPair, actions: NDArray[np.float32], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Return the sample of two crops under given distortions.

        Args:
            pair: The clean crops.
            actions: Raw actions (2, 5).
            rng: Source of noise.
        """
        shape = (2, 1, self.image_size, self.image_size)
        context, target = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for number, (crop, action) in enumerate(zip(pair.crops, actions, strict=True)):
            pixels, table = self.distortion.apply_but_look_up(crop, action, rng)
            cv2.LUT(pixels, self.normalised_levels[table], dst=context[number, 0])
            cv2.LUT(crop, self.normalised_levels, dst=target[number, 0])
        return {
            "context": torch.from_numpy(context).expand(-1, self.in_chans, -1, -1),
            "target": torch.from_numpy(target).expand(-1, self.in_chans, -1, -1),
            "action": torch.from_numpy(self._told(actions)),
            "offset": torch.from_numpy(pair.offset),
        }

    def _place(self, other: int, side: int, length: int, rng: np.random.Generator) -> int:
        """Draw where a box starts along an axis, given where the other box starts."""
        low, high = 0, length - side
        if self.min_overlap is not None:
            reach = (1 - self.min_overlap) * side
            low, high = max(low, round(other - reach)), min(high, round(other + reach))
        return int(rng.integers(low, high, endpoint=True))

    def _told(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return actions (..., 5) as the predictor is told them."""
        return self.distortion.normalise(actions) if self.normalise_action else actions


def jitter_table(image: NDArray[np.uint8], jitter: Jitter) -> NDArray[np.uint8]:
    """Return the table (256,) uint8 of a jitter of an image (H, W), rounded after each step."""
    table = LEVELS
    if jitter.contrast_first:
        table = scale_levels(table, jitter.contrast, mean_level(image, table))
        return scale_levels(table, jitter.brightness)
    table = scale_levels(table, jitter.brightness)
    return scale_levels(table, jitter.contrast, mean_level(image, table))


def cut(image: NDArray[np.uint8], box: Box, flip: bool) -> NDArray[np.uint8]:
    """Return a box of an image (H, W) uint8, or of its mirror image with ``flip``."""
    top, left, height, width = box
    if not flip:
        return image[top : top + height, left : left + width]
    left = image.shape[1] - width - left
    return np.asarray(cv2.flip(image[top : top + height, left : left + width], 1), dtype=np.uint8)


def relative_offsets(
    boxes: tuple[Box, Box], flips: tuple[bool, bool], width: int
) -> NDArray[np.float32]:
    """Return how two crops of one image lie to each other.

    Row v, about crop v in the frame of the other crop o, is ``(top_v - top_o) / height``, ``(left_v
    - left_o) / width``, 1 if one of them is mirrored against the other and else 0, and ``(W -
    left_v - left_o) / width``, where height and width are the box's and W the image's. Boxes are in
    each crop's own, mirrored or not, frame. Of the second and the fourth number, the second counts
    where the third is 0, the fourth where it is 1: column x of crop v, in box widths, is then
    column ``fourth - x`` of the frame of o.

    Args:
        boxes: The boxes, of the same size.
        flips: Whether each crop is flipped.
        width: Width W of the image in pixels.

    Returns:
        (2, 4) float32.
    """
    first, second = boxes
    mirrored = float(flips[0] != flips[1])
    reach = (width - first.left - second.left) / first.width
    rows = [
        ((it.top - other.top) / it.height, (it.left - other.left) / it.width, mirrored, reach)
        for it, other in ((first, second), (second, first))
    ]
    return np.array(rows, dtype=np.float32)
