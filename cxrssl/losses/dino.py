"""The DINO loss between class tokens of different crops."""

from torch import Tensor

from cxrssl.losses.cross_entropy import soft_cross_entropy

__all__ = ["dino_global_loss", "dino_local_loss", "dino_pair_count"]


def dino_pair_count(n_global: int, n_local: int) -> int:
    """Return the number of (student crop, teacher crop) pairs the loss is averaged over.

    With two global crops that is 2 + 2 L. Without local crops the released DINOv2 code still counts
    one local pair, so the global term is scaled by 2/3; that is kept.
    """
    return n_global + max(n_global * n_local, 1)


def dino_local_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the share of the DINO loss in which the student sees local crops.

    sum over local crops l and global crops g of mean_B CE(student_l, teacher_g), divided by the
    number of pairs (global ones included).

    Args:
        student: (L, B, K) logits of the local crops.
        teacher: (G, B, K) probabilities of the global crops.
        temperature: Temperature of the student.
    """
    n_local, n_global = len(student), len(teacher)
    # The cross-entropy is linear in the teacher, so the crops of an image add up first.
    per_row = soft_cross_entropy(student, teacher.float().sum(0).expand_as(student), temperature)
    return per_row.mean(-1).sum() / dino_pair_count(n_global, n_local)


def dino_global_loss(
    student: Tensor, teacher: Tensor, n_local: int, temperature: float = 0.1
) -> Tensor:
    """Return the share of the DINO loss in which the student sees the other global crop.

    Args:
        student: (2, B, K) logits of the two global crops.
        teacher: (2, B, K) probabilities of the same two crops, in the same order; a crop is never
            compared with itself.
        n_local: Number of local crops, which enters the number of pairs.
        temperature: Temperature of the student.
    """
    if len(student) != 2 or len(teacher) != 2:
        raise ValueError(
            f"the DINO loss pairs two global crops, got {len(student)} and {len(teacher)}"
        )
    per_row = soft_cross_entropy(student, teacher.flip(0), temperature)
    return per_row.mean(-1).sum() / dino_pair_count(2, n_local)
