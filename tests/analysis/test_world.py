from functools import partial

import numpy as np
import pytest

from cxrssl.analysis import domain_sensitivity, layout_awareness, local_structure, world_table
from cxrssl.analysis.world_model import draw_masks, whole_image
from cxrssl.backbones import ViT
from cxrssl.heads import Predictor
from cxrssl.objectives import WorldModel
from cxrssl.views import WorldViews
from tests.analysis.worlds import (
    PATCH,
    SIZE,
    Broken,
    Collapsed,
    Constant,
    N,
    Oracle,
    world_image,
)

IMAGES = [world_image(first) for first in (0, 40, 80, 120, 160)]
LARGE = [world_image(first, side=8) for first in (0, 50, 100)]
COLUMNS = ["task", "condition", "measure", "value", "low", "high", "chance"]


def scores(result):
    table = result.table()
    assert list(table) == COLUMNS
    return {(row.condition, row.measure): row for row in table.itertuples()}


class TestDomain:
    def test_an_oracle_needs_the_action(self):
        # Under this seed no two versions of an image are the same by chance.
        result = domain_sensitivity(Oracle(), IMAGES, candidates=8, seed=1)
        found = {name: recall.value.tolist() for name, recall in result.recall.items()}
        assert found["true action"] == [1, 1, 1]
        assert found["no action"][0] < 0.4
        assert found["other action"][0] < 0.4
        assert scores(result)["true action", "recall@3"].chance == 3 / 8

    @pytest.mark.parametrize("model", [Constant(), Collapsed()])
    def test_who_predicts_the_same_scores_chance(self, model):
        result = domain_sensitivity(model, IMAGES, candidates=8)
        for recall in result.recall.values():
            np.testing.assert_allclose(recall.value, np.array([1, 3, 5]) / 8)
        np.testing.assert_allclose(result.chance, np.array([1, 3, 5]) / 8)

    def test_batches_change_nothing(self):
        model = Oracle()
        whole = domain_sensitivity(model, IMAGES, candidates=8)
        model.batches = []
        parts = domain_sensitivity(model, IMAGES, candidates=8, batch_size=3)
        assert set(model.batches) == {3, 2}
        assert whole.table().equals(parts.table())

    def test_bad_settings(self):
        with pytest.raises(ValueError, match=r"candidates must be at least 2.*got 1 and 64"):
            domain_sensitivity(Oracle(), IMAGES, candidates=1)
        with pytest.raises(ValueError, match="batch_size at least 1, got 8 and 0"):
            domain_sensitivity(Oracle(), IMAGES, candidates=8, batch_size=0)


