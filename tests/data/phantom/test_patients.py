from itertools import groupby

import numpy as np
import pytest

from cxrssl.data.phantom.patients import PatientRegister
from cxrssl.errors import InputError


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_blocks_hold_one_patient_of_each_count(most):
    register = PatientRegister(seed=4, most=most)
    block = most * (most + 1) // 2
    owners = [register.owner(number) for number in range(20 * block)]
    counts = [(owner, len(list(run))) for owner, run in groupby(owners)]
    assert [owner for owner, _ in counts] == list(range(20 * most))
    for start in range(0, len(counts), most):
        sizes = sorted(count for _, count in counts[start : start + most])
        assert sizes == list(range(1, most + 1))


def test_orders_differ_between_blocks_and_seeds():
    def owners(seed):
        register = PatientRegister(seed, 3)
        return [register.owner(number) for number in range(60)]

    first = owners(0)
    assert first == owners(0)
    assert first != owners(1)
    runs = [len(list(run)) for _, run in groupby(first)]
    assert len({tuple(runs[start : start + 3]) for start in range(0, 30, 3)}) > 2


def test_shares_hold_in_every_stretch():
    register = PatientRegister(seed=0, most=3)
    shares = (0.7, 0.2, 0.1)
    for start in (0, 1234):
        parts = register.split(np.arange(start, start + 500), shares)
        np.testing.assert_allclose(np.bincount(parts, minlength=3) / 500, shares, atol=0.01)


def test_empty_parts_stay_empty():
    parts = PatientRegister(seed=0, most=3).split(np.arange(1000), (1.0, 0.0, 0.0))
    assert not parts.any()


def test_no_images_per_patient_is_refused():
    with pytest.raises(InputError, match="images_per_patient must be at least 1, got 0"):
        PatientRegister(seed=0, most=0)
