"""Where the patches of one crop lie in the frame of another."""

import numpy as np
import torch
from numpy.typing import NDArray

from cxrssl.backbones import place_in_other_crop

__all__ = ["offset_lengths", "outside_distances", "place_patches"]


def place_patches(
    offset: NDArray[np.floating], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the row and column, each (n, N), of a crop's patches in another crop's frame.

    Both are real numbers that count patches, 0 at the first patch's centre.

    Args:
        offset: (n, 4) as the views make it: the crop lies dy and dx crop sides below and to the
            right of the other, is mirrored against it (1) or not (0), and, if mirrored, has its
            right border ``offset[3]`` sides to the right of the other's left border.
        side: Patches along a side of both crops, N = side * side.
    """
    index = torch.arange(side * side).expand(len(offset), -1)
    places = place_in_other_crop(index, (side, side), torch.from_numpy(offset))
    rows, columns = (place.numpy().astype(np.float64) for place in places)
    return rows, columns


def outside_distances(
    rows: NDArray[np.floating], columns: NDArray[np.floating], side: int
) -> NDArray[np.float64]:
    """Return how far patch centres lie outside a frame of side * side patches, in patches.

    The distance is Euclidean, to the frame's border; inside the frame it is negative.
    """
    half = side / 2
    down = np.abs(rows + 0.5 - half) - half
    across = np.abs(columns + 0.5 - half) - half
    outside = np.hypot(np.maximum(down, 0), np.maximum(across, 0))
    distances: NDArray[np.float64] = outside + np.minimum(np.maximum(down, across), 0)
    return distances


def offset_lengths(offset: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the distance (n,) between the centres of two crops, in crop sides.

    Args:
        offset: (n, 4), see `place_patches`.
    """
    dy, dx, mirrored, right = offset.astype(np.float64).T
    lengths: NDArray[np.float64] = np.hypot(dy, np.where(mirrored > 0.5, right - 1, dx))
    return lengths
