import math
from itertools import pairwise

import pytest

from cxrssl.callbacks.history import History


def test_unchanged_and_non_finite_values_are_no_points():
    history = History()
    for step, value in enumerate([1.0, 1.0, math.nan, 2.0, math.inf, 1.0]):
        history.add(step, {"loss": value})
    assert history.curves == {"loss": [(0, 1.0), (3, 2.0), (5, 1.0)]}


def test_long_curves_are_thinned_evenly():
    history = History(10)
    for step in range(0, 1000, 5):
        history.add(step, {"loss": float(step), "rare": float(step // 500)})
    steps = [step for step, _ in history.curves["loss"]]
    assert 5 <= len(steps) < 10
    assert steps[0] == 0
    assert steps[-1] > 800
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert history.curves["rare"] == [(0, 0.0), (500, 1.0)]


def test_state_goes_on_where_it_was():
    whole, first = History(10), History(10)
    for step in range(60):
        whole.add(step, {"loss": float(step)})
        if step < 37:
            first.add(step, {"loss": float(step)})
    second = History(10)
    second.load_state_dict(first.state_dict())
    for step in range(37, 60):
        second.add(step, {"loss": float(step)})
    assert second.curves == whole.curves


def test_bad_limit():
    with pytest.raises(ValueError, match="limit must be at least 2, got 1"):
        History(1)
