import numpy as np
import pytest

from cxrssl.analysis import bootstrap as module
from cxrssl.analysis.bootstrap import FindingBootstrap
from cxrssl.errors import InputError

NAN = np.nan
LABELS = np.array([[1, 1, 0], [0, -1, 0], [1, NAN, 1], [0, 0, NAN], [0, 1, NAN]], dtype=float)
NAMES = ["a", "b", "c"]


def mean_score(scores, truth, weights):
    """Return the weighted mean score, NaN without images, and how many images there are."""
    images = weights.sum(1, dtype=float)
    mean = np.full(len(images), NAN)
    np.divide(weights @ scores, images, out=mean, where=images > 0)
    return [mean, images]


def test_the_first_estimate_is_that_of_the_data():
    scores = np.arange(15.0).reshape(5, 3)
    values = FindingBootstrap(LABELS, NAMES, replicates=3).metrics([scores, -scores], mean_score)
    assert values.shape == (2, 4, 2, 4)
    of_findings = [6, (1 + 10 + 13) / 3, (2 + 5 + 8) / 3]
    np.testing.assert_allclose(values[0, :, 0, 0], [*of_findings, np.mean(of_findings)])
    np.testing.assert_allclose(values[1, :, 0, 0], -values[0, :, 0, 0])
    np.testing.assert_allclose(values[0, :, 1, 0], [5, 3, 3, 11 / 3])


def test_findings_and_predictions_share_their_resamples():
    labels = np.tile(LABELS[:, :1], (1, 2))
    scores = np.random.default_rng(0).random((5, 1)).repeat(2, axis=1)
    bootstrap = FindingBootstrap(labels, ["a", "b"], replicates=30)
    values = bootstrap.metrics([scores, scores + 1], mean_score)[:, :, 0]
    for row in (1, 2):
        np.testing.assert_allclose(values[:, row], values[:, 0])
    np.testing.assert_allclose(values[1], values[0] + 1)


def test_a_finding_without_an_estimate_is_left_out_of_the_mean():
    labels = np.full((40, 2), NAN)
    labels[:, 0] = np.arange(40) % 2
    labels[:2, 1] = 0, 1  # in about one of seven resamples neither
    values = FindingBootstrap(labels, ["a", "b"], replicates=200).metrics(
        [np.random.default_rng(0).random((40, 2))], mean_score
    )[0, :, 0]
    missing = np.isnan(values[1])
    assert 0.05 < missing.mean() < 0.3
    np.testing.assert_array_equal(values[2, missing], values[0, missing])
    np.testing.assert_allclose(values[2, ~missing], values[:2, ~missing].mean(0))


def test_parts_do_not_show(monkeypatch):
    scores = np.random.default_rng(0).random((5, 3))
    whole = FindingBootstrap(LABELS, NAMES, replicates=20).metrics([scores], mean_score)
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 15)
    parts = FindingBootstrap(LABELS, NAMES, replicates=20).metrics([scores], mean_score)
    np.testing.assert_array_equal(parts, whole)


def test_the_seed_makes_the_resamples():
    scores = np.random.default_rng(0).random((5, 3))
    first, second, third = (
        FindingBootstrap(LABELS, NAMES, replicates=20, seed=seed).metrics([scores], mean_score)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[..., 1:], third[..., 1:])


def test_no_interval_with_fewer_than_two_patients():
    labels = np.array([[0, 0], [1, 1], [NAN, 0], [NAN, 1]], dtype=float)
    bootstrap = FindingBootstrap(labels, ["a", "b"], patients=["p", "p", "q", "q"], replicates=9)
    ends = bootstrap.intervals(np.random.default_rng(0).random((3, 1, 10)))
    np.testing.assert_array_equal(np.isnan(ends[:, :, 0]), [[True, False, False]] * 2)


def test_table_counts_images_and_positives():
    bootstrap = FindingBootstrap(LABELS, NAMES, replicates=2)
    frame = bootstrap.table(["x", "y"], {"value": np.arange(8.0).reshape(4, 2)})
    assert frame["finding"].tolist() == ["a", "a", "b", "b", "c", "c", "macro", "macro"]
    assert frame["metric"].tolist() == ["x", "y"] * 4
    assert frame["value"].tolist() == list(range(8))
    assert frame["images"].tolist() == [5, 5, 3, 3, 3, 3, 5, 5]
    assert frame["positives"].tolist() == [2, 2, 2, 2, 1, 1, 3, 3]
    assert frame.attrs == {"undefined": []}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"names": ["a"]}, r"labels \(5, 3\) must be \(images, 1\)"),
        ({"replicates": 0}, "replicates must be at least 1 .* got 0 and 0.95"),
        ({"level": 1.0}, r"level in \(0, 1\), got 1000 and 1.0"),
        ({"patients": ["p"]}, "patient of each of 5 images, got 1"),
    ],
)
def test_what_cannot_be_used_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        FindingBootstrap(**({"labels": LABELS, "names": NAMES} | changed))


def test_predictions_must_have_the_shape_of_the_labels():
    with pytest.raises(InputError, match=r"predictions \(5, 2\) must have .* \(5, 3\)"):
        FindingBootstrap(LABELS, NAMES).metrics([np.zeros((5, 2))], mean_score)
