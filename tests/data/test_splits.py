import hashlib

import numpy as np
import pandas as pd
import pytest

from cxrssl.data.splits import assign_splits, stable_fractions
from cxrssl.data.validate import validate_index
from cxrssl.errors import InputError


def make_index(n=3000, images_per_patient=3):
    numbers = np.arange(n)
    paths = [f"/data/{i}.png" for i in numbers]
    patients = (numbers // images_per_patient).astype(str)
    return validate_index(pd.DataFrame({"path": paths, "patient_id": patients}))


def test_fractions_are_the_first_53_bits_of_the_hash():
    digest = hashlib.blake2b(b"7 patient 12", digest_size=8).digest()
    expected = (int.from_bytes(digest, "big") >> 11) / 2**53
    assert stable_fractions(7, ["patient 12"])[0] == expected
    assert stable_fractions(7, []).shape == (0,)


def test_shares_are_met_and_patients_stay_together():
    index = assign_splits(make_index(), (0.7, 0.2, 0.1))
    shares = index["split"].value_counts(normalize=True)
    # 1000 patients: three standard deviations are below 0.045.
    np.testing.assert_allclose(shares[["train", "val", "test"]], [0.7, 0.2, 0.1], atol=0.045)
    validate_index(index)
    assert set(assign_splits(make_index(), (0, 0, 1))["split"]) == {"test"}


def test_splits_depend_on_nothing_but_the_patient():
    index = make_index()
    split = assign_splits(index).set_index("path")["split"]
    some = index.sample(frac=0.3, random_state=0)
    again = assign_splits(some).set_index("path")["split"]
    pd.testing.assert_series_equal(again, split[again.index])
    assert (assign_splits(index, seed=1)["split"].to_numpy() != split.to_numpy()).any()


def test_rows_without_patient_are_their_own_and_survive_a_move():
    index = make_index(300)
    index.loc[:, "patient_id"] = pd.NA
    here = assign_splits(index, folder="/data")
    moved = index.assign(path=index["path"].str.replace("/data", "/mnt/x/", regex=False))
    there = assign_splits(moved, folder="/mnt/x/")
    assert here["split"].tolist() == there["split"].tolist()
    assert here["split"].nunique() == 3


def test_splits_of_the_file_are_kept():
    index = make_index(6).assign(split=pd.array(["val"] * 6, "string"))
    pd.testing.assert_frame_equal(assign_splits(index), index)


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_wrong_shares_are_refused(fractions):
    with pytest.raises(InputError, match=r"three shares .* sum 1, got \("):
        assign_splits(make_index(3), fractions)


def test_images_of_one_study_stay_together_where_the_patient_is_unknown():
    index = make_index(300)
    index["patient_id"] = pd.NA
    index["study_id"] = pd.array([f"s{n // 3}" for n in range(300)], "string")
    split = assign_splits(index)
    assert (split.groupby("study_id")["split"].nunique() == 1).all()
    assert split["split"].nunique() == 3
