"""A run does not grow; `benchmarks/long_run.py` measures it over more steps."""

import importlib

import numpy as np
import pytest

from tests.nodes import ROOT


@pytest.fixture
def long_run(monkeypatch):
    """The benchmark."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("long_run")


def test_the_slope_is_that_after_the_warm_up(long_run):
    steps = np.arange(100.0, 2100.0, 100.0)
    values = 500 + 3 * steps / 1000
    values[:4] = 100
    found, error = long_run.slope(steps, values)
    assert (found, error) == pytest.approx((3, 0), abs=1e-9)
    noise = np.where(np.arange(20) % 2, 1.0, -1.0)
    found, error = long_run.slope(steps, values + noise)
    assert abs(found - 3) < 2 * error


@pytest.mark.slow
@pytest.mark.parametrize("case", ["DINOv2", "Joint"])
def test_a_run_does_not_grow(long_run, case):
    curve = long_run.run(long_run.CASES[case], steps=400, every=25, flags=[])
    for name in ("main", "workers"):
        found, error = long_run.slope(curve["step"], curve[name])
        assert found - 3 * error < 10  # MB in 1,000 steps
    for name in ("files", "threads"):
        late = curve[name][len(curve[name]) // 4 :]
        assert late.max() - late.min() <= 2
