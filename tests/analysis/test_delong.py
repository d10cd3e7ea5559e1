import math

import numpy as np
import pytest

from cxrssl.analysis.delong import delong_test
from cxrssl.errors import InputError


def slow_reference(first, second, truth):
    """Return AUROCs, standard error and p from the structural components of DeLong et al. 1988."""

    def kernel(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    present, absent = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    m, n = len(present), len(absent)
    areas, of_present, of_absent = [], [], []
    for scores in (first, second):
        psi = np.array([[kernel(scores[i], scores[j]) for j in absent] for i in present])
        areas.append(psi.mean())
        of_present.append(psi.mean(1))  # V10
        of_absent.append(psi.mean(0))  # V01
    covariance = np.cov(of_present) / m + np.cov(of_absent) / n
    contrast = np.array([1, -1])
    error = math.sqrt(contrast @ covariance @ contrast)
    p = math.erfc(abs(areas[0] - areas[1]) / error / math.sqrt(2))
    return (*areas, error, p)


def correlated(rng, n=60, levels=None, effect=1.0):
    """Return two exchangeable scores of the same images, and the truth."""
    truth = (rng.random(n) < 0.4).astype(int)
    truth[:4] = 0, 0, 1, 1
    shared = effect * truth + rng.normal(size=n)
    first, second = shared + rng.normal(size=(2, n))
    if levels:
        first, second = (np.round(x * levels) / levels for x in (first, second))
    return first, second, truth


@pytest.mark.parametrize("levels", [None, 2, 1])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_structural_components(levels, seed):
    first, second, truth = correlated(np.random.default_rng(seed), levels=levels)
    result = delong_test(first, second + 0.3 * truth, truth)
    *areas, error, p = slow_reference(first, second + 0.3 * truth, truth)
    assert result.auroc_first == pytest.approx(areas[0], rel=1e-12)
    assert result.auroc_second == pytest.approx(areas[1], rel=1e-12)
    assert result.difference == pytest.approx(areas[0] - areas[1], rel=1e-9)
    assert result.standard_error == pytest.approx(error, rel=1e-9)
    assert result.p == pytest.approx(p, rel=1e-8)


def test_p_is_uniform_where_neither_is_better():
    rng = np.random.default_rng(0)
    p = np.array([delong_test(*correlated(rng, n=100)).p for _ in range(1000)])
    for level in (0.05, 0.2, 0.5):
        # Three standard errors of a share, and some room for 100 images being few.
        assert np.mean(p < level) == pytest.approx(level, abs=0.05)


def test_p_is_near_that_of_exchanging_the_scores_of_images():
    rng = np.random.default_rng(3)
    first, second, truth = correlated(rng, n=200)
    # Ranks within each score make an exchange sensible (Venkatraman & Begg 1996).
    first, second = (x.argsort().argsort() for x in (first, second + 0.25 * truth))
    observed = delong_test(first, second, truth)
    exchanged = []
    for _ in range(500):
        swap = rng.random(200) < 0.5
        pair = np.where(swap, second, first), np.where(swap, first, second)
        exchanged.append(delong_test(*pair, truth).difference)
    p = np.mean(np.abs(exchanged) >= abs(observed.difference))
    assert 0.01 < p < 0.9
    assert observed.p == pytest.approx(p, abs=0.06)


def test_exchange_of_the_two_and_monotone_changes_of_one():
    first, second, truth = correlated(np.random.default_rng(1))
    result = delong_test(first, second, truth)
    assert delong_test(np.exp(first), 5 * second - 2, truth) == result
    exchanged = delong_test(second, first, truth)
    assert exchanged.difference == -result.difference
    assert exchanged.p == result.p


@pytest.mark.parametrize("positives", [1, 2, 7])
def test_scores_that_rank_alike_do_not_differ(positives):
    scores = np.random.default_rng(0).normal(size=20)
    truth = (np.arange(20) < positives).astype(int)
    result = delong_test(scores, 3 * scores, truth)
    assert result.difference == 0
    assert result.p == 1
    assert result.standard_error == 0 or positives == 1


def test_no_p_without_a_variance():
    truth = np.array([0, 0, 0, 1, 1, 1])
    result = delong_test(truth * 1.0, np.zeros(6), truth)
    assert result[:4] == (1, 0.5, 0.5, 0)
    assert math.isnan(result.p)
    single = delong_test(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.4, 0.3]), np.array([0, 0, 1]))
    assert math.isnan(single.standard_error)
    assert math.isnan(single.p)


def test_both_classes_are_needed():
    with pytest.raises(InputError, match="got 2 and 0 of them"):
        delong_test(np.zeros(2), np.zeros(2), np.ones(2))


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"scores \(3,\), truth \(2,\)"):
        delong_test(np.zeros(2), np.zeros(3), np.array([0, 1]))
