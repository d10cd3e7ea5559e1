import numpy as np
import pandas as pd
import pytest

from cxrssl.analysis.resampling import (
    check_resampled,
    patient_numbers,
    patient_weights,
    patients_of,
    percentile_interval,
)
from cxrssl.errors import InputError

NAN = np.nan


def test_images_without_a_patient_are_patients_of_their_own():
    numbers = patient_numbers(["a", None, "b", pd.NA, "a", NAN])
    assert numbers.tolist() == [0, 1, 2, 3, 0, 4]
    assert patient_numbers(numbers).tolist() == numbers.tolist()


def test_numbers_of_a_column_with_another_index():
    column = pd.Series(["x", pd.NA, "x"], index=[7, 8, 9], dtype="string")
    assert patient_numbers(column).tolist() == [0, 1, 0]


def test_resamples_hold_whole_patients_as_many_as_there_are():
    patients = ["a", "b", "a", "c", None, "b"]
    weights = patient_weights(patients, 200, np.random.default_rng(0))
    assert weights.shape == (200, 6)
    assert weights.dtype == np.uint16
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3, 4]].sum(1), 4)


def test_counts_are_those_of_draws_with_replacement():
    # Binomial(4, 1/4): mean 1, variance 3/4, and two patients have covariance -1/4.
    weights = patient_weights(range(4), 20000, np.random.default_rng(0)).astype(float)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.03)
    np.testing.assert_allclose(np.cov(weights.T), np.eye(4) - 1 / 4, atol=0.03)


def test_parts_are_the_rows_of_the_whole():
    patients = ["a", "b", "b", None, "c"]
    rng = np.random.default_rng(5)
    parts = [patient_weights(patients, part, rng) for part in (3, 1, 6)]
    whole = patient_weights(patients, 10, np.random.default_rng(5))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_no_images_give_no_columns():
    assert patient_weights([], 3, np.random.default_rng(0)).shape == (3, 0)


def test_percentile_interval_leaves_out_what_was_not_estimated():
    drawn = np.array([[*np.arange(101.0), NAN, NAN], [NAN] * 103])
    low, high = percentile_interval(drawn, 0.9)
    np.testing.assert_allclose(low, [5, NAN])
    np.testing.assert_allclose(high, [95, NAN])


@pytest.mark.parametrize(
    ("scores", "truth", "weights", "message"),
    [
        (np.zeros(2), np.zeros(3), np.ones((1, 2)), r"must be \(n,\), \(n,\) and \(resamples, n\)"),
        (np.zeros(2), np.zeros(2), np.ones(2), r"weights \(2,\)"),
        (np.zeros(0), np.zeros(0), np.ones((1, 0)), "at least one image"),
        (np.array([0.0, NAN]), np.zeros(2), np.ones((1, 2)), "1 of 2 scores are not finite"),
        (np.zeros(2), np.array([0, -1]), np.ones((1, 2)), "must be 0 or 1, got -1"),
    ],
)
def test_what_does_not_belong_together_is_refused(scores, truth, weights, message):
    with pytest.raises(InputError, match=message):
        check_resampled(scores, truth, weights)


def test_the_same_number_in_two_datasets_is_two_people():
    rows = pd.DataFrame({"dataset": ["a", "a", "b", pd.NA], "patient_id": ["1", "1", "1", pd.NA]})
    rows["study_id"] = pd.NA
    assert patient_numbers(patients_of(rows)).tolist() == [0, 0, 1, 2]


def test_images_of_one_study_belong_together_where_the_patient_is_unknown():
    rows = pd.DataFrame({"dataset": ["a", "a", "b", "a"], "study_id": ["1", "1", "1", pd.NA]})
    rows["patient_id"] = pd.NA
    assert patient_numbers(patients_of(rows)).tolist() == [0, 0, 1, 2]
