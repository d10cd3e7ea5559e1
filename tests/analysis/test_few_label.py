import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrssl.analysis.few_label import LabelledFeatures, few_label_curve
from cxrssl.analysis.logistic import LogisticProbe

NAMES = ["Effusion", "Edema"]


def images(n, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < 0.4).astype(float)
    features = rng.normal(size=(n, 5))
    features[:, :2] += 1.5 * labels
    return LabelledFeatures(features, labels)


TRAIN, VAL, TEST = images(60, 0), images(40, 1), images(50, 2)


def values(curve, **chosen):
    for column, value in chosen.items():
        curve = curve[curve[column] == value]
    return dict(zip(curve["finding"], curve["value"], strict=True))


def test_each_point_is_a_logistic_regression_on_its_images():
    rows = np.arange(30)
    curve = few_label_curve(TRAIN, VAL, TEST, NAMES, {("share", 0.5, 3): rows})
    probe = LogisticProbe().fit(TRAIN.features[rows], TRAIN.labels[rows], *VAL)
    scores = probe.predict(TEST.features)
    for metric, function in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        expected = [function(TEST.labels[:, f], scores[:, f]) for f in range(2)]
        found = values(curve, metric=metric)
        assert list(found) == [*NAMES, "macro"]
        np.testing.assert_allclose(list(found.values()), [*expected, np.mean(expected)])
    assert (curve["images"] == 30).all()
    assert curve[["kind", "size", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["share", 0.5, 3]
    ]


def test_a_subset_with_one_class_can_only_guess():
    rows = np.flatnonzero(TRAIN.labels[:, 1] == 0)[:10]
    assert len(np.unique(TRAIN.labels[rows, 0])) == 2
    curve = few_label_curve(TRAIN, VAL, TEST, NAMES, {("shots", 2, 0): rows})
    assert values(curve, metric="auroc")["Edema"] == 0.5
    share = TEST.labels[:, 1].mean()
    assert values(curve, metric="auprc")["Edema"] == pytest.approx(share)


def test_findings_with_one_class_in_the_test_images_are_left_out():
    labels = TEST.labels.copy()
    labels[:, 1] = np.nan
    test = LabelledFeatures(TEST.features, labels)
    curve = few_label_curve(TRAIN, VAL, test, NAMES, {("share", 1.0, 0): np.arange(60)})
    found = values(curve, metric="auroc")
    assert list(found) == ["Effusion", "macro"]
    assert found["Effusion"] == found["macro"]


def test_no_subset_gives_an_empty_curve():
    curve = few_label_curve(TRAIN, VAL, TEST, NAMES, {})
    assert curve.empty
    assert list(curve)[:4] == ["kind", "size", "seed", "images"]
