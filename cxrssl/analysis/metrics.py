"""Scores of multi-label predictions against labels that may be missing or uncertain."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

__all__ = ["MultilabelScores", "known_labels", "multilabel_scores"]


class MultilabelScores(TypedDict):
    """AUROC and AUPRC of each finding that can be scored, and their mean under ``macro``."""

    auroc: dict[str, float]
    auprc: dict[str, float]
    undefined: list[str]
    """Findings without a known positive or without a known negative, left out of the mean."""


def known_labels(labels: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where a label is 0 or 1; uncertain (-1) and missing (NaN) labels are not known."""
    known: NDArray[np.bool_] = (labels == 0) | (labels == 1)
    return known


def multilabel_scores(
    scores: NDArray[np.floating], labels: NDArray[np.floating], names: Sequence[str]
) -> MultilabelScores:
    """Return the area under the ROC and under the precision-recall curve of every finding.

    The area under the precision-recall curve is the average precision, without interpolation. A
    finding is scored on the images whose label is known. ``macro`` is absent where no finding is.

    Args:
        scores: (n, F), higher where the finding is more likely.
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing).
        names: The F findings.

    Raises:
        ValueError: If the shapes do not belong together or a score is not finite.
    """
    if scores.shape != labels.shape or scores.shape[1:] != (len(names),):
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be (images, {len(names)}), "
            f"one column for each of {list(names)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite")
    result = MultilabelScores(auroc={}, auprc={}, undefined=[])
    known = known_labels(labels)
    for column, name in enumerate(names):
        rows = known[:, column]
        truth, score = labels[rows, column], scores[rows, column]
        if len(np.unique(truth)) < 2:
            result["undefined"].append(name)
            continue
        result["auroc"][name] = float(roc_auc_score(truth, score))
        result["auprc"][name] = float(average_precision_score(truth, score))
    for areas in (result["auroc"], result["auprc"]):
        if areas:
            areas["macro"] = float(np.mean(list(areas.values())))
    return result
