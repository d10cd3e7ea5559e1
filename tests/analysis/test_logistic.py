import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cxrssl.analysis.logistic import LogisticProbe
from cxrssl.errors import InputError


def data(n=80, dim=6, findings=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * np.linspace(0.1, 10, dim) + 1
    directions = (
        np.random.default_rng(9).normal(size=(dim, findings)) / np.linspace(0.1, 10, dim)[:, None]
    )
    y = ((x - 1) @ directions + rng.normal(size=(n, findings)) * 2 > 0).astype(float)
    return x, y


def reference(x, y, queries, c):
    mean, std = x.mean(0), x.std(0)
    known = np.isin(y, (0, 1))
    model = LogisticRegression(C=c, tol=1e-8, max_iter=10000)
    model.fit(((x - mean) / std)[known], y[known])
    return model.predict_proba((queries - mean) / std)[:, 1]


def test_equals_sklearn_on_the_known_rows_of_each_finding():
    x, y = data()
    y[:7, 0] = np.nan
    y[60:, 1] = -1
    val, queries = data(seed=1), data(seed=2)[0]
    probe = LogisticProbe(inverse_penalties=[0.3]).fit(x, y, *val)
    for finding in range(3):
        np.testing.assert_allclose(
            probe.predict(queries)[:, finding],
            reference(x, y[:, finding], queries, 0.3),
            atol=2e-3,
        )


def test_chooses_the_penalty_with_the_best_auroc_on_validation_images():
    candidates = (1e-3, 0.1, 10.0, 1000.0)
    x, y = data(n=30, dim=20)
    val_x, val_y = data(n=60, dim=20, seed=1)
    val_y[:9, 2] = -1
    probe = LogisticProbe(inverse_penalties=candidates).fit(x, y, val_x, val_y)
    for finding in range(3):
        rows = val_y[:, finding] >= 0
        areas = [
            roc_auc_score(val_y[rows, finding], reference(x, y[:, finding], val_x[rows], c))
            for c in candidates
        ]
        chosen = areas[candidates.index(probe.chosen[finding])]
        assert chosen >= max(areas) - 0.01  # fits of either end at slightly other places
    assert probe.validated.all()


def test_without_both_classes_in_validation_c_is_one():
    x, y = data()
    val_x, val_y = data(seed=1)
    val_y[:, 0] = 1
    val_y[:, 1] = np.nan
    probe = LogisticProbe().fit(x, y, val_x, val_y)
    np.testing.assert_array_equal(probe.validated, [False, False, True])
    np.testing.assert_array_equal(probe.chosen[:2], 1)
    np.testing.assert_allclose(
        probe.predict(val_x)[:, 0], reference(x, y[:, 0], val_x, 1.0), atol=2e-3
    )


def test_a_finding_with_one_class_in_training_has_no_probabilities():
    x, y = data()
    y[:, 1] = 0
    probe = LogisticProbe().fit(x, y, *data(seed=1))
    probabilities = probe.predict(x)
    assert np.isnan(probabilities[:, 1]).all()
    assert np.isfinite(probabilities[:, [0, 2]]).all()
    np.testing.assert_array_equal(np.isnan(probe.chosen), [False, True, False])


def test_fits_that_do_not_converge_say_nothing(monkeypatch):
    monkeypatch.setattr("cxrssl.analysis.logistic._ITERATIONS", 1)
    LogisticProbe().fit(*data(), *data(seed=1))


@pytest.mark.parametrize("candidates", [[], [1.0, 0.0]])
def test_inverse_penalties_must_be_positive(candidates):
    with pytest.raises(InputError, match="inverse_penalties must be positive"):
        LogisticProbe(inverse_penalties=candidates)


def test_shapes_and_numbers_must_be_right():
    x, y = data()
    with pytest.raises(InputError, match=r"must be \(n, D\) and \(n, F\)"):
        LogisticProbe().fit(x[:-1], y, x, y)
    with pytest.raises(InputError, match="as many columns as those of validation"):
        LogisticProbe().fit(x, y, x[:, 1:], y)
    with pytest.raises(InputError, match="a row at least"):
        LogisticProbe().fit(x[:0], y[:0], x, y)
    x[3, 0] = np.nan
    with pytest.raises(InputError, match="1 of 80 features hold NaN/inf"):
        LogisticProbe().fit(x, y, *data(seed=1))
