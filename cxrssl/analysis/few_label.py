"""How scores grow with the number of labelled training images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.logistic import LogisticProbe
from cxrssl.analysis.metrics import multilabel_scores

__all__ = ["LabelledFeatures", "Subsets", "few_label_curve"]

Subsets = Mapping[tuple[str, float, int], NDArray[np.integer]]
"""Kind (``share`` of the images or ``shots`` a class), size and seed to rows of training images."""


class LabelledFeatures(NamedTuple):
    """Features of n images and what is known of them."""

    features: NDArray[np.floating]
    """(n, D)."""
    labels: NDArray[np.floating]
    """(n, F), 1, 0, -1 (uncertain) or NaN (missing)."""


def few_label_curve(
    train: LabelledFeatures,
    val: LabelledFeatures,
    test: LabelledFeatures,
    names: Sequence[str],
    subsets: Subsets,
) -> pd.DataFrame:
    """Return the test scores of logistic regressions on subsets of the training images.

    The penalty of each is chosen on all validation images, which do not count among the labels. Of
    a finding that a subset shows one class of only, all test images get the same score: AUROC is
    then 0.5 and AUPRC the share of positives, so that the means of all points are means of the same
    findings.

    Args:
        train: Training images.
        val: Validation images.
        test: Test images.
        names: The F findings.
        subsets: Rows of ``train`` for each point; see :data:`Subsets`.

    Returns:
        Columns ``kind``, ``size``, ``seed``, ``images`` of the subset, ``finding`` (``macro`` for
        their mean), ``metric`` (``auroc`` and ``auprc``) and ``value``. Findings of which the test
        images show one class only are left out.

    Raises:
        InputError: As :class:`~cxrssl.analysis.logistic.LogisticProbe`.
    """
    rows: list[tuple[str, float, int, int, str, str, float]] = []
    for (kind, size, seed), chosen in subsets.items():
        probe = LogisticProbe().fit(train.features[chosen], train.labels[chosen], *val)
        probabilities = probe.predict(test.features)
        probabilities[:, np.isnan(probe.chosen)] = 0
        scores = multilabel_scores(probabilities, test.labels, names)
        for metric, areas in (("auroc", scores["auroc"]), ("auprc", scores["auprc"])):
            rows += [
                (kind, float(size), seed, len(chosen), finding, metric, area)
                for finding, area in areas.items()
            ]
    columns = ["kind", "size", "seed", "images", "finding", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)
