import numpy as np
import pytest

from cxrssl.errors import InputError
from cxrssl.evaluation.cohort import choose_images
from cxrssl.evaluation.embeddings import evaluation_view
from tests.evaluation.stand_ins import SPLITS, data_of, make_index, quick, small_vit

FINDINGS = ["left", "noise"]
TRAIN, VAL, TEST = SPLITS
N = sum(SPLITS)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The index of images in a folder of their own."""
    return make_index(tmp_path_factory.mktemp("images"))


@pytest.fixture
def table(images):
    return images.copy


def cohort(tmp_path, frame, findings=FINDINGS, data=None, **options):
    data = data_of(frame, tmp_path, **(data or {}))
    data.setup("test")
    data.views = evaluation_view(small_vit(), findings)
    return choose_images(data, quick(**options))


def test_images_keep_the_splits_and_labels_of_the_index(tmp_path, table):
    frame = table()
    chosen = cohort(tmp_path, frame)
    assert chosen.rows["split"].tolist() == frame["split"].tolist()
    np.testing.assert_array_equal(chosen.labels, frame[FINDINGS])
    assert chosen.findings == FINDINGS
    assert chosen.not_scored == {}
    features = np.arange(float(N))[:, None]
    val = chosen.labelled(features, "val")
    assert val.features[:, 0].tolist() == list(range(TRAIN, TRAIN + VAL))
    np.testing.assert_array_equal(val.labels, frame[FINDINGS][TRAIN : TRAIN + VAL])


def test_some_training_patients_validate_where_no_image_does(tmp_path, table):
    frame = table()
    frame.loc[frame["split"] == "val", "split"] = "train"
    chosen = cohort(tmp_path, frame, validation=0.2)
    places = {split: chosen.places(split) for split in ("train", "val", "test")}
    assert len(places["val"]) == 22
    assert len(places["train"]) == 86
    owners = [set(chosen.patients(split)) for split in places]
    assert not owners[0] & owners[1]
    assert places["test"].tolist() == list(range(TRAIN + VAL, N))
    again = cohort(tmp_path, frame, validation=0.2)
    np.testing.assert_array_equal(again.places("val"), places["val"])


def test_a_subset_of_the_training_images_is_the_data_module_s(tmp_path, table):
    chosen = cohort(tmp_path, table(), data={"subset": 0.5})
    assert len(chosen.places("train")) == 36
    assert len(chosen.places("test")) == TEST


@pytest.mark.parametrize(
    ("split", "values", "reason"),
    [
        ("train", 0, "no positive training image"),
        ("val", 1, "no negative validation image"),
        ("test", -1, "no positive and no negative test image"),
    ],
)
def test_a_finding_without_both_classes_is_listed(tmp_path, table, split, values, reason):
    frame = table()
    frame.loc[frame["split"] == split, "noise"] = values
    chosen = cohort(tmp_path, frame)
    assert chosen.findings == ["left"]
    assert chosen.labels.shape == (N, 1)
    assert chosen.not_scored == {"noise": reason}
    with pytest.raises(InputError, match=rf"no finding can be scored \(noise: {reason}\)"):
        cohort(tmp_path, frame, ["noise"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_training_and_test_images_are_needed(tmp_path, table, split):
    frame = table()
    frame = frame[frame["split"] != split]
    name = {"train": "training", "test": "test"}[split]
    with pytest.raises(InputError, match=f"the index has no {name} images"):
        cohort(tmp_path, frame)


def test_views_are_told_by_their_position(tmp_path, table):
    frame = table()
    frame["view_position"] = ["L", "ll", "LEFT LATERAL", "AP_SUPINE", "PA", "Frontal"] * 24
    frame.loc[5, "view_position"] = "OTHER"
    frame.loc[4, "view_position"] = None
    lateral = cohort(tmp_path, frame, views="lateral").rows.index
    assert lateral.tolist() == [number for number in range(N) if number % 6 < 3]
    frontal = cohort(tmp_path, frame, views="frontal").rows.index
    assert frontal.tolist() == [number for number in range(N) if number % 6 >= 3][:1] + [
        number for number in range(9, N) if number % 6 >= 3
    ]
    frame["view_position"] = "PA"
    with pytest.raises(InputError, match=r"no training image is lateral: .* holds PA"):
        cohort(tmp_path, frame, views="lateral")


def test_balanced_findings_have_as_many_negatives_as_positives(tmp_path, table):
    frame = table()
    frame["left"] = (np.arange(N) % 5 == 0).astype(int)
    frame["noise"] = (np.arange(N) % 4 < 3).astype(int)
    chosen = cohort(tmp_path, frame, balance=True)
    original = frame.loc[chosen.rows.index, FINDINGS].to_numpy()
    for split in ("train", "val", "test"):
        rows = chosen.places(split)
        positives = np.sum(chosen.labels[rows] == 1, axis=0)
        negatives = np.sum(chosen.labels[rows] == 0, axis=0)
        whole = frame[frame["split"] == split][FINDINGS]
        assert positives.tolist() == whole.sum().tolist()
        assert negatives.tolist() == [positives[0], (1 - whole["noise"]).sum()]
    known = ~np.isnan(chosen.labels)
    np.testing.assert_array_equal(chosen.labels[known], original[known])
    other = cohort(tmp_path, frame, balance=True, seed=1)
    assert other.rows.index.tolist() != chosen.rows.index.tolist() or not np.array_equal(
        other.labels, chosen.labels, equal_nan=True
    )


def test_subsets_are_nested_within_a_seed(tmp_path, table):
    chosen = cohort(tmp_path, table())
    options = quick(shares=[0.1, 0.5, 1.0], shots=[1, 3], seeds=[4, 5])
    subsets = chosen.subsets(options)
    assert len(subsets) == 2 * 4 + 1
    assert len(subsets["share", 1.0, 4]) == TRAIN
    for seed in (4, 5):
        assert set(subsets["share", 0.1, seed]) < set(subsets["share", 0.5, seed])
        assert set(subsets["shots", 1, seed]) < set(subsets["shots", 3, seed])
    assert set(subsets["share", 0.1, 4]) != set(subsets["share", 0.1, 5])
    labels = chosen.labels[chosen.places("train")][subsets["shots", 3, 4]]
    assert (np.sum(labels == 1, axis=0) >= 3).all()
    assert (np.sum(labels == 0, axis=0) >= 3).all()


def test_groups_have_two_values_at_least(tmp_path, table):
    groups = cohort(tmp_path, table()).groups(["sex", "age", "view", "dataset"])
    assert list(groups) == ["sex", "age", "view"]
    assert set(groups["view"]) == {"LATERAL", "PA"}
    assert {len(values) for values in groups.values()} == {TEST}
