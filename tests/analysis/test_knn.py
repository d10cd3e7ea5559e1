import numpy as np
import pytest

from cxrssl.analysis import multilabel_knn


def reference(train_x, train_y, x, k, temperature):
    """Plain loops in float64."""
    unit = train_x / np.linalg.norm(train_x, axis=1, keepdims=True)
    scores = np.zeros((len(x), train_y.shape[1]))
    for i, query in enumerate(x / np.linalg.norm(x, axis=1, keepdims=True)):
        for f in range(train_y.shape[1]):
            known = [j for j in range(len(unit)) if train_y[j, f] in (0, 1)]
            nearest = sorted(known, key=lambda j: -(query @ unit[j]))[:k]
            weights = [np.exp(query @ unit[j] / temperature) for j in nearest]
            if nearest:
                votes = sum(w * train_y[j, f] for w, j in zip(weights, nearest, strict=True))
                scores[i, f] = votes / sum(weights)
    return scores


@pytest.mark.parametrize("k", [1, 5, 100])
def test_equals_the_reference_with_missing_and_uncertain_labels(k):
    rng = np.random.default_rng(0)
    train_x, x = rng.normal(size=(40, 6)), rng.normal(size=(9, 6))
    train_y = rng.choice([0, 1, -1, np.nan], size=(40, 4), p=[0.4, 0.3, 0.1, 0.2])
    train_y[:, 3] = np.nan
    expected = reference(train_x, train_y, x, k, 0.3)
    np.testing.assert_allclose(
        multilabel_knn(train_x, train_y, x, k=k, temperature=0.3), expected, atol=1e-5
    )


def test_two_neighbours_by_hand():
    # Cosines 1 and 0; with temperature 1 the votes weigh e and 1.
    scores = multilabel_knn(
        np.eye(2), np.array([[1.0], [0.0]]), np.array([[5.0, 0.0]]), k=2, temperature=1.0
    )
    np.testing.assert_allclose(scores, [[np.e / (np.e + 1)]], rtol=1e-6)


def test_scale_of_features_and_chunks_do_not_matter():
    rng = np.random.default_rng(0)
    train_x, x = rng.normal(size=(30, 4)), rng.normal(size=(1500, 4))
    train_y = (rng.random((30, 2)) < 0.5).astype(np.float32)
    scores = multilabel_knn(train_x, train_y, x)
    np.testing.assert_allclose(scores, multilabel_knn(3 * train_x, train_y, 7 * x), atol=1e-5)
    np.testing.assert_allclose(scores[1400:], multilabel_knn(train_x, train_y, x[1400:]), atol=1e-5)


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (1, 0.0)])
def test_bad_settings(k, temperature):
    with pytest.raises(ValueError, match="k and temperature must be positive"):
        multilabel_knn(np.eye(2), np.eye(2), np.eye(2), k=k, temperature=temperature)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="do not agree"):
        multilabel_knn(np.eye(2), np.zeros((3, 1)), np.eye(2))
