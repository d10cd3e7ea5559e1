import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score

from cxrssl.data.phantom import FINDINGS, Phantom
from cxrssl.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
NONE = dict.fromkeys(FINDINGS, False)


def digest(phantom, numbers):
    return hashlib.sha256(b"".join(phantom.pixels(n).tobytes() for n in numbers)).hexdigest()


def images_with(finding, count=12, size=128, others=False):
    """Draw images with one finding, without the others."""
    phantom = Phantom(size, seed=11)
    for number in range(count):
        yield phantom.draw(number, {**dict.fromkeys(FINDINGS, others), finding: True})


class TestDeterminism:
    def test_two_processes_agree(self):
        code = (
            "import hashlib; from cxrssl.data.phantom import Phantom; p = Phantom(96, 5); "
            "print(hashlib.sha256(b''.join(p.pixels(n).tobytes() for n in range(6))).hexdigest())"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == digest(Phantom(96, 5), range(6))

    def test_the_order_of_drawing_does_not_matter(self):
        forwards, backwards = Phantom(64), Phantom(64)
        one = [forwards.pixels(n) for n in range(8)]
        other = [backwards.pixels(n) for n in reversed(range(8))]
        np.testing.assert_array_equal(one, other[::-1])

    def test_global_random_state_is_not_read_or_written(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        first = Phantom(64).pixels(3)
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
        np.testing.assert_array_equal(first, Phantom(64).pixels(3))

    def test_seeds_and_numbers_differ(self):
        phantom = Phantom(64, seed=0)
        images = [phantom.pixels(n) for n in range(30)] + [Phantom(64, seed=1).pixels(0)]
        assert len({image.tobytes() for image in images}) == 31

    def test_pixels_and_labels_are_those_of_draw(self):
        phantom = Phantom(64)
        for number in range(20):
            image = phantom.draw(number)
            np.testing.assert_array_equal(image.pixels, phantom.pixels(number))
            assert image.labels == phantom.labels(number)
            assert image.patient_id == phantom.patient_id(number)


class TestSizes:
    @pytest.mark.parametrize("size", [32, 97, 224])
    def test_images_have_the_size(self, size):
        image = Phantom(size).draw(0)
        assert image.pixels.shape == (size, size)
        assert image.pixels.dtype == np.uint8
        assert {mask.shape for mask in image.masks.values()} == {(size, size)}
        assert {mask.dtype for mask in image.masks.values()} == {np.dtype(bool)}

    def test_labels_do_not_depend_on_the_size(self):
        small, large = Phantom(32, seed=2), Phantom(512, seed=2)
        assert [small.labels(n) for n in range(50)] == [large.labels(n) for n in range(50)]

    def test_the_same_chest_at_every_size(self):
        for number in range(4):
            small, large = Phantom(64).draw(number), Phantom(256).draw(number)
            reduced = cv2.resize(large.pixels, (64, 64), interpolation=cv2.INTER_AREA)
            smooth = [cv2.GaussianBlur(x, (0, 0), 1.5).ravel() for x in (small.pixels, reduced)]
            assert np.corrcoef(smooth)[0, 1] > 0.98
            lungs = cv2.resize(
                large.masks["lungs"].astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA
            )
            agree = (lungs >= 0.5) == small.masks["lungs"]
            assert agree.mean() > 0.98


class TestMasks:
    def test_absent_findings_have_empty_masks_and_present_ones_do_not(self):
        phantom = Phantom(128, seed=7)
        for number in range(40):
            image = phantom.draw(number)
            for finding in FINDINGS:
                assert image.masks[finding].any() == bool(image.labels[finding]), finding

    @pytest.mark.parametrize("finding", FINDINGS)
    def test_present_findings_have_a_mask_at_the_smallest_size(self, finding):
        assert all(image.masks[finding].any() for image in images_with(finding, 60, 32))

    def test_lungs_are_two_fields_of_plausible_area(self):
        for image in images_with("effusion"):
            lungs = image.masks["lungs"]
            assert 0.12 < lungs.mean() < 0.45
            opened = cv2.erode(lungs.astype(np.uint8), np.ones((3, 3), np.uint8))
            _, _, stats, _ = cv2.connectedComponentsWithStats(opened)
            areas = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1]
            assert areas[1] > 0.25 * areas[0]

    def test_the_heart_lies_inside_the_thorax(self):
        for image in images_with("cardiomegaly", 30):
            rows, columns = np.nonzero(image.masks["lungs"])
            heart_rows, heart_columns = np.nonzero(image.masks["heart"])
            assert columns.min() < heart_columns.min()
            assert heart_columns.max() < columns.max()
            assert rows.min() < heart_rows.min()
            assert heart_rows.max() <= min(rows.max() + 4, 127)

    def test_cardiomegaly_widens_the_heart_past_half_the_thorax(self):
        phantom = Phantom(256, seed=1)
        for number in range(20):
            ratios = []
            for large in (False, True):
                masks = phantom.draw(number, {**NONE, "cardiomegaly": large}).masks
                widths = [np.ptp(np.nonzero(masks[name])[1]) for name in ("heart", "lungs")]
                ratios.append(widths[0] / widths[1])
            assert ratios[0] < 0.54 < ratios[1] + 0.02
            assert ratios[1] - ratios[0] > 0.02

    def test_cardiomegaly_is_masked_by_the_heart(self):
        for image in images_with("cardiomegaly", 4):
            np.testing.assert_array_equal(image.masks["cardiomegaly"], image.masks["heart"])

    @pytest.mark.parametrize("large_heart", [False, True])
    def test_nodules_lie_within_the_lungs(self, large_heart):
        phantom = Phantom(128, seed=3)
        for number in range(60):
            present = {**NONE, "nodule": True, "cardiomegaly": large_heart}
            masks = phantom.draw(number, present).masks
            assert not (masks["nodule"] & ~masks["lungs"]).any(), number

    @pytest.mark.parametrize("finding", ["consolidation", "effusion", "pneumothorax"])
    def test_other_findings_lie_in_the_chest(self, finding):
        for image in images_with(finding, 30):
            mask = image.masks[finding]
            rows, columns = np.nonzero(image.masks["lungs"])
            found_rows, found_columns = np.nonzero(mask)
            assert columns.min() - 1 <= found_columns.min()
            assert found_columns.max() <= columns.max() + 1
            assert rows.min() - 1 <= found_rows.min()
            assert found_rows.max() <= rows.max() + 1
            assert (mask & image.masks["lungs"]).sum() > 0.4 * mask.sum()

    def test_fluid_sinks_and_air_rises(self):
        for fluid, air in zip(images_with("effusion"), images_with("pneumothorax"), strict=True):
            middle = np.nonzero(fluid.masks["lungs"])[0].mean()
            assert np.nonzero(fluid.masks["effusion"])[0].mean() > middle
            assert np.nonzero(air.masks["pneumothorax"])[0].mean() < middle

    def test_both_sides_occur(self):
        for finding in ("effusion", "pneumothorax", "nodule", "consolidation"):
            left = [
                np.nonzero(image.masks[finding])[1].mean()
                > np.nonzero(image.masks["lungs"])[1].mean()
                for image in images_with(finding, 30, 64)
            ]
            assert 5 < sum(left) < 25, finding


class TestOverride:
    @pytest.mark.parametrize("finding", FINDINGS)
    def test_a_finding_changes_its_own_place(self, finding):
        phantom = Phantom(128, seed=11)
        shares, inside, outside = [], [], []
        for number in range(16):
            with_it = phantom.draw(number, {**NONE, finding: True})
            without = phantom.pixels(number, NONE)
            change = np.abs(with_it.pixels.astype(float) - without)
            near = cv2.dilate(with_it.masks[finding].astype(np.uint8), np.ones((5, 5), np.uint8))
            inside.append(change[with_it.masks[finding]].mean())
            outside.append(change[near == 0].mean())
            shares.append(change[near > 0].sum() / change.sum())
        assert np.median(shares) > 0.85
        assert np.mean(inside) > 10 * np.mean(outside)

    def test_forcing_what_is_there_changes_nothing(self):
        phantom = Phantom(64)
        for number in range(5):
            present = {name: bool(label) for name, label in phantom.labels(number).items()}
            np.testing.assert_array_equal(
                phantom.pixels(number), phantom.pixels(number, override=present)
            )

    def test_labels_follow(self):
        image = Phantom(64).draw(0, dict.fromkeys(FINDINGS, True))
        assert image.labels == dict.fromkeys(FINDINGS, 1)

    def test_brightness_goes_the_right_way(self):
        signs = {"effusion": 1, "consolidation": 1, "nodule": 1, "pneumothorax": -1}
        phantom = Phantom(128, seed=11)
        for finding, sign in signs.items():
            changes = []
            for number in range(10):
                image = phantom.draw(number, {**NONE, finding: True})
                change = image.pixels.astype(float) - phantom.pixels(number, NONE)
                changes.append(change[image.masks[finding]].mean())
            assert np.mean(changes) * sign > 4, finding

    def test_an_unknown_finding_is_refused(self):
        with pytest.raises(InputError, match=r"override names edema; the findings are cardiomeg"):
            Phantom(64).pixels(0, {"edema": True})


class TestFrequencies:
    def test_prevalence_is_met(self):
        labels = np.array([list(Phantom().labels(n).values()) for n in range(4000)])
        # Images of one patient share chronic findings: about 2,000 independent draws at least.
        np.testing.assert_allclose(labels.mean(0), 0.28, atol=4 * np.sqrt(0.28 * 0.72 / 1700))

    def test_prevalence_can_be_set(self):
        phantom = Phantom(prevalence={"nodule": 0.0, "effusion": 1.0})
        labels = [phantom.labels(n) for n in range(300)]
        assert {row["nodule"] for row in labels} == {0}
        assert {row["effusion"] for row in labels} == {1}
        assert 0.15 < np.mean([row["consolidation"] for row in labels]) < 0.45

    def test_findings_are_independent_of_each_other_and_of_the_view(self):
        table = Phantom().index(4000)
        columns = table[list(FINDINGS)].assign(bedside=(table["view_position"] == "AP").astype(int))
        correlation = columns.corr().to_numpy() - np.eye(len(FINDINGS) + 1)
        assert np.abs(correlation).max() < 0.08

    def test_raw_pixels_do_not_give_the_local_findings_away(self):
        phantom = Phantom(32)
        images = np.stack([phantom.pixels(n) for n in range(900)])
        features = images.reshape(900, -1) / 255 - 0.5
        for finding in ("nodule", "pneumothorax", "consolidation", "effusion"):
            labels = np.array([phantom.labels(n)[finding] for n in range(900)])
            probe = RidgeClassifier(alpha=100.0).fit(features[:600], labels[:600])
            score = roc_auc_score(labels[600:], probe.decision_function(features[600:]))
            assert score < 0.78, finding


class TestIndex:
    def test_columns_and_types(self):
        table = Phantom(seed=1).index(12)
        columns = [
            "dataset",
            "path",
            "patient_id",
            "study_id",
            "view_position",
            "split",
            "sex",
            "age",
        ]
        assert list(table.columns) == [*columns, *FINDINGS]
        assert all(table[name].dtype == "string" for name in columns[:-1])
        assert all(table[name].dtype == np.int64 for name in ("age", *FINDINGS))
        assert table["path"].tolist()[:2] == ["phantom/000000", "phantom/000001"]
        assert table["path"].is_unique
        assert table["study_id"].is_unique
        assert set(table["dataset"]) == {"phantom"}

    def test_rows_describe_the_images(self):
        phantom = Phantom(32, seed=1)
        for number, row in phantom.index(15).iterrows():
            image = phantom.draw(number)
            assert row[list(FINDINGS)].to_dict() == image.labels
            found = (image.patient_id, image.sex, image.age, image.view_position)
            assert tuple(row[["patient_id", "sex", "age", "view_position"]]) == found

    def test_a_patient_stands_in_one_split(self):
        table = Phantom().index(1500)
        assert (table.groupby("patient_id")["split"].nunique() == 1).all()
        shares = table.drop_duplicates("patient_id")["split"].value_counts(normalize=True)
        assert shares["train"] == pytest.approx(0.8, abs=0.01)
        assert shares["val"] == pytest.approx(0.1, abs=0.01)
        assert shares["test"] == pytest.approx(0.1, abs=0.01)

    def test_a_longer_index_begins_with_the_shorter(self):
        phantom = Phantom()
        assert phantom.index(60).head(25).equals(phantom.index(25))

    def test_images_of_a_patient_share_what_lasts(self):
        table = Phantom().index(300)
        lasting = ["sex", "age", "cardiomegaly", "nodule"]
        assert (table.groupby("patient_id")[lasting].nunique() == 1).all(axis=None)
        assert table.groupby("patient_id").size().isin([1, 2, 3]).all()
        assert (table.groupby("patient_id")["effusion"].nunique() == 2).any()

    def test_images_of_a_patient_look_alike(self):
        phantom = Phantom(64, seed=9)
        table = phantom.index(60)
        lungs = [phantom.draw(n, NONE).masks["lungs"] for n in range(60)]
        same = table["patient_id"].to_numpy()[:-1] == table["patient_id"].to_numpy()[1:]
        heights = np.array(
            [np.ptp(np.nonzero(mask)[0]) / np.ptp(np.nonzero(mask)[1]) for mask in lungs]
        )
        change = np.abs(np.diff(heights))
        assert change[same].mean() < 0.8 * change[~same].mean()

    @pytest.mark.parametrize("split", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
    def test_shares_that_do_not_sum_to_one_are_refused(self, split):
        with pytest.raises(InputError, match="split must be three shares that sum to 1"):
            Phantom().index(10, split)

    def test_an_empty_index_is_refused(self):
        with pytest.raises(InputError, match="at least 1 image, got n = 0"):
            Phantom().index(0)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"size": 16}, "size must be at least 32 pixels, got 16"),
            ({"seed": -1}, "seed must not be negative, got -1"),
            ({"images_per_patient": 0}, "images_per_patient must be at least 1, got 0"),
            ({"prevalence": 1.5}, r"prevalence of cardiomegaly must be in \[0, 1\], got 1.5"),
            ({"prevalence": {"edema": 0.5}}, "prevalence names edema; the findings are"),
        ],
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with pytest.raises(InputError, match=message):
            Phantom(**arguments)

    @pytest.mark.parametrize("method", ["pixels", "draw", "labels", "describe"])
    def test_a_negative_number_is_refused(self, method):
        with pytest.raises(InputError, match="must not be negative, got -1"):
            getattr(Phantom(64), method)(-1)


def test_severity_makes_findings_larger():
    names = ("effusion", "pneumothorax", "nodule", "consolidation")
    forced = dict.fromkeys(names, True)

    def area(severity):
        phantom = Phantom(64, severity=severity)
        images = [phantom.draw(number, forced) for number in range(40)]
        return {name: sum(int(image.masks[name].sum()) for image in images) for name in names}

    mild, mixed, severe = area(0.3), area(1.0), area(5.0)
    for name in names:
        assert mild[name] < mixed[name] < severe[name], name
    with pytest.raises(InputError, match="severity must be positive, got 0"):
        Phantom(64, severity=0)
