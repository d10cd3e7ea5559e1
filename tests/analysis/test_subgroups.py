import numpy as np
import pandas as pd
import pytest

from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.subgroups import age_bands, score_subgroups
from cxrssl.errors import InputError

NAN = np.nan
NAMES = ["Effusion", "Edema"]


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < 0.5).astype(float)
    sex = rng.choice(np.array(["M", "F", None], dtype=object), n)
    patients = [f"p{number // 2}" if number > 4 else pd.NA for number in range(n)]
    return rng.random((n, 2)), labels, sex, patients


def test_age_bands_hold_their_lower_end_and_sort_by_age():
    ages = np.array([0, 19.9, 20, 39.9, 40, 60, 79, 80, 103, NAN])
    bands = age_bands(ages)
    assert bands == [
        *("0-19", "0-19", "20-39", "20-39", "40-59", "60-79", "60-79", "80+", "80+", None)
    ]
    assert sorted(bands[:-1]) == bands[:-1]


def test_ages_are_not_negative():
    with pytest.raises(InputError, match="must not be negative, got -1"):
        age_bands(np.array([5.0, NAN, -1.0]))


def test_each_group_is_scored_alone():
    probabilities, labels, sex, patients = data()
    view = np.where(np.arange(60) < 30, "PA", "AP")
    settings = {"replicates": 20, "seed": 4, "specificity": 0.7, "level": 0.8}
    frame = score_subgroups(
        probabilities, labels, NAMES, {"view": view, "sex": sex}, patients=patients, **settings
    )
    expected = []
    for group, value, rows in (
        ("view", "AP", view == "AP"),
        ("view", "PA", view == "PA"),
        ("sex", "F", sex == "F"),
        ("sex", "M", sex == "M"),
    ):
        owners = [patient for patient, row in zip(patients, rows, strict=True) if row]
        table = score_predictions(
            probabilities[rows], labels[rows], NAMES, patients=owners, **settings
        )
        expected.append(table.assign(group=group, value_of_group=value))
    expected = pd.concat(expected, ignore_index=True)[frame.columns]
    expected.attrs = {"undefined": []}
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.columns[:3].tolist() == ["group", "value_of_group", "finding"]


def test_missing_groups_of_every_kind_are_left_out():
    probabilities, labels, *_ = data(n=8)
    labels[:] = np.arange(8)[:, None] % 2
    sex = pd.Series(["F", "F", "F", "F", pd.NA, None, NAN, pd.NA], dtype=object)
    frame = score_subgroups(probabilities, labels, NAMES, {"sex": sex}, replicates=2)
    assert set(frame["value_of_group"]) == {"F"}
    assert set(frame["images"]) == {4}


def test_what_cannot_be_scored_is_listed_by_group():
    probabilities, labels, *_ = data(n=9)
    labels[:] = np.arange(9)[:, None] % 2
    sex = ["F"] * 4 + ["M"] * 4 + ["O"]
    labels[:4, 1] = 0
    frame = score_subgroups(probabilities, labels, NAMES, {"sex": sex}, replicates=2)
    assert frame.attrs["undefined"] == [
        ["sex", "F", "Edema"],
        ["sex", "O", "Effusion"],
        ["sex", "O", "Edema"],
    ]
    assert set(frame["value_of_group"]) == {"F", "M"}


@pytest.mark.parametrize("groups", [{}, {"sex": [None] * 60}])
def test_no_group_gives_no_rows(groups):
    probabilities, labels, *_ = data()
    frame = score_subgroups(probabilities, labels, NAMES, groups, replicates=2)
    some = score_subgroups(probabilities, labels, NAMES, {"sex": ["F"] * 60}, replicates=2)
    assert len(frame) == 0
    assert frame.columns.tolist() == some.columns.tolist()
    assert frame.attrs == {"undefined": []}


def test_groups_and_patients_must_be_those_of_the_images():
    probabilities, labels, sex, _ = data()
    with pytest.raises(InputError, match=r"groups\['sex'\] must hold 60 values, .* got 2"):
        score_subgroups(probabilities, labels, NAMES, {"sex": ["F", "M"]})
    with pytest.raises(InputError, match=r"patients must hold 60 values, .* got 1"):
        score_subgroups(probabilities, labels, NAMES, {"sex": sex}, patients=["p"])
