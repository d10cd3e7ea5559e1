"""Logistic regression of every finding, its penalty chosen on validation images."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxrssl.analysis.metrics import known_labels
from cxrssl.errors import InputError

__all__ = ["LogisticProbe"]

INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-3, 4))
"""Candidates of scikit-learn's C."""

_UNVALIDATED = 1.0
_ITERATIONS = 1000
_SMALLEST_STD = 1e-6


class LogisticProbe:
    """Scikit-learn's logistic regression, one finding at a time, on standardised features.

    A finding is fitted to the training images whose label is known. Of the candidates for the
    inverse penalty C, from the smallest to the largest and each beginning where the one before
    ended, the first with the best AUROC on the validation images is kept; where they do not show
    both classes, C is 1. A fit that has not converged after 1000 iterations of L-BFGS is taken as
    it is.

    Args:
        inverse_penalties: Candidates for C.

    Attributes:
        chosen: C of each finding (F,), NaN where it could not be fitted.
        validated: Whether C was chosen on validation images, (F,).

    Raises:
        InputError: If there is no candidate or one is not positive.
    """

    chosen: NDArray[np.float64]
    validated: NDArray[np.bool_]

    def __init__(self, *, inverse_penalties: Sequence[float] = INVERSE_PENALTIES) -> None:
        if not inverse_penalties or min(inverse_penalties) <= 0:
            raise InputError(
                f"inverse_penalties must be positive and at least one, got {inverse_penalties}"
            )
        self.inverse_penalties = sorted(inverse_penalties)

    def fit(
        self,
        features: NDArray[np.floating],
        labels: NDArray[np.floating],
        val_features: NDArray[np.floating],
        val_labels: NDArray[np.floating],
    ) -> "LogisticProbe":
        """Fit every finding of which the training images show both classes.

        Args:
            features: Of training images, (n, D).
            labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
            val_features: Of validation images, (m, D).
            val_labels: (m, F).

        Raises:
            InputError: If the shapes do not belong together, there is no training image, or a
                feature is not finite.
        """
        _check(features, labels)
        _check(val_features, val_labels)
        if not len(features) or features.shape[1:] + labels.shape[1:] != (
            val_features.shape[1:] + val_labels.shape[1:]
        ):
            raise InputError(
                f"features {features.shape} and labels {labels.shape} of training images must have "
                "a row at least and as many columns as those of validation images, "
                f"{val_features.shape} and {val_labels.shape}"
            )
        self.mean = features.mean(0, dtype=np.float64)
        self.std = np.maximum(features.std(0, dtype=np.float64), _SMALLEST_STD)
        findings = labels.shape[1]
        self.coefficients = np.full((features.shape[1], findings), np.nan)
        self.intercepts = np.full(findings, np.nan)
        self.chosen = np.full(findings, np.nan)
        self.validated = np.zeros(findings, dtype=np.bool_)
        x, val_x = self._standardised(features), self._standardised(val_features)
        known, val_known = known_labels(labels), known_labels(val_labels)
        for finding in range(findings):
            rows, val_rows = known[:, finding], val_known[:, finding]
            self._fit_finding(
                finding, x[rows], labels[rows, finding], val_x[val_rows], val_labels[val_rows]
            )
        return self

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities (n, F) of features (n, D), NaN for findings without a fit."""
        logits = self._standardised(features) @ self.coefficients + self.intercepts
        probabilities: NDArray[np.float64] = torch.from_numpy(logits).sigmoid().numpy()
        return probabilities

    def _standardised(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        standardised: NDArray[np.float64] = (features - self.mean) / self.std
        return standardised

    def _fit_finding(
        self,
        finding: int,
        x: NDArray[np.float64],
        truth: NDArray[np.floating],
        val_x: NDArray[np.float64],
        val_labels: NDArray[np.floating],
    ) -> None:
        if len(np.unique(truth)) < 2:
            return
        val_truth = val_labels[:, finding]
        validated = len(np.unique(val_truth)) == 2
        self.validated[finding] = validated
        model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
        best = -np.inf
        for candidate in self.inverse_penalties if validated else [_UNVALIDATED]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.set_params(C=candidate).fit(x, truth)
            score = roc_auc_score(val_truth, model.decision_function(val_x)) if validated else 0.0
            if score > best:
                best = score
                self.chosen[finding] = candidate
                self.coefficients[:, finding] = model.coef_[0]
                self.intercepts[finding] = model.intercept_[0]


def _check(features: NDArray[np.floating], labels: NDArray[np.floating]) -> None:
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise InputError(
            f"features {features.shape} and labels {labels.shape} must be (n, D) and (n, F)"
        )
    if not np.isfinite(features).all():
        broken = np.sum(~np.isfinite(features).all(1))
        raise InputError(f"{broken} of {len(features)} features hold NaN/inf")
