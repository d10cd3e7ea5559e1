import numpy as np
import pytest

from cxrssl.analysis.dice import dice_scores, summarise_dice
from cxrssl.analysis.resampling import patient_weights
from cxrssl.errors import InputError
from tests.golden import load_golden

CONVENTIONS = ["all images", "positives only", "always empty"]


def masks(seed=0, shape=(4, 3, 6, 5)):
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 255], dtype=np.uint8), size=shape, p=(0.5, 0.3, 0.2))
    return rng.random(shape) < 0.4, truth


def slow_dice(prediction, truth):
    pairs = [
        (bool(p), int(t))
        for p, t in zip(prediction.ravel(), truth.ravel(), strict=True)
        if t != 255
    ]
    if not pairs:
        return np.nan
    total = sum(p + t for p, t in pairs)
    return 2 * sum(p * t for p, t in pairs) / total if total else 1.0


def test_golden():
    golden = {name: value.numpy() for name, value in load_golden("chexworld/finetune.npz").items()}
    found = dice_scores(golden["dice/pred"] > 0.5, golden["dice/target"].astype(np.uint8))
    np.testing.assert_allclose(found[:, 0], golden["dice/each"], atol=1e-9)
    np.testing.assert_allclose(found.mean(), golden["dice/mean"], atol=1e-9)


def test_scores_equal_loops_over_known_pixels():
    prediction, truth = masks()
    prediction[0, 0], truth[0, 0, 1:], truth[0, 0, :1] = False, 0, 255  # both empty
    truth[1, 1] = 255  # nothing is known
    truth[2, 2] = np.minimum(truth[2, 2], 1) * 255  # empty where it is known
    found = dice_scores(prediction, truth)
    expected = [
        [slow_dice(p, t) for p, t in zip(ps, ts, strict=True)]
        for ps, ts in zip(prediction, truth, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0, 0] == 1
    assert np.isnan(found[1, 1])
    assert found[2, 2] == 0


def test_masks_that_cannot_be_scored_are_refused():
    prediction, truth = masks()
    with pytest.raises(InputError, match=r"\(4, 3, 6, 5\) float64 must be boolean"):
        dice_scores(prediction.astype(float), truth)
    with pytest.raises(InputError, match=r"truth \(3, 3, 6, 5\) must both be"):
        dice_scores(prediction, truth[:3])
    truth[0, 0, 0, 0], truth[1, 0, 0, 0] = 7, 2
    with pytest.raises(InputError, match=r"truth must be 0, 1 or 255, got \[2, 7\]"):
        dice_scores(prediction, truth)


def scores():
    """Return six images of two structures, the second of which most lack."""
    each = np.array([[0.9, 1], [0.8, 1], [0.7, 0], [np.nan, 0.6], [0.6, 1], [0.5, np.nan]])
    empty = np.array([[0, 1], [0, 1], [0, 1], [1, 0], [0, 1], [0, 0]], dtype=bool)
    return each, empty


def test_means_by_hand():
    frame = summarise_dice(*scores(), ["lung", "tube"], replicates=20)
    assert frame["structure"].tolist() == ["lung"] * 3 + ["tube"] * 3 + ["macro"] * 3
    assert frame["convention"].tolist() == CONVENTIONS * 3
    expected = {
        "lung": (0.7, 0.7, 0.0),
        "tube": (3.6 / 5, 0.6, 4 / 5),
        "macro": ((0.7 + 0.72) / 2, (0.7 + 0.6) / 2, 0.4),
    }
    for name, means in expected.items():
        rows = frame[frame["structure"] == name]
        np.testing.assert_allclose(rows["mean"], means, rtol=1e-12)
    assert frame["images"].tolist() == [5, 5, 5, 5, 1, 5, 6, 6, 6]
    lung, macro = frame.iloc[0], frame.iloc[6]
    assert lung["std"] == pytest.approx(np.std([0.9, 0.8, 0.7, 0.6, 0.5], ddof=1))
    per_image = [0.95, 0.9, 0.35, 0.6, 0.8, 0.5]
    assert macro["std"] == pytest.approx(np.std(per_image, ddof=1))
    single = frame.iloc[4]  # one image has no spread
    assert np.isnan([single["std"], single["low"], single["high"]]).all()


def test_predicting_nothing_scores_what_always_empty_says():
    _, empty = scores()
    truth = np.where(empty, 0, 1).astype(np.uint8)[:, :, None, None]
    each = dice_scores(np.zeros(truth.shape, dtype=bool), truth)
    frame = summarise_dice(each, empty, ["lung", "tube"], replicates=20)
    wide = frame.pivot_table(index="structure", columns="convention", values=["mean", "low"])
    for column in ("mean", "low"):
        np.testing.assert_array_equal(
            wide[column]["all images"].dropna(), wide[column]["always empty"].dropna()
        )


def test_intervals_equal_images_repeated_by_hand():
    each, empty = scores()
    patients = ["a", "a", "b", "c", None, None]
    frame = summarise_dice(each, empty, ["lung", "tube"], patients=patients, replicates=230)
    weights = patient_weights(patients, 230, np.random.default_rng(0))
    drawn = []
    for row in weights:
        columns = np.repeat(each, row, 0).T
        known = [column[~np.isnan(column)] for column in columns]
        means = [column.mean() if len(column) else np.nan for column in known]
        present = [mean for mean in means if not np.isnan(mean)]
        drawn.append([*means, np.mean(present) if present else np.nan])
    drawn = np.array(drawn)
    for number, place in enumerate((0, 3, 6)):
        expected = np.nanquantile(drawn[:, number], (0.025, 0.975))
        row = frame.iloc[place]
        np.testing.assert_allclose([row["low"], row["high"]], expected, rtol=1e-12)


def test_one_patient_has_no_interval():
    each, empty = scores()
    frame = summarise_dice(each, empty, ["lung", "tube"], patients=["a"] * 6, replicates=5)
    assert frame[["low", "high"]].isna().to_numpy().all()
    assert frame["mean"].notna().all()


def test_a_structure_without_images_is_left_out_of_the_macro_mean():
    each, empty = scores()
    each[:, 1] = np.nan
    frame = summarise_dice(each, empty, ["lung", "tube"], replicates=5)
    assert np.isnan(frame.iloc[3]["mean"])
    assert frame.iloc[3]["images"] == 0
    assert frame.iloc[6, 2:].tolist() == frame.iloc[0, 2:].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["lung"]}, r"each \(6, 2\) and empty_truth \(6, 2\) must both be \(6 "),
        ({"patients": ["a"] * 5}, r"must both be \(5 patients' images, 2 names\)"),
        ({"replicates": 0}, "1 resample or more, got 0"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    each, empty = scores()
    with pytest.raises(InputError, match=message):
        summarise_dice(each, empty, **({"names": ["lung", "tube"]} | change))
