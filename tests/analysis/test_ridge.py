import numpy as np
import pytest
from sklearn.linear_model import Ridge

from cxrssl.analysis import RidgeProbe


def data(n=40, dim=6, findings=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * rng.uniform(0.1, 10, dim) + rng.normal(size=dim)
    y = (x @ rng.normal(size=(dim, findings)) + rng.normal(size=(n, findings)) > 0).astype(float)
    return x, y


def test_equals_sklearn_on_the_known_rows_of_each_finding():
    x, y = data()
    y[:7, 0] = np.nan
    y[20:, 1] = -1
    queries = data(seed=1)[0]
    probe = RidgeProbe(penalties=[0.3]).fit(x, y)
    mean, std = x.mean(0), x.std(0)
    for finding in range(3):
        known = np.isin(y[:, finding], (0, 1))
        ridge = Ridge(alpha=0.3 * known.sum())
        ridge.fit((x[known] - mean) / std, y[known, finding])
        np.testing.assert_allclose(
            probe.predict(queries)[:, finding], ridge.predict((queries - mean) / std), rtol=1e-8
        )


def test_chooses_the_penalty_with_the_least_error_on_left_out_images():
    penalties = (0.001, 0.01, 0.1, 1.0, 10.0)
    x, y = data(n=25, dim=15)
    standard = (x - x.mean(0)) / x.std(0)
    errors = np.zeros((len(penalties), 3))
    for row, penalty in enumerate(penalties):
        for i in range(25):
            keep = np.arange(25) != i
            # The penalty is that of all images; only the fit leaves one out.
            ridge = Ridge(alpha=penalty * 25).fit(standard[keep], y[keep])
            errors[row] += np.square(ridge.predict(standard[i : i + 1])[0] - y[i])
    expected = np.array(penalties)[errors.argmin(0)]
    np.testing.assert_array_equal(RidgeProbe(penalties=penalties).fit(x, y).chosen, expected)


def test_scale_and_shift_of_a_feature_do_not_matter():
    x, y = data()
    scores = RidgeProbe().fit(x, y).predict(x)
    np.testing.assert_allclose(RidgeProbe().fit(5 * x + 3, y).predict(5 * x + 3), scores, rtol=1e-7)


def test_more_dimensions_than_images():
    x, y = data(n=10, dim=50)
    scores = RidgeProbe(penalties=[1e-6]).fit(x, y).predict(x)
    np.testing.assert_allclose(scores, y, atol=1e-3)  # it can fit every label


def test_constant_features_and_unlabelled_findings_are_harmless():
    x, y = data()
    y[:, 1] = np.nan
    y[:, 2] = 1
    x = np.concatenate([x, np.ones((40, 2))], axis=1)
    scores = RidgeProbe().fit(x, y).predict(x + 0.5)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[:, 1], 0)
    np.testing.assert_allclose(scores[:, 2], 1)


def test_one_labelled_image():
    probe = RidgeProbe().fit(np.array([[1.0, 2.0]]), np.array([[1.0]]))
    np.testing.assert_allclose(probe.predict(np.array([[0.0, 5.0]])), [[1.0]])


@pytest.mark.parametrize("penalties", [[], [1.0, 0.0]])
def test_penalties_must_be_positive(penalties):
    with pytest.raises(ValueError, match="penalties must be positive"):
        RidgeProbe(penalties=penalties)


def test_rows_must_agree():
    with pytest.raises(ValueError, match="same number of rows"):
        RidgeProbe().fit(np.ones((2, 2)), np.ones((3, 1)))


def test_features_must_be_finite():
    with pytest.raises(ValueError, match="1 of 2 features hold NaN/inf"):
        RidgeProbe().fit(np.array([[np.inf], [1.0]]), np.ones((2, 1)))
