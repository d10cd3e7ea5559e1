import numpy as np
import pandas as pd

from cxrssl.analysis.world_scores import (
    Estimates,
    Score,
    bootstrap,
    group_means,
    score_rows,
    score_table,
)


def test_images_count_by_their_observations():
    sums, counts = np.array([[1.0, 0], [6, 0]]), np.array([[1.0, 0], [3, 0]])
    result = bootstrap(sums, counts, np.random.default_rng(0))
    assert result.value[0] == 7 / 4
    assert (result.low[0], result.high[0]) == (1, 2)  # one image or the other twice
    assert all(np.isnan(numbers[1]) for numbers in result)


def test_intervals_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(size=(9, 2, 3)), rng.integers(1, 5, size=(9, 2, 3)).astype(float)
    result = bootstrap(sums, counts, np.random.default_rng(1))
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
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 400))
    result = bootstrap(values, np.ones_like(values), rng)
    covered = (result.low < 0) & (result.high > 0)
    assert 0.91 < covered.mean() < 0.97


def test_one_image_has_no_spread():
    result = bootstrap(np.array([[3.0]]), np.array([[4.0]]), np.random.default_rng(0))
    assert result == Estimates(0.75, 0.75, 0.75)


def test_group_means_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, image = rng.normal(size=(5, 4, 2)), np.array([0, 0, 1, 2, 2])
    groups = rng.random((3, 5, 4)) < 0.5
    groups[2] = False
    result = group_means(values, groups, image, np.random.default_rng(0))
    assert result.value.shape == (3, 2)
    for group in range(2):
        np.testing.assert_allclose(result.value[group], values[groups[group]].mean(0))
    assert np.isnan(result.value[2]).all()


def test_rows_without_an_observation_are_left_out():
    found = Estimates(*(np.array([number, np.nan]) for number in (0.5, 0.4, 0.6)))
    rows = score_rows("local", "masked", ["top-1", "top-5"], found, np.array([0.1, 0.5]))
    assert rows == [Score("local", "masked", "top-1", 0.5, 0.4, 0.6, 0.1)]
    table = score_table(rows)
    assert isinstance(table, pd.DataFrame)
    assert list(table) == ["task", "condition", "measure", "value", "low", "high", "chance"]
