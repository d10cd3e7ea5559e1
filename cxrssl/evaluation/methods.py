"""What learns the findings from features, and says how likely they are."""

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis import RidgeProbe, multilabel_knn
from cxrssl.analysis.few_label import LabelledFeatures
from cxrssl.analysis.logistic import LogisticProbe
from cxrssl.analysis.platt import PlattScaling
from cxrssl.evaluation.options import Method

__all__ = ["predict_findings"]


def predict_findings(
    method: Method,
    train: LabelledFeatures,
    val: LabelledFeatures,
    features: NDArray[np.floating],
    *,
    k: int = 20,
) -> NDArray[np.float64]:
    """Return the probability of each finding, (n, F), for features (n, D).

    Scores of ``knn`` and ``linear`` are no probabilities and become so by Platt scaling on the
    validation images; ``logistic`` takes its penalty from them.

    Args:
        method: See :class:`~cxrssl.evaluation.options.EvaluationOptions`.
        train: Learnt from.
        val: What is chosen is chosen on them.
        features: Of the images that are asked for.
        k: Neighbours of ``knn``.
    """
    if method == "logistic":
        return LogisticProbe().fit(*train, *val).predict(features)
    asked = np.concatenate([val.features, features])
    if method == "knn":
        scores: NDArray[np.floating] = multilabel_knn(*train, asked, k=k)
    else:
        scores = RidgeProbe().fit(*train).predict(asked)
    n_val = len(val.features)
    return PlattScaling().fit(scores[:n_val], val.labels).predict(scores[n_val:])