class TestLayout:
    def test_an_oracle_needs_the_offset(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        assert result.error["offset"].value.tolist() == [0]
        np.testing.assert_array_equal(result.retrieval["offset"].value, [[1, 1, 0]] * 3)
        assert result.error["no offset"].value[0] > 1
        assert result.retrieval["no offset"].value[0, 0] < 0.3

    @pytest.mark.parametrize("model", [Constant(row=8), Collapsed(row=8)])
    def test_who_predicts_the_same_scores_chance(self, model):
        result = layout_awareness(model, LARGE, pairs=6)
        for found in result.retrieval.values():
            np.testing.assert_allclose(found.value[0, :2], [1 / N, 5 / N])
        np.testing.assert_allclose(result.retrieval_chance[:, :2], [[1 / N, 5 / N]] * 3)

    def test_a_collapsed_model_is_as_far_off_as_chance(self):
        result = layout_awareness(Collapsed(row=8), LARGE, pairs=6)
        for found in result.retrieval.values():
            np.testing.assert_allclose(found.value, result.retrieval_chance)
        assert result.constant_error == 0

    def test_the_constant_error_is_that_of_the_mean_token(self):
        model = Oracle(row=8)
        result = layout_awareness(model, LARGE, pairs=5, batch_size=4)
        crops = [
            crop
            for number, image in enumerate(LARGE)
            for crop in second_crops(model, image, (0, 2, number), 5)
        ]
        tokens = model.table.numpy()[np.concatenate([c[::PATCH, ::PATCH].ravel() for c in crops])]
        np.testing.assert_allclose(result.constant_error, tokens.var(0).mean(), rtol=1e-5)

    def test_bins_hold_every_patch_once_and_average_to_the_error(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        assert result.patches_by_distance.sum() == 3 * 6 * N
        assert len(result.distance_edges) == len(result.patches_by_distance) + 1
        by_distance = result.error_by_distance["no offset"].value
        seen = result.patches_by_distance > 0
        mean = np.average(by_distance[seen], weights=result.patches_by_distance[seen])
        np.testing.assert_allclose(mean, result.error["no offset"].value[0])

    def test_the_rows_name_their_bins(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        found = scores(result)
        assert found["no offset", "error at distance 0 to 1"].value > 0
        assert found["offset", "error at offset 0.25 to 0.50"].value == 0
        assert found["offset", "top-1 outside"].value == 1
        assert found["offset", "error"].chance == result.constant_error

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="pairs and batch_size must be at least 1, got 0 and"):
            layout_awareness(Oracle(), LARGE, pairs=0)


def second_crops(model, image, seed, pairs):
    rng = np.random.default_rng(seed)
    return [model.views.crop_pair(image, rng).crops[1] for _ in range(pairs)]


class TestLocal:
    def test_an_oracle_finds_every_patch(self):
        result = local_structure(Oracle(), IMAGES, examples=0)
        assert [numbers.tolist() for numbers in result.retrieval] == [[1, 1, 0]] * 3
        assert result.examples == ()

    def test_a_collapsed_model_scores_chance(self):
        result = local_structure(Collapsed(), IMAGES)
        np.testing.assert_allclose(result.retrieval.value, result.chance)
        np.testing.assert_allclose(result.chance[:2], [1 / N, 5 / N])

    def test_gaps_are_filled_from_other_images(self):
        # The third image shares its numbers 8 to 15 with the second one's last eight patches.
        images = [world_image(100), world_image(0), world_image(8)]
        model = Oracle()
        result = local_structure(model, images, examples=3)
        example = result.examples[2]
        np.testing.assert_array_equal(example.image, images[2])
        _, masked = draw_masks(model, np.random.default_rng((0, 3, 2)))
        assert np.flatnonzero(example.masked).tolist() == masked.tolist()
        assert example.seen.sum() == 6
        wanted, filled = (image[::PATCH, ::PATCH] for image in (images[2], example.filled))
        shared = example.masked & (wanted < 16)
        assert shared.any()
        np.testing.assert_array_equal(filled[shared], wanted[shared])
        # The rest of them is nowhere else; their own image must not be looked at.
        assert not (filled == wanted)[example.masked & ~shared].any()
        assert not filled[~example.masked].any()

    def test_an_image_alone_has_nothing_to_be_filled_from(self):
        assert local_structure(Oracle(), IMAGES[:1]).examples == ()

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="examples must not be negative, got -1"):
            local_structure(Oracle(), IMAGES, examples=-1)


MEASURES = (domain_sensitivity, layout_awareness, local_structure)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_seed_decides_and_images_do_not_disturb_each_other(measure):
    images = LARGE if measure is layout_awareness else IMAGES
    once, again, other = (measure(Oracle(), images, seed=seed).table() for seed in (0, 0, 1))
    assert once.equals(again)
    if measure is not local_structure:  # an oracle finds every patch under every mask
        assert not once.equals(other)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_cannot_be_measured(measure):
    with pytest.raises(ValueError, match="at least one image, got none"):
        measure(Oracle(), [])
    with pytest.raises(ValueError, match="tokens hold NaN or inf"):
        measure(Broken(), LARGE)


def test_whole_images_are_what_the_deterministic_view_shows():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    views = Oracle().views
    whole = whole_image(views, image)
    assert whole.shape == (SIZE, SIZE)
    assert views.to_tensor(whole).equal(views.eval_view()(image)["image"])


def test_one_table_for_all():
    results = (
        domain_sensitivity(Oracle(), IMAGES, candidates=8),
        layout_awareness(Oracle(row=8), LARGE, pairs=2),
        local_structure(Oracle(), IMAGES),
    )
    table = world_table(*results)
    assert list(table) == COLUMNS
    assert table["task"].unique().tolist() == ["domain", "layout", "local"]
    assert len(table) == sum(len(result.table()) for result in results)
    assert not table.duplicated(["task", "condition", "measure"]).any()
    assert table.notna().all(axis=None)
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert (table["value"] <= table["high"] + 1e-12).all()


def test_an_objective_fresh_from_its_constructor_can_be_measured():
    model = WorldModel(
        ViT("vit_tiny", img_size=32, patch_size=8, depth=1, class_token=False, position="sincos"),
        views=WorldViews(image_size=32, patch_size=8, min_keep=1),
        predictor=partial(Predictor, width=24, depth=1, heads=2),
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=(48, 40), dtype=np.uint8) for _ in range(3)]
    domain = domain_sensitivity(model, images, candidates=6)
    layout = layout_awareness(model, images, pairs=2)
    local = local_structure(model, images)
    assert np.isfinite(world_table(domain, layout, local)["value"]).all()
    assert layout.patches_by_distance.sum() == 3 * 2 * N
    assert len(local.examples) == 3
