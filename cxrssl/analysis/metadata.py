"""What features tell of the patient: sex, age, weight and body mass index."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrssl.analysis.resampling import patient_numbers, patients_of
from cxrssl.errors import InputError

__all__ = ["METADATA_BINS", "metadata_accuracy"]

METADATA_BINS: Mapping[str, Sequence[float]] = MappingProxyType(
    {"age": (20, 40, 60, 80), "weight": (50, 65, 80, 95), "bmi": (18.5, 25, 30, 35)}
)
"""Where bins begin: a value is in the second bin if it is at least the first bound and below the
second one."""

_TARGETS = ("sex", *METADATA_BINS)


def metadata_accuracy(
    features: NDArray[np.floating],
    index: pd.DataFrame,
    *,
    folds: int = 5,
    seed: int = 0,
    standardise: bool = False,
) -> pd.DataFrame:
    """Return how well sex and bins of age, weight and body mass index are told from features.

    As RAD-DINO measures it (arXiv 2401.10815, App. C.3): scikit-learn's logistic regression with
    its defaults and 100 iterations, in five folds, which hold whole patients and similar shares of
    the classes. It publishes the bounds of the bins, :data:`METADATA_BINS`, and not which bin they
    belong to.

    Args:
        features: (n, D).
        index: The n images, with ``patient_id``, ``dataset`` and as many of ``sex``, ``age``,
            ``weight`` and ``bmi`` as there are. An image without a patient is one of its own.
        folds: Number of parts, of which each is tested once.
        seed: Of the folds.
        standardise: Whether features are standardised on the training part. The published numbers
            are of raw features.

    Returns:
        Columns ``target``, ``classes``, ``images`` with a known value, ``accuracy`` (mean over the
        folds), ``std`` (over the folds), and ``majority``, the share of the most frequent class.
        ``attrs["left_out"]`` says why targets are missing: no column, fewer than two classes, or
        too few patients or images for the folds.

    Raises:
        InputError: If the shapes do not belong together or there are fewer than two folds.
    """
    if len(features) != len(index) or folds < 2:
        raise InputError(
            f"features {features.shape} and index must have the same number of rows and folds be "
            f"at least 2, got {len(index)} rows and {folds} folds"
        )
    patients = patient_numbers(patients_of(index))
    rows, left_out = [], {}
    for target in _TARGETS:
        if target not in index:
            left_out[target] = "no column"
            continue
        classes = _classes(index[target], METADATA_BINS.get(target))
        known = np.flatnonzero(classes >= 0)
        names, counts = np.unique(classes[known], return_counts=True)
        owners = len(np.unique(patients[known]))
        if len(names) < 2 or min(owners, counts.max()) < folds:
            left_out[target] = f"{len(names)} classes, {owners} patients, {len(known)} images"
            continue
        scores = _cross_validate(
            features[known], classes[known], patients[known], folds, seed, standardise
        )
        rows.append(
            {
                "target": target,
                "classes": len(names),
                "images": len(known),
                "accuracy": scores.mean(),
                "std": scores.std(),
                "majority": counts.max() / counts.sum(),
            }
        )
    frame = pd.DataFrame(
        rows, columns=["target", "classes", "images", "accuracy", "std", "majority"]
    )
    frame.attrs["left_out"] = left_out
    return frame


def _classes(column: "pd.Series[Any]", bounds: Sequence[float] | None) -> NDArray[np.int64]:
    """Return the class of each image from 0, -1 where it is not known."""
    if bounds is None:
        return pd.factorize(column, sort=True)[0].astype(np.int64)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), -1, np.searchsorted(bounds, values, side="right"))


def _cross_validate(
    x: NDArray[np.floating],
    classes: NDArray[np.int64],
    patients: NDArray[np.int64],
    folds: int,
    seed: int,
    standardise: bool,
) -> NDArray[np.float64]:
    """Return the accuracy of each fold."""
    accuracies = []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations, as published
        warnings.filterwarnings("ignore", message="The least populated class")
        for train, test in splitter.split(x, classes, patients):
            steps = [StandardScaler()] if standardise else []
            model = make_pipeline(*steps, LogisticRegression(max_iter=100))
            if len(np.unique(classes[train])) < 2:  # all of the other class are tested
                accuracies.append(np.mean(classes[test] == classes[train][0]))
            else:
                accuracies.append(model.fit(x[train], classes[train]).score(x[test], classes[test]))
    return np.array(accuracies)
