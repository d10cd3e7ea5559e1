import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from cxrssl.analysis.calibration import reliability_curve, weighted_brier, weighted_ece
from cxrssl.errors import InputError

NAN = np.nan


def resampled(n=80, replicates=20, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(n) ** 2
    probabilities[:5] = 0, 1 / 15, 0.2, 0.4, 14 / 15  # on edges of bins
    truth = (rng.random(n) < probabilities).astype(float)
    truth[-2:] = 0, 1
    weights = rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.uint16)
    weights[:, -2:] += 1
    return probabilities, truth, weights


def test_brier_equals_sklearn_on_repeated_rows():
    probabilities, truth, weights = resampled()
    expected = [
        brier_score_loss(np.repeat(truth, row), np.repeat(probabilities, row)) for row in weights
    ]
    np.testing.assert_allclose(weighted_brier(probabilities, truth, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_equals_torchmetrics_on_repeated_rows(bins):
    probabilities, truth, weights = resampled()
    expected = [
        binary_calibration_error(
            torch.from_numpy(np.repeat(probabilities, row)),
            torch.from_numpy(np.repeat(truth, row)).long(),
            n_bins=bins,
        ).item()
        for row in weights
    ]
    measured = weighted_ece(probabilities, truth, weights, bins)
    np.testing.assert_allclose(measured, expected, rtol=1e-12)


def test_hand_computed():
    # Two bins: 0.1 and 0.3 with one positive, gap 0.3; 0.5 and 1 with one positive, gap 0.25.
    probabilities, truth = np.array([0.1, 0.3, 0.5, 1.0]), np.array([0, 1, 0, 1])
    weights = np.ones((1, 4), dtype=np.uint16)
    assert weighted_ece(probabilities, truth, weights, 2) == pytest.approx([(0.3 + 0.25) / 2])
    assert weighted_brier(probabilities, truth, weights) == pytest.approx([0.75 / 4])


def test_half_precision_is_not_lost_on_the_way():
    probabilities, truth, weights = resampled()
    for metric in (weighted_brier, weighted_ece):
        half = probabilities.astype(np.float16)
        np.testing.assert_array_equal(
            metric(half, truth, weights), metric(half.astype(float), truth, weights)
        )


def test_a_resample_without_images_is_undefined():
    for metric in (weighted_brier, weighted_ece):
        measured = metric(np.array([1.0]), np.array([1]), np.array([[0], [2]], dtype=np.uint16))
        np.testing.assert_array_equal(measured, [NAN, 0])


def test_reliability_curve_equals_sklearn():
    probabilities, truth, _ = resampled()
    curve = reliability_curve(probabilities, truth, 7)
    accuracy, confidence = calibration_curve(truth, probabilities, n_bins=7)
    np.testing.assert_allclose(curve.confidence, confidence)
    np.testing.assert_allclose(curve.accuracy, accuracy)


def test_reliability_curve_gives_the_calibration_error_and_leaves_empty_bins_open():
    probabilities, truth = np.array([0.05, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 1])
    curve = reliability_curve(probabilities, truth, 4)
    assert curve.images.tolist() == [2, 0, 0, 2]
    np.testing.assert_allclose(curve.confidence, [0.075, NAN, NAN, 0.975])
    np.testing.assert_allclose(curve.accuracy, [0.5, NAN, NAN, 1])
    gaps = np.nansum(np.abs(curve.confidence - curve.accuracy) * curve.images) / 4
    assert weighted_ece(probabilities, truth, np.ones((1, 4)), 4) == pytest.approx([gaps])


def test_logits_are_refused():
    with pytest.raises(InputError, match=r"got -1 to 2; apply a sigmoid"):
        weighted_brier(np.array([-1.0, 2.0]), np.array([0, 1]), np.ones((1, 2)))


def test_there_must_be_a_bin():
    with pytest.raises(InputError, match="bins must be at least 1, got 0"):
        reliability_curve(np.array([0.5]), np.array([1]), 0)
