import numpy as np
import pandas as pd
import pytest

from cxrssl.analysis.world_scores import (
    Bootstrap,
    Estimates,
    Score,
    score_rows,
    score_table,
    with_differences,
)

COLUMNS = ["task", "condition", "measure", "value", "low", "high", "chance", "images"]


def bootstrap(sums, counts, seed=0):
    return Bootstrap(len(sums), np.random.default_rng(seed)).means(sums, counts)


def test_images_count_by_their_observations():
    sums, counts = np.array([[1.0, 0], [6, 0]]), np.array([[1.0, 0], [3, 0]])
    result = bootstrap(sums, counts)
    assert result.value[0] == 7 / 4
    assert np.isnan(result.value[1])
    assert result.images.tolist() == [2, 0]


def test_few_images_have_no_interval():
    # Of the second quantity only four of six images have an observation.
    counts = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [1, 0], [1, 0]])
    result = bootstrap(np.arange(12.0).reshape(6, 2) * counts, counts)
    assert result.images.tolist() == [6, 4]
    assert result.low[0] < result.value[0] < result.high[0]
    assert result.value[1] == (1 + 3 + 5 + 7) / 4
    assert np.isnan([result.low[1], result.high[1]]).all()
    few = bootstrap(np.ones((4, 1)), np.ones((4, 1)))
    assert few.value.tolist() == [1]
    assert np.isnan([few.low, few.high]).all()


def test_intervals_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(size=(9, 2, 3)), rng.integers(1, 5, size=(9, 2, 3)).astype(float)
    result = bootstrap(sums, counts, seed=1)
    weights = np.random.default_rng(1).multinomial(9, np.full(9, 1 / 9), size=1000)
    for place in np.ndindex(2, 3):
        total = [
            sum(w * sums[i][place] for i, w in enumerate(draw))
            / sum(w * counts[i][place] for i, w in enumerate(draw))
            for draw in weights
        ]
        np.testing.assert_allclose(result.low[place], np.quantile(total, 0.025))
        np.testing.assert_allclose(result.high[place], np.quantile(total, 0.975))


def test_an_interval_covers_as_often_as_it_says():
    values = np.random.default_rng(0).normal(size=(40, 400))
    result = bootstrap(values, np.ones_like(values), seed=1)
    covered = (result.low < 0) & (result.high > 0)
    assert 0.91 < covered.mean() < 0.97


def test_differences_are_paired():
    # Images vary much, the difference between the conditions does not.
    rng = np.random.default_rng(0)
    first = rng.normal(size=(8, 1))
    observed = with_differences({"a": first, "b": first - 0.25}, [("a", "b")])
    assert list(observed) == ["a", "b", "a minus b"]
    shared = Bootstrap(8, rng)
    found = {name: shared.means(each, np.ones((8, 1))) for name, each in observed.items()}
    assert found["a"].high - found["a"].low > 0.5
    np.testing.assert_allclose([*found["a minus b"][:3]], 0.25)
    for bound in ("low", "high"):
        # Both conditions were resampled alike.
        np.testing.assert_allclose(getattr(found["a"], bound) - getattr(found["b"], bound), 0.25)


def test_group_means_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, image = rng.normal(size=(5, 4, 2)), np.array([0, 0, 1, 2, 2])
    groups = rng.random((3, 5, 4)) < 0.5
    groups[1, 3:] = False
    groups[2] = False
    result = Bootstrap(3, rng).group_means(values, groups, image)
    assert result.value.shape == (3, 2)
    for group in range(2):
        np.testing.assert_allclose(result.value[group], values[groups[group]].mean(0))
    assert np.isnan(result.value[2]).all()
    assert result.images.tolist() == [[3, 3], [2, 2], [0, 0]]


def estimates():
    return Estimates(
        np.array([0.5, np.nan]), np.array([0.4, np.nan]), np.array([0.6, np.nan]), np.array([7, 0])
    )


def test_rows_without_an_observation_are_left_out():
    rows = score_rows("local", "masked", ["top-1", "top-5"], estimates(), np.array([0.1, 0.5]))
    assert rows == [Score("local", "masked", "top-1", 0.5, 0.4, 0.6, 0.1, 7)]
    table = score_table(rows)
    assert isinstance(table, pd.DataFrame)
    assert list(table) == COLUMNS


@pytest.mark.parametrize(("condition", "chance"), [("a", 0.1), ("a minus b", 0)])
def test_the_chance_of_a_difference_is_nothing(condition, chance):
    rows = score_rows("local", condition, ["top-1", "top-5"], estimates(), np.array([0.1, 0.5]))
    assert [row.chance for row in rows] == [chance]
