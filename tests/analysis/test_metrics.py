import numpy as np
import pytest

from cxrssl.analysis import known_labels, multilabel_scores

NAN = np.nan


def test_known_labels():
    labels = np.array([[0.0, 1.0, -1.0, NAN]], dtype=np.float32)
    assert known_labels(labels).tolist() == [[True, True, False, False]]


def test_hand_computed_areas():
    # Positives 0.9 and 0.4, negatives 0.5 and 0.1: 3 of 4 pairs are in order.
    # Precision is 1 at the first positive and 2/3 at the second: (1 + 2/3) / 2 = 5/6.
    scores = np.array([[0.9], [0.5], [0.4], [0.1]])
    labels = np.array([[1.0], [0.0], [1.0], [0.0]])
    result = multilabel_scores(scores, labels, ["Effusion"])
    assert result["auroc"] == pytest.approx({"Effusion": 0.75, "macro": 0.75})
    assert result["auprc"] == pytest.approx({"Effusion": 5 / 6, "macro": 5 / 6})
    assert result["undefined"] == []


def test_unknown_labels_do_not_count_and_one_sided_findings_are_listed():
    scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.4, 0.3], [0.1, 0.4], [0.0, 0.5], [1.0, 0.6]])
    labels = np.array([[1, 1], [0, -1], [1, NAN], [0, 1], [-1, 1], [NAN, 1.0]])
    result = multilabel_scores(scores, labels, ["Effusion", "Edema"])
    assert result["auroc"] == pytest.approx({"Effusion": 0.75, "macro": 0.75})
    assert result["undefined"] == ["Edema"]


def test_macro_is_the_mean_of_the_defined_findings():
    rng = np.random.default_rng(0)
    labels = (rng.random((50, 3)) < 0.5).astype(np.float32)
    labels[:, 1] = 0
    result = multilabel_scores(rng.random((50, 3)), labels, ["a", "b", "c"])
    for areas in (result["auroc"], result["auprc"]):
        assert areas["macro"] == pytest.approx((areas["a"] + areas["c"]) / 2)


def test_no_macro_without_a_defined_finding():
    result = multilabel_scores(np.zeros((3, 1)), np.full((3, 1), NAN), ["a"])
    assert result == {"auroc": {}, "auprc": {}, "undefined": ["a"]}


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must both be \(images, 1\)"):
        multilabel_scores(np.zeros((3, 2)), np.zeros((3, 2)), ["a"])


def test_scores_must_be_finite():
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        multilabel_scores(np.array([[NAN], [1.0]]), np.zeros((2, 1)), ["a"])
