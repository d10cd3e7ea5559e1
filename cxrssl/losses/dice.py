"""Segmentation losses on masks of which parts may be unknown: soft Dice and cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import all_sum, world_size

__all__ = ["bce_of_images", "dice_of_images", "segmentation_bce", "soft_dice"]

_UNKNOWN = 255


def soft_dice(logits: Tensor, masks: Tensor, smooth: float = 1e-5) -> Tensor:
    """Return the mean over images and structures of 1 - (2 sum p t + s) / (sum p + sum t + s).

    With p = sigmoid(logits) and the truth t, as MONAI's ``DiceLoss(sigmoid=True)`` has it (V-Net,
    arXiv 1606.04797, without its squares). The sums run over the known pixels of one image and one
    structure; where none is known, it is left out of the mean. The mean of nothing is 0, with a
    gradient of 0. In float32 whatever the precision of the run.

    With several processes, the sum is divided by the number that counts in all of them, and
    multiplied by the number of processes, so that the mean that distributed training takes of their
    gradients is the gradient of the mean over the global batch.

    Args:
        logits: (B, K, H, W).
        masks: (B, K, H, W) uint8: 1 inside, 0 outside, 255 unknown.
        smooth: Added above and below, so that no structure and no prediction have a loss of 0.

    Raises:
        ValueError: If the shapes differ.
    """
    sums, counts = dice_of_images(logits, masks, smooth)
    return _mean(sums, counts)


def segmentation_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the binary cross-entropy, the mean over all known pixels, in float32.

    The mean of nothing is 0, with a gradient of 0. With several processes as :func:`soft_dice`.

    Args:
        logits: (B, K, H, W).
        masks: (B, K, H, W) uint8: 1 inside, 0 outside, 255 unknown.

    Raises:
        ValueError: If the shapes differ.
    """
    return _mean(*bce_of_images(logits, masks))


def dice_of_images(logits: Tensor, masks: Tensor, smooth: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Return what :func:`soft_dice` averages: sums (B,) over structures, and their numbers (B,)."""
    known = _known(logits, masks)
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.float().sigmoid() * known
        truth = (masks == 1).float()
        overlap = (probabilities * truth).sum((2, 3))  # (B, K)
        total = (probabilities + truth).sum((2, 3))
        losses = 1 - (2 * overlap + smooth) / (total + smooth)
        counted = known.flatten(2).any(2)
        return (losses * counted).sum(1), counted.sum(1)


def bce_of_images(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`segmentation_bce` averages: sums (B,) over pixels, and numbers (B,)."""
    known = _known(logits, masks)
    with torch.autocast(logits.device.type, enabled=False):
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), (masks == 1).float(), weight=known.float(), reduction="none"
        )
        return losses.sum((1, 2, 3)), known.sum((1, 2, 3))


def _known(logits: Tensor, masks: Tensor) -> Tensor:
    """Return which pixels are known, (B, K, H, W) bool."""
    if logits.shape != masks.shape or logits.dim() != 4:
        raise ValueError(
            f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)} must both be (B, K, H, W)"
        )
    return masks != _UNKNOWN


def _mean(sums: Tensor, counts: Tensor) -> Tensor:
    """Return a mean over all processes, as this process's share of it."""
    return sums.sum() * world_size() / all_sum(counts.sum()).clamp(min=1)
