from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from cxrssl.data.subsets import few_shot, nested_subset
from cxrssl.data.validate import validate_index
from cxrssl.errors import InputError


def index(n=60, seed=0):
    """Return images of patients with 1 to 5 images; every tenth has no patient."""
    rng = np.random.default_rng(seed)
    patients = [f"p{number}" for number in np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]]
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(n)], "patient_id": patients})
    frame.loc[::10, "patient_id"] = None
    return validate_index(frame.assign(dataset="X"))


def owners(rows):
    return rows["patient_id"].fillna(rows["path"])


@pytest.mark.parametrize("seed", range(5))
def test_smaller_subsets_lie_within_larger_ones(seed):
    rows = index()
    sizes = [0.01, 0.1, 7, 0.25, 20, 0.5, 45, 1.0]
    subsets = [set(nested_subset(rows, size, seed)) for size in sizes]
    assert all(small <= large for small, large in pairwise(subsets))
    assert subsets[-1] == set(range(60))


@pytest.mark.parametrize("size", [1, 13, 0.3, 59])
def test_patients_are_whole_and_the_size_is_just_met(size):
    rows = index()
    taken = nested_subset(rows, size)
    assert (np.diff(taken) > 0).all()
    inside = set(owners(rows.iloc[taken]))
    assert not inside & set(owners(rows.drop(index=taken)))
    wanted = size if isinstance(size, int) else size * 60
    assert len(taken) >= wanted
    # Without its last patient it would be too small: no patient has more than five images.
    assert len(taken) < wanted + 5


def test_a_subset_is_by_patient_whatever_the_order_and_the_other_columns():
    rows = index()
    shuffled = rows.sample(frac=1, random_state=3).assign(nodule=1)
    names = [set(each["path"].iloc[nested_subset(each, 0.4)]) for each in (rows, shuffled)]
    assert names[0] == names[1]
    assert set(nested_subset(rows, 0.4)) != set(nested_subset(rows, 0.4, seed=1))


def test_one_patient_number_in_two_datasets_is_two_patients():
    frame = pd.DataFrame({"path": ["a", "b"], "patient_id": "1", "dataset": ["X", "Y"]})
    assert len(nested_subset(validate_index(frame), 1)) == 1
    assert len(nested_subset(validate_index(frame.assign(dataset="X")), 1)) == 2
    without = validate_index(frame.drop(columns="dataset"))
    assert len(nested_subset(without, 1)) == 2


def test_moving_the_folder_changes_nothing():
    rows = index().assign(patient_id=pd.array([None] * 60, "string"))
    moved = rows.assign(path="/far/away/" + rows["path"])
    labels = np.random.default_rng(0).integers(0, 2, (60, 2)).astype(np.float32)
    for folder in ("/far/away", "/far/away/"):
        assert nested_subset(rows, 20).tolist() == nested_subset(moved, 20, folder=folder).tolist()
        chosen = few_shot(labels, moved, 3, folder=folder)
        assert chosen.tolist() == few_shot(labels, rows, 3).tolist()
    assert nested_subset(rows, 20).tolist() != nested_subset(moved, 20).tolist()


@pytest.mark.parametrize("size", [0, -1, 0.0, -0.5, 61, 2.5, float("nan"), float("inf")])
def test_sizes_that_are_none(size):
    with pytest.raises(InputError, match=rf"a share in \(0, 1\] or .* up to 60, got {size}"):
        nested_subset(index(), size)


def test_one_and_one_point_zero():
    assert len(nested_subset(index(), 1.0)) == 60
    assert len(nested_subset(index(), 1)) < 6
    assert nested_subset(index(), 20.0).tolist() == nested_subset(index(), 20).tolist()


def test_few_shots_have_so_many_images_of_each_kind_and_are_nested():
    rows = index()
    labels = np.random.default_rng(1).choice([1, 0, -1, np.nan], (60, 4)).astype(np.float32)
    labels[:, 3] = np.where(np.arange(60) < 2, 1, -1)  # two positive images, no negative one
    before: set[int] = set()
    for shots in (1, 2, 4, 9):
        taken = few_shot(labels, rows, shots, seed=7)
        assert (np.diff(taken) > 0).all()
        assert before <= set(taken)
        before = set(taken)
        for column in labels[taken].T[:3]:
            assert min((column == 1).sum(), (column == 0).sum()) >= shots
        assert (labels[taken, 3] == 1).sum() == min(shots, 2)
        # Nothing is taken that no finding asked for.
        assert len(taken) <= shots * 6 + 2


def test_few_shots_follow_the_path_not_the_order():
    rows = index()
    labels = np.random.default_rng(1).integers(0, 2, (60, 2)).astype(np.float32)
    order = np.random.default_rng(2).permutation(60)
    names = [
        set(each["path"].iloc[few_shot(values, each, 3)])
        for each, values in ((rows, labels), (rows.iloc[order], labels[order]))
    ]
    assert names[0] == names[1]
    assert few_shot(labels, rows, 3).tolist() != few_shot(labels, rows, 3, seed=1).tolist()


def test_no_shots():
    with pytest.raises(InputError, match="shots must be at least 1, got 0"):
        few_shot(np.zeros((60, 1)), index(), 0)
