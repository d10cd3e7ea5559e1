"""The iBOT loss on masked patch tokens."""

from torch import Tensor

from cxrssl.losses.cross_entropy import soft_cross_entropy

__all__ = ["ibot_loss", "mask_weights"]


def mask_weights(masks: Tensor, index: Tensor) -> Tensor:
    """Return 1 / n_b for every masked patch of crop b, in the order of the masked patches.

    Args:
        masks: (V, N) bool, True where a patch of the crop is masked.
        index: (M,) positions of the masked patches in the flattened masks, ``masks.flatten()
            .nonzero()[:, 0]``; found once a step, since finding them makes a GPU wait.

    Returns:
        (M,) float32.
    """
    per_crop = 1 / masks.sum(-1).clamp(min=1).float()  # (V,)
    return per_crop[index // masks.shape[1]]


def ibot_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, n_crops: int, temperature: float = 0.1
) -> Tensor:
    """Return the masked-patch cross-entropy, averaged within crops and then over all crops.

    (1 / V) sum_b (1 / n_b) sum_{i masked in b} CE(student_bi, teacher_bi), where the V crops
    include those without a mask, as in the DINOv2 code.

    Args:
        student: (M, K) logits of the masked patches.
        teacher: (M, K) probabilities of the same patches of the same crops.
        weights: (M,) see :func:`mask_weights`.
        n_crops: V.
        temperature: Temperature of the student.
    """
    return (soft_cross_entropy(student, teacher, temperature) * weights).sum() / n_crops
