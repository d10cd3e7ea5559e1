"""Errors by how far a patch is from what is seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.world_scores import Estimates

__all__ = ["BinnedError", "Bins"]


class Bins:
    """Bins of equal width that hold all of some values; they may be empty in between.

    A value on an edge belongs to the bin below, as a patch on the border belongs to the inside.

    Attributes:
        groups: Which values (...) are in each of G bins, (G, ...).
        edges: Edges (G + 1,), multiples of the width.

    Args:
        values: Of any shape.
        width: Width of a bin.
    """

    def __init__(self, values: NDArray[np.floating], width: float) -> None:
        number = np.ceil(values / width).astype(np.intp)
        numbers = np.arange(number.min(), number.max() + 1)
        self.groups: NDArray[np.bool_] = number == numbers.reshape(-1, *[1] * values.ndim)
        self.edges: NDArray[np.float64] = np.append(numbers[0] - 1, numbers) * width


@dataclass(frozen=True)
class BinnedError:
    """Mean squared errors in G bins.

    Attributes:
        edges: Edges of the bins, (G + 1,).
        error: Error of each condition, (G,).
        mean_token: Error of the mean of all tokens, (G,).
        patches: Patches in each bin, (G,).
        images: Images they are from, (G,).
    """

    edges: NDArray[np.float64]
    error: Mapping[str, Estimates]
    mean_token: NDArray[np.float64]
    patches: NDArray[np.int64]
    images: NDArray[np.int64]

    def bounds(self) -> Iterator[tuple[float, float]]:
        """Return the lower and upper edge of each bin."""
        return pairwise(self.edges.tolist())
