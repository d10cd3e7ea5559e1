import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrssl.analysis.comparison import compare_predictions
from cxrssl.analysis.delong import delong_test
from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.resampling import patient_weights
from cxrssl.errors import InputError

NAN = np.nan
NAMES = ["Effusion", "Edema"]


def data(n=80, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < 0.4).astype(float)
    first = rng.normal(1.5 * labels)
    second = 0.5 * first + rng.normal(size=(n, 2))
    labels[rng.random((n, 2)) < 0.2] = NAN
    patients = [f"p{number // 2}" for number in range(n)]
    return first, second, labels, patients


def test_equals_the_areas_of_repeated_rows():
    first, second, labels, patients = data()
    frame = compare_predictions(
        first, second, labels, NAMES, patients=patients, replicates=30, seed=2
    )
    resamples = patient_weights(patients, 30, np.random.default_rng(2))
    both = np.empty((2, 31, 3, 2))
    for row, counts in enumerate([np.ones(80, dtype=int), *resamples]):
        for column in range(2):
            rows = np.repeat(np.arange(80), counts * ~np.isnan(labels[:, column]))
            for number, scores in enumerate((first, second)):
                pair = labels[rows, column], scores[rows, column]
                both[number, row, column] = roc_auc_score(*pair), average_precision_score(*pair)
    both[:, :, 2] = both[:, :, :2].mean(2)
    difference = both[0] - both[1]
    low, high = np.quantile(difference[1:], (0.025, 0.975), axis=0)
    fewer = np.minimum((difference[1:] <= 0).sum(0), (difference[1:] >= 0).sum(0))
    for name, expected in {
        "first": both[0, 0],
        "second": both[1, 0],
        "difference": difference[0],
        "low": low,
        "high": high,
        "p_bootstrap": np.minimum(1, 2 * (fewer + 1) / 31),
    }.items():
        np.testing.assert_allclose(frame[name], expected.ravel(), rtol=1e-9, err_msg=name)


def test_table_and_delong():
    first, second, labels, patients = data()
    frame = compare_predictions(first, second, labels, NAMES, patients=patients, replicates=5)
    assert frame.columns.tolist() == [
        *("finding", "metric", "first", "second", "difference", "low", "high"),
        *("p_bootstrap", "p_delong", "images", "positives"),
    ]
    assert frame["finding"].tolist() == np.repeat([*NAMES, "macro"], 2).tolist()
    assert frame["metric"].tolist() == ["auroc", "auprc"] * 3
    known = ~np.isnan(labels)
    p = [
        delong_test(*(x[known[:, column], column] for x in (first, second, labels))).p
        for column in range(2)
    ]
    np.testing.assert_allclose(frame["p_delong"], [p[0], NAN, p[1], NAN, NAN, NAN])


def test_scores_are_those_of_each_alone():
    first, second, labels, _ = data()
    first, second = (1 / (1 + np.exp(-x)) for x in (first, second))
    frame = compare_predictions(first, second, labels, NAMES, replicates=2)
    for name, scores in (("first", first), ("second", second)):
        alone = score_predictions(scores, labels, NAMES, replicates=2)
        alone = alone[alone["metric"].isin(["auroc", "auprc"])]
        np.testing.assert_array_equal(frame[name], alone["value"])


def test_a_prediction_does_not_differ_from_itself():
    first, _, labels, patients = data()
    frame = compare_predictions(first, 2 * first, labels, NAMES, patients=patients, replicates=20)
    np.testing.assert_array_equal(frame[["difference", "low", "high"]], 0)
    np.testing.assert_array_equal(frame["p_bootstrap"], 1)
    np.testing.assert_array_equal(frame["p_delong"].dropna(), 1)


def test_exchange_of_the_two():
    first, second, labels, patients = data()
    kwargs = {"patients": patients, "replicates": 50}
    one = compare_predictions(first, second, labels, NAMES, **kwargs)
    other = compare_predictions(second, first, labels, NAMES, **kwargs)
    np.testing.assert_array_equal(other["difference"], -one["difference"])
    np.testing.assert_allclose(other["low"], -one["high"], atol=1e-12)
    np.testing.assert_array_equal(other["p_bootstrap"], one["p_bootstrap"])
    np.testing.assert_array_equal(other["p_delong"], one["p_delong"])


def test_p_of_the_bootstrap_is_near_delongs_where_images_are_independent():
    first, second, labels, _ = data(n=300)
    frame = compare_predictions(first, second + 0.8 * (labels == 1), labels, NAMES, replicates=500)
    rows = frame[frame["p_delong"].notna()]
    assert (rows["p_delong"] > 0.001).all()
    np.testing.assert_allclose(rows["p_bootstrap"], rows["p_delong"], atol=0.05)


def test_one_patient_and_findings_that_cannot_be_scored():
    first, second, labels, _ = data()
    labels[:, 1] = 0
    frame = compare_predictions(first, second, labels, NAMES, patients=["p"] * 80, replicates=5)
    assert frame.attrs["undefined"] == ["Edema"]
    assert frame[["low", "high", "p_bootstrap"]].isna().all(axis=None)
    assert frame["difference"].notna().all()


def test_scores_must_be_finite():
    first, second, labels, _ = data()
    second[5] = NAN
    labels[5] = 1
    with pytest.raises(InputError, match="are not finite"):
        compare_predictions(first, second, labels, NAMES)
