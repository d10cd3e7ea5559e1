import numpy as np
import pytest

from cxrssl.analysis import effective_rank, feature_spread


def test_rank_of_equal_singular_values_is_their_number():
    assert effective_rank(np.eye(7, 10)) == pytest.approx(7)


def test_rank_by_hand():
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(np.diag([3.0, -1.0])) == pytest.approx(np.exp(entropy))


def test_rank_of_a_line_is_one_and_of_nothing_zero():
    line = np.outer(np.arange(1.0, 6), [1.0, 2, 3])
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 2))) == 0


def test_centring_takes_out_the_common_direction():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 4)).astype(np.float32)
    shifted = x + np.float32(1000)
    assert effective_rank(shifted) < 1.1
    assert effective_rank(shifted, centred=True) == pytest.approx(4, rel=1e-2)


def test_rank_ignores_rotation_and_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 5)) * [5, 3, 1, 0.5, 0.1]
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert effective_rank(3 * x @ rotation) == pytest.approx(effective_rank(x))


def test_spread_is_one_where_directions_are_uniform_and_zero_where_all_are_equal():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 32))
    assert feature_spread(x) == pytest.approx(1, abs=0.02)
    assert feature_spread(x[:1].repeat(8, 0)) == pytest.approx(0, abs=1e-12)


def test_spread_by_hand():
    # Unit vectors (1, 0) and (0, 1): each dimension has std 1/2, and sqrt(2) / 2.
    assert feature_spread(np.array([[2.0, 0], [0, 9.0]])) == pytest.approx(np.sqrt(2) / 2)


def test_spread_of_zero_features():
    assert feature_spread(np.zeros((3, 2))) == 0


@pytest.mark.parametrize("measure", [effective_rank, feature_spread])
def test_bad_features(measure):
    with pytest.raises(ValueError, match=r"must be \(n, D\)"):
        measure(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="1 of 2 features hold NaN or inf"):
        measure(np.array([[1.0], [np.nan]]))
