"""Weighted box fusion: one box of those that several readers drew."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cxrssl.data.releases.boxes import Box

__all__ = ["fuse_boxes"]

OVERLAP = 0.55
"""Intersection over union above which boxes are of one thing, as published."""


def fuse_boxes(boxes: Iterable[Box], overlap: float = OVERLAP) -> list[Box]:
    """Return the boxes of several readers with those that overlap fused into their mean.

    Weighted box fusion (Solovyev, Wang & Gabruseva, Image and Vision Computing 2021) of readers
    that weigh the same: a box joins the fused box of its finding that it overlaps most, if by more
    than `overlap`, which then is the mean of all its boxes; else it starts a new one. Boxes are
    taken from left to right, so that their order does not matter. A box that no other overlaps
    stays. Fused boxes have no reader; they come finding by finding.

    Args:
        boxes: Boxes of one image.
        overlap: Intersection over union from 0 to 1.
    """
    corners: dict[str, list[tuple[float, float, float, float]]] = {}
    for box in boxes:
        sides = (box.left, box.top, box.right, box.bottom)
        corners.setdefault(box.finding, []).append(sides)
    return [
        Box(finding, *mean.tolist())
        for finding, found in corners.items()
        for mean in _fuse(np.array(sorted(found), dtype=np.float64), overlap)
    ]


def _fuse(boxes: NDArray[np.float64], overlap: float) -> list[NDArray[np.float64]]:
    """Return the means (4,) of the groups of boxes (n, 4) of one finding."""
    groups: list[list[NDArray[np.float64]]] = []
    means: list[NDArray[np.float64]] = []
    for box in boxes:
        shares = _overlaps(box, np.array(means).reshape(-1, 4))
        if means and shares.max() > overlap:
            best = int(shares.argmax())
            groups[best].append(box)
            means[best] = np.mean(groups[best], axis=0)
        else:
            groups.append([box])
            means.append(box)
    return means


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union (n,) of a box (4,) with others (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    union = areas - common
    shares: NDArray[np.float64] = np.zeros_like(common)
    np.divide(common, union, out=shares, where=union > 0)
    return shares
