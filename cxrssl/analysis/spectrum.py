"""How much of their space features use: measures of collapse that need no labels."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["effective_rank", "feature_spread"]


def effective_rank(features: NDArray[np.floating], *, centred: bool = False) -> float:
    """Return exp(entropy) of the normalised singular values, RankMe (arXiv 2210.02885).

    It counts the directions in use: 1 where all features lie on one line, min(n, D) where all
    singular values are equal, 0 where every feature is zero. Computed in float64.

    Args:
        features: (n, D).
        centred: Remove the mean feature first. RankMe does not, and then a large common direction
            hides the others; the centred rank sees dimensional collapse only.

    Raises:
        ValueError: If there is no feature or one is not finite.
    """
    x = _checked(features)
    if centred:
        x = x - x.mean(0)
    singular = np.linalg.svd(x, compute_uv=False)
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def feature_spread(features: NDArray[np.floating]) -> float:
    """Return sqrt(D) times the mean over dimensions of the std of L2-normalised features.

    Near 1 where features point in all directions alike, 0 where all images get the same one.

    Args:
        features: (n, D).

    Raises:
        ValueError: If there is no feature or one is not finite.
    """
    x = _checked(features)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(norm == 0, 1, norm)
    return float(np.sqrt(x.shape[1]) * x.std(0).mean())


def _checked(features: NDArray[np.floating]) -> NDArray[np.float64]:
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f"features must be (n, D) with n and D positive, got {features.shape}")
    x = features.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{np.sum(~np.isfinite(x).all(1))} of {len(x)} features hold NaN or inf")
    return x
