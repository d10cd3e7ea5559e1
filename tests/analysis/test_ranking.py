import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_sensitivity_at_specificity

from cxrssl.analysis.ranking import (
    threshold_counts,
    weighted_auprc,
    weighted_auroc,
    weighted_sensitivity,
)
from cxrssl.errors import InputError

NAN = np.nan


def resampled(n=60, replicates=25, levels=None, prevalence=0.3, seed=0):
    """Return scores, tied where they have few levels, truth and weights with both classes."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n) if levels is None else rng.integers(levels, size=n) / levels
    truth = (rng.random(n) < prevalence).astype(float)
    truth[:2] = 0, 1
    weights = rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.uint16)
    weights[:, :2] += 1
    return scores, truth, weights


def sensitivity_of(truth, scores, specificity):
    preds, target = torch.from_numpy(scores), torch.from_numpy(truth).long()
    return binary_sensitivity_at_specificity(preds, target, specificity)[0].item()


@pytest.mark.parametrize("levels", [None, 20, 4, 1])
@pytest.mark.parametrize("prevalence", [0.05, 0.5, 0.9])
def test_areas_equal_sklearn_on_repeated_rows(levels, prevalence):
    scores, truth, weights = resampled(levels=levels, prevalence=prevalence)
    repeated = [(np.repeat(truth, row), np.repeat(scores, row)) for row in weights]
    for area, reference in (
        (weighted_auroc, roc_auc_score),
        (weighted_auprc, average_precision_score),
    ):
        expected = [reference(*rows) for rows in repeated]
        np.testing.assert_allclose(area(scores, truth, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [None, 20, 4, 1])
@pytest.mark.parametrize("specificity", [0.5, 0.77, 0.9])
def test_sensitivity_equals_torchmetrics_on_repeated_rows(levels, specificity):
    scores, truth, weights = resampled(levels=levels)
    expected = [
        sensitivity_of(np.repeat(truth, row), np.repeat(scores, row), specificity)
        for row in weights
    ]
    measured = weighted_sensitivity(scores, truth, weights, specificity)
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_hand_computed():
    # From the top: +, -, + and - tied, -. AUROC: (3 + 1.5) / 6; at specificity 2/3 one negative
    # may pass, which the tie of the second positive would make two.
    scores, truth = np.array([0.9, 0.5, 0.4, 0.4, 0.1]), np.array([1, 0, 1, 0, 0])
    weights = np.ones((1, 5), dtype=np.uint16)
    assert weighted_auroc(scores, truth, weights) == pytest.approx([4.5 / 6])
    assert weighted_auprc(scores, truth, weights) == pytest.approx([(1 + 2 / 4) / 2])
    assert weighted_sensitivity(scores, truth, weights, 2 / 3) == pytest.approx([0.5])
    assert weighted_sensitivity(scores, truth, weights, 1 / 3) == pytest.approx([1])


def test_no_positive_may_pass_at_the_specificity():
    weights = np.ones((1, 3), dtype=np.uint16)
    scores, truth = np.array([0.9, 0.5, 0.1]), np.array([0, 1, 0])
    assert weighted_sensitivity(scores, truth, weights, 0.9) == 0


@pytest.mark.parametrize("negatives", [20, 100, 300])
def test_specificity_may_be_met_exactly(negatives):
    for passing in range(negatives):
        scores = np.concatenate([np.ones(passing), [0.5], np.zeros(negatives - passing)])
        truth = (scores == 0.5).astype(int)
        specificity = 1 - passing / negatives
        weights = np.ones((1, negatives + 1), dtype=np.uint16)
        assert weighted_sensitivity(scores, truth, weights, specificity) == 1


def test_resamples_without_a_class_are_undefined():
    scores, truth = np.array([0.9, 0.5, 0.1]), np.array([1, 0, 0])
    weights = np.array([[3, 0, 0], [0, 1, 2], [0, 0, 0], [1, 1, 1]], dtype=np.uint16)
    for metric in (weighted_auroc, weighted_auprc, weighted_sensitivity):
        np.testing.assert_allclose(metric(scores, truth, weights), [NAN, NAN, NAN, 1])


def test_thresholds_without_a_bearing_are_left_out():
    scores, truth, weights = resampled(n=500, prevalence=0.02)
    counts = threshold_counts(scores, truth, weights)
    assert counts.true_positives.shape[1] <= 2 * truth.sum() + 1
    np.testing.assert_array_equal(counts.true_positives[:, -1], weights[:, truth == 1].sum(1))
    np.testing.assert_array_equal(counts.false_positives[:, -1], weights[:, truth == 0].sum(1))


def test_scores_must_be_finite():
    with pytest.raises(InputError, match="1 of 2 scores are not finite"):
        weighted_auroc(np.array([NAN, 0]), np.array([0, 1]), np.ones((1, 2)))
