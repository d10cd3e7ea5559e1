"""A linear probe in closed form: ridge regression on every finding at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.metrics import known_labels

__all__ = ["RidgeProbe"]

PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""Penalties tried, as multiples of the number of images."""

_SMALLEST_STD = 1e-6


class RidgeProbe:
    """Linear regression of 0/1 labels on standardised features, with a quadratic penalty.

    Least squares ranks images nearly as logistic regression does and needs no iterations: one
    eigendecomposition (D, D) serves every penalty and every finding with the same known labels.
    The penalty of each finding minimises the exact leave-one-out squared error on the training
    images, which is e_i / (1 - h_i) with the leverage h_i (Allen's PRESS), so that no image has to
    be held out.

    Args:
        penalties: Candidates, relative to the number of images: 1 shrinks a direction of average
            variance by half.

    Raises:
        ValueError: If there is no candidate or one is not positive.
    """

    def __init__(self, *, penalties: Sequence[float] = PENALTIES) -> None:
        if not penalties or min(penalties) <= 0:
            raise ValueError(f"penalties must be positive and at least one, got {penalties}")
        self.penalties = np.asarray(penalties, dtype=np.float64)

    def fit(self, features: NDArray[np.floating], labels: NDArray[np.floating]) -> "RidgeProbe":
        """Fit every finding to the images whose label is known; a constant where there are none.

        Args:
            features: (n, D).
            labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).

        Raises:
            ValueError: If the numbers of rows differ, there is no row, or a feature is not finite.
        """
        if len(features) != len(labels) or len(features) == 0:
            raise ValueError(
                f"features {features.shape} and labels {labels.shape} must have the same number of "
                "rows, at least one"
            )
        x = features.astype(np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"{np.sum(~np.isfinite(x).all(1))} of {len(x)} features hold NaN/inf")
        self.mean = x.mean(0)
        self.std = np.maximum(x.std(0), _SMALLEST_STD)  # a constant feature stays at zero
        x = (x - self.mean) / self.std
        self.coefficients = np.zeros((x.shape[1], labels.shape[1]))
        self.intercepts = np.zeros(labels.shape[1])
        self.chosen = np.full(labels.shape[1], np.nan)
        patterns, pattern_of = np.unique(known_labels(labels), axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            rows, columns = patterns[:, pattern], np.flatnonzero(pattern_of.ravel() == pattern)
            if rows.any():
                self._fit_findings(x[rows], labels[np.ix_(rows, columns)], columns)
        return self

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return scores (n, F) of features (n, D): about 0 for absent, about 1 for present."""
        x = (features.astype(np.float64) - self.mean) / self.std
        scores: NDArray[np.float64] = x @ self.coefficients + self.intercepts
        return scores

    def _fit_findings(
        self,
        x: NDArray[np.float64],
        labels: NDArray[np.floating],
        columns: NDArray[np.integer],
    ) -> None:
        """Fit findings (n, f) that are known on the same n images, and store them in columns."""
        n = len(x)
        centre, prevalence = x.mean(0), labels.mean(0, dtype=np.float64)
        x, y = x - centre, labels - prevalence
        eigenvalues, axes = np.linalg.eigh(x.T @ x)
        eigenvalues = np.maximum(eigenvalues, 0)  # rounding may leave tiny negatives
        rotated = x @ axes  # (n, D)
        moments = rotated.T @ y  # (D, f)
        errors = np.empty((len(self.penalties), len(columns)))
        for row, penalty in enumerate(self.penalties * n):
            shrink = 1 / (eigenvalues + penalty)
            residual = y - rotated @ (shrink[:, None] * moments)
            leverage = np.square(rotated) @ shrink + 1 / n
            # n = 1 has leverage 1 and residual 0.
            left_out = residual / np.maximum(1 - leverage, 1e-12)[:, None]
            errors[row] = np.square(left_out).mean(0)
        chosen = self.penalties[errors.argmin(0)]  # (f,)
        shrink = 1 / (eigenvalues[:, None] + n * chosen)
        coefficients = axes @ (shrink * moments)
        self.coefficients[:, columns] = coefficients
        self.intercepts[columns] = prevalence - centre @ coefficients
        self.chosen[columns] = chosen
