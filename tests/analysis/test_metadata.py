import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from cxrssl.analysis.metadata import metadata_accuracy
from cxrssl.errors import InputError

NAN = np.nan


def data(n=120, seed=0):
    """Return features that tell the sex, and an index of patients with two images each."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // 2
    sex = np.array(["F", "M"])[rng.integers(2, size=n // 2)][patients]
    age = rng.uniform(10, 95, n // 2)[patients]
    index = pd.DataFrame(
        {
            "dataset": pd.array(["d"] * n, "string"),
            "patient_id": pd.array(patients.astype(str), "string"),
            "sex": pd.array(sex, "string"),
            "age": age.astype(np.float32),
        }
    )
    features = rng.normal(size=(n, 4))
    features[:, 0] += 4 * (sex == "M")
    return features, index


def test_equals_sklearn_with_its_defaults_in_folds_of_patients():
    features, index = data()
    frame = metadata_accuracy(features, index, seed=3).set_index("target")
    scores = []
    sex = index["sex"].to_numpy()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=3)
    for train, test in folds.split(features, sex, np.arange(120) // 2):
        assert not set(train // 2) & set(test // 2)
        model = LogisticRegression().fit(features[train], sex[train])
        scores.append(model.score(features[test], sex[test]))
    assert frame.loc["sex", "accuracy"] == pytest.approx(np.mean(scores))
    assert frame.loc["sex", "std"] == pytest.approx(np.std(scores))
    assert frame.loc["sex", "accuracy"] > 0.9
    assert frame.loc["sex", "majority"] == max((sex == "F").mean(), (sex == "M").mean())
    assert frame.loc["age", "classes"] == 5
    assert frame.loc["age", "accuracy"] < 0.5


def test_bins_hold_their_lower_end():
    n = 100
    index = pd.DataFrame(
        {
            "dataset": "d",
            "patient_id": pd.array([None] * n, "string"),
            "age": np.tile([20, 39.9], n // 2).astype(np.float32),
            "weight": np.tile([49.9, 50], n // 2).astype(np.float32),
            "bmi": np.tile([35, 34.9], n // 2).astype(np.float32),
        }
    )
    features = np.tile([[-3.0], [3.0]], (n // 2, 1))
    frame = metadata_accuracy(features, index)
    assert frame["target"].tolist() == ["weight", "bmi"]
    assert frame["accuracy"].tolist() == [1, 1]
    assert frame.attrs["left_out"] == {
        "sex": "no column",
        "age": "1 classes, 100 patients, 100 images",
    }


def test_the_same_patient_number_in_two_datasets_is_two_people():
    features, index = data(n=12)
    index["patient_id"] = pd.array(["1", "2", "3"] * 4, "string")
    assert "sex" in metadata_accuracy(features, index).attrs["left_out"]
    index["dataset"] = pd.array(["a"] * 6 + ["b"] * 6, "string")
    assert "sex" not in metadata_accuracy(features, index).attrs["left_out"]


def test_unknown_values_and_rare_classes_are_harmless():
    features, index = data()
    index["sex"] = pd.array([pd.NA] * 10 + ["F"] * 109 + ["M"], "string")
    index["age"] = np.float32(NAN)
    frame = metadata_accuracy(features, index)
    assert frame[["target", "images"]].to_numpy().tolist() == [["sex", 110]]
    assert frame["accuracy"].iloc[0] == pytest.approx(109 / 110, abs=0.02)
    assert frame.attrs["left_out"]["age"] == "0 classes, 0 patients, 0 images"


def test_standardising_makes_scale_not_matter():
    features, index = data()
    one, other = (
        metadata_accuracy(scale * features, index, standardise=True) for scale in (1.0, 1e-6)
    )
    pd.testing.assert_frame_equal(one, other)
    raw = metadata_accuracy(1e-6 * features, index).set_index("target")
    assert raw.loc["sex", "accuracy"] < one.set_index("target").loc["sex", "accuracy"]


def test_rows_and_folds_must_fit():
    features, index = data()
    with pytest.raises(InputError, match="same number of rows"):
        metadata_accuracy(features[1:], index)
    with pytest.raises(InputError, match="at least 2"):
        metadata_accuracy(features, index, folds=1)
