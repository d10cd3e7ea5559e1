import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from torchmetrics.functional.classification import (
    binary_calibration_error,
    binary_sensitivity_at_specificity,
)

from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.metrics import known_labels, multilabel_scores
from cxrssl.analysis.resampling import patient_weights
from cxrssl.errors import InputError

NAN = np.nan
NAMES = ["Effusion", "Edema", "Hernia"]
METRICS = ["auroc", "auprc", "brier", "ece", "sensitivity@0.8specificity"]


def data(n=90, seed=0):
    """Return probabilities, labels with gaps and a rare finding, and patients of 1 or 2 images."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.random((n, 3)), 2)
    labels = (rng.random((n, 3)) < probabilities).astype(float)
    labels[rng.random((n, 3)) < 0.2] = NAN
    labels[rng.random((n, 3)) < 0.1] = -1
    labels[:, 2] = 0
    labels[:2, 2] = 1  # a resample without them is not rare
    patients = [f"p{number // 2}" if number % 5 else None for number in range(n)]
    return probabilities, labels, patients


def slow_scores(scores, truth):
    """Return the five metrics of one finding from other libraries, NaN with one class."""
    if len(np.unique(truth)) < 2:
        return np.full(5, NAN)
    tensors = torch.from_numpy(scores), torch.from_numpy(truth).long()
    return np.array(
        [
            roc_auc_score(truth, scores),
            average_precision_score(truth, scores),
            brier_score_loss(truth, scores),
            binary_calibration_error(*tensors, n_bins=15).item(),
            binary_sensitivity_at_specificity(*tensors, 0.8)[0].item(),
        ]
    )


def test_intervals_equal_those_of_repeated_rows():
    probabilities, labels, patients = data()
    frame = score_predictions(
        probabilities, labels, NAMES, patients=patients, replicates=40, seed=3, specificity=0.8
    )
    known = known_labels(labels)
    resamples = patient_weights(patients, 40, np.random.default_rng(3))
    drawn = np.empty((41, 4, 5))
    for row, counts in enumerate([np.ones(90, dtype=int), *resamples]):
        for column in range(3):
            rows = np.repeat(np.arange(90), counts * known[:, column])
            drawn[row, column] = slow_scores(probabilities[rows, column], labels[rows, column])
        drawn[row, 3] = np.nanmean(drawn[row, :3], axis=0)
    low, high = np.nanquantile(drawn[1:], (0.025, 0.975), axis=0)
    assert np.isnan(drawn[:, 2]).any()
    np.testing.assert_allclose(frame["value"], drawn[0].ravel(), rtol=1e-6)
    np.testing.assert_allclose(frame["low"], low.ravel(), rtol=1e-6)
    np.testing.assert_allclose(frame["high"], high.ravel(), rtol=1e-6)


def test_table():
    probabilities, labels, patients = data()
    frame = score_predictions(
        probabilities, labels, NAMES, patients=patients, replicates=5, specificity=0.8
    )
    assert frame.columns.tolist() == [
        *("finding", "metric", "value", "low", "high", "images", "positives")
    ]
    assert frame["finding"].tolist() == np.repeat([*NAMES, "macro"], 5).tolist()
    assert frame["metric"].tolist() == METRICS * 4
    assert (frame["low"] <= frame["high"]).all()
    assert frame["positives"].tolist()[10] == 2


def test_values_are_those_of_multilabel_scores():
    probabilities, labels, _ = data()
    labels[:, 1] = 1
    frame = score_predictions(probabilities, labels, NAMES, replicates=2)
    expected = multilabel_scores(probabilities, labels, NAMES)
    for metric in ("auroc", "auprc"):
        rows = frame[frame["metric"] == metric]
        values = dict(zip(rows["finding"], rows["value"], strict=True))
        assert values == pytest.approx(expected[metric])
    assert frame.attrs["undefined"] == ["Edema"]


def test_copies_of_a_patients_images_tell_nothing_new():
    probabilities, labels, _ = data()
    once = score_predictions(probabilities, labels, NAMES, replicates=30)
    patients = [str(number) for number in range(90)] * 2
    twice = score_predictions(
        np.tile(probabilities, (2, 1)),
        np.tile(labels, (2, 1)),
        NAMES,
        patients=patients,
        replicates=30,
    )
    np.testing.assert_allclose(twice[["low", "high"]], once[["low", "high"]], rtol=1e-12)
    np.testing.assert_array_equal(twice["images"], 2 * once["images"])


def test_intervals_hold_the_true_area_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = []
    for seed in range(150):
        # With binormal scores 1.2 apart, AUROC is Phi(1.2 / sqrt(2)) = 0.8019.
        labels = (rng.random((80, 1)) < 0.5).astype(float)
        scores = 1 / (1 + np.exp(-rng.normal(1.2 * labels)))
        frame = score_predictions(scores, labels, ["a"], replicates=200, seed=seed, level=0.8)
        held.append(frame["low"][0] <= 0.8019 <= frame["high"][0])
    assert np.mean(held) == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("n", [0, 4])
def test_nothing_to_score(n):
    frame = score_predictions(np.zeros((n, 1)), np.full((n, 1), NAN), ["a"])
    assert len(frame) == 0
    assert "low" in frame.columns
    assert frame.attrs["undefined"] == ["a"]


def test_logits_are_refused():
    with pytest.raises(InputError, match="apply a sigmoid"):
        score_predictions(np.array([[-3.0], [2.0]]), np.array([[0.0], [1.0]]), ["a"])


def test_specificity_is_a_share():
    with pytest.raises(InputError, match=r"specificity must be in \[0, 1\], got 90"):
        score_predictions(np.zeros((2, 1)), np.zeros((2, 1)), ["a"], specificity=90)
