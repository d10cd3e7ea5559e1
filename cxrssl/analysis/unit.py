"""Vectors of unit length, whose products are cosines."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_length"]


def unit_length(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return vectors (..., D) of unit length, in float64; zeros stay zeros."""
    whole = vectors.astype(np.float64)
    length = np.linalg.norm(whole, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = whole / np.maximum(length, 1e-12)
    return unit
