import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrssl.analysis.platt import PlattScaling
from cxrssl.errors import InputError


def data(n=60, effect=1.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    return 0.02 * (rng.normal(size=n) + effect * truth) + 5, truth


def fit(scores, labels):
    return PlattScaling().fit(scores[:, None], labels[:, None])


def test_scale_and_offset_are_those_of_newton_s_method_on_platt_s_labels():
    scores, truth = data()
    positives, negatives = truth.sum(), (1 - truth).sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.column_stack([(scores - 5) * 50, np.ones(60)])
    w = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x.T * (p * (1 - p))) @ x, x.T @ (target - p))
    expected = 1 / (1 + np.exp(-x @ w))
    probabilities = fit(scores, truth).predict(scores[:, None])
    np.testing.assert_allclose(probabilities[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.mean(), target.mean(), atol=1e-5)


def test_classes_that_do_not_overlap_give_no_certainty():
    truth = np.repeat([0.0, 1.0], 10)
    probabilities = fit(truth, truth).predict(truth[:, None])
    np.testing.assert_allclose(probabilities[:, 0], np.repeat([1 / 12, 11 / 12], 10), atol=1e-3)


def test_order_stays_even_where_scores_are_worse_than_chance():
    scores, truth = data(effect=-2.0)
    probabilities = fit(scores, truth).predict(scores[:, None])[:, 0]
    assert roc_auc_score(truth, scores) < 0.3
    assert roc_auc_score(truth, probabilities) == roc_auc_score(truth, scores)
    np.testing.assert_allclose(probabilities, truth.mean(), atol=0.03)
    np.testing.assert_array_equal(np.argsort(probabilities), np.argsort(scores))


def test_constant_scores_become_the_share_of_positives():
    _, truth = data()
    probabilities = fit(np.full(60, 0.5), truth).predict(np.full((1, 1), 0.5))
    np.testing.assert_allclose(probabilities, truth.mean(), atol=0.03)


def test_uncertain_and_missing_labels_are_left_out():
    scores, truth = data()
    labels = np.concatenate([truth, [-1, np.nan]])
    more = np.concatenate([scores, [9, -9]])
    np.testing.assert_array_equal(fit(more, labels).slopes, fit(scores, truth).slopes)


def test_a_finding_with_one_class_has_no_probabilities():
    scores, truth = data()
    both = np.column_stack([truth, np.zeros(60)])
    twice = np.column_stack([scores, scores])
    probabilities = PlattScaling().fit(twice, both).predict(twice)
    np.testing.assert_array_equal(np.isnan(probabilities).any(0), [False, True])


def test_shapes_must_agree():
    with pytest.raises(InputError, match="must both be"):
        PlattScaling().fit(np.ones((3, 1)), np.ones((3, 2)))
