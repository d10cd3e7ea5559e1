from functools import partial

import numpy as np
import pytest
import torch

from cxrssl.analysis import (
    VersionsAlikeError,
    domain_sensitivity,
    layout_awareness,
    local_structure,
    world_headlines,
    world_scalars,
    world_table,
)
from cxrssl.analysis.world_model import draw_masks, whole_image
from cxrssl.backbones import ViT
from cxrssl.heads import Predictor
from cxrssl.objectives import WorldModel
from cxrssl.views import WorldViews
from tests.analysis.worlds import (
    PATCH,
    SIZE,
    AlikeViews,
    Broken,
    Collapsed,
    Constant,
    N,
    Oracle,
    PositionOnly,
    world_image,
)

SMALL = [world_image(17 * number) for number in range(12)]
IMAGES = [world_image(first) for first in (0, 40, 80, 120, 160)]
LARGE = [world_image(first, side=8) for first in (0, 50, 100)]
MANY = [world_image(17 * number, side=8) for number in range(12)]
COLUMNS = ["task", "condition", "measure", "value", "low", "high", "chance", "images"]
ACTIONS = ("true action", "identity action", "other action")
LAYOUT_GAINS = ("offset minus other offset", "offset minus other image")


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
        assert found["identity action"][0] < 0.4
        assert found["other action"][0] < 0.4
        assert scores(result)["true action", "recall@3"].chance == 3 / 8

    def test_differences_are_those_of_the_recalls(self):
        result = domain_sensitivity(Oracle(), IMAGES, candidates=8, seed=1)
        for other in ("identity action", "other action"):
            gain = result.recall[f"true action minus {other}"]
            np.testing.assert_allclose(gain.value, 1 - result.recall[other].value)
            # With a recall of 1 in every image, the difference varies as the other recall does.
            np.testing.assert_allclose(gain.low, 1 - result.recall[other].high)
            assert scores(result)[f"true action minus {other}", "recall@1"].chance == 0

    @pytest.mark.parametrize("model", [Constant(), Collapsed()])
    def test_who_predicts_the_same_scores_chance(self, model):
        result = domain_sensitivity(model, IMAGES, candidates=8)
        for name in ACTIONS:
            np.testing.assert_allclose(result.recall[name].value, np.array([1, 3, 5]) / 8)
        np.testing.assert_allclose(result.chance, np.array([1, 3, 5]) / 8)

    def test_batches_change_nothing_and_contexts_are_encoded_once(self):
        model = Oracle()
        whole = domain_sensitivity(model, IMAGES, candidates=8)
        model.batches, model.encoded = [], []
        parts = domain_sensitivity(model, IMAGES, candidates=8, batch_size=3)
        assert model.encoded == [3, 3, 2] * len(IMAGES)
        assert model.batches == [*[3] * 6, *[2] * 3] * len(IMAGES)
        assert whole.table().equals(parts.table())

    def test_says_how_far_it_is(self):
        done = []
        domain_sensitivity(Oracle(), IMAGES, candidates=2, after_image=done.append)
        assert done == [1, 2, 3, 4, 5]

    def test_versions_that_are_alike(self):
        model = Oracle()
        model.views = AlikeViews()
        with pytest.raises(VersionsAlikeError, match=r"all alike.*set jitter_brightness"):
            domain_sensitivity(model, IMAGES, candidates=4)
        assert not model.batches

    def test_one_image_without_versions_is_no_matter(self):
        # Black stays black under every factor.
        views = WorldViews(image_size=32, patch_size=8, min_keep=1)
        images = [np.zeros((40, 40), np.uint8), np.full((40, 40), 90, np.uint8)]
        result = domain_sensitivity(tiny(views=views), images, candidates=4)
        assert np.isfinite(result.recall["true action"].value).all()

    def test_bad_settings(self):
        with pytest.raises(ValueError, match=r"candidates must be at least 2.*got 1 and 64"):
            domain_sensitivity(Oracle(), IMAGES, candidates=1)
        with pytest.raises(ValueError, match="batch_size at least 1, got 8 and 0"):
            domain_sensitivity(Oracle(), IMAGES, candidates=8, batch_size=0)


class TestLayout:
    def test_an_oracle_needs_offset_and_image(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        np.testing.assert_array_equal(result.scores["offset"].value, [[1, 1, 0, 0]] * 3)
        for name in ("other offset", "other image", "own frame"):
            top_1, _, _, error = result.scores[name].value[0]
            assert top_1 < 0.3
            assert error > 1
            if name != "own frame":
                gain = result.scores[f"offset minus {name}"].value[0]
                np.testing.assert_allclose(gain[[0, 3]], [1 - top_1, -error])

    def test_an_oracle_on_another_grid(self):
        images = [world_image(first, side=9) for first in (0, 50, 100)]
        result = layout_awareness(Oracle(row=9, side=5), images, pairs=4)
        np.testing.assert_array_equal(result.scores["offset"].value, [[1, 1, 0, 0]] * 3)
        assert result.by_distance.patches.sum() == 3 * 4 * 25

    def test_other_offset_and_other_image_are_those_of_the_image_before(self):
        model, pairs = Oracle(row=8), 3
        asked, predict = [], model.predict

        def listen(context, **told):
            asked.append((context, told["offset"]))
            return predict(context, **told)

        model.predict = listen
        layout_awareness(model, LARGE, pairs=pairs)
        drawn = [crop_pairs(model, image, (0, 2, n), pairs) for n, image in enumerate(LARGE)]
        contexts = [
            model.encode_context(stack(model, [each.crops[0] for each in image])) for image in drawn
        ]
        offsets = [torch.from_numpy(np.stack([each.offset[1] for each in p])) for p in drawn]
        for n in range(3):
            expected = [
                (contexts[n], offsets[n]),
                (contexts[n], offsets[n - 1]),
                (contexts[n - 1], offsets[n]),
                (contexts[n], None),
            ]
            for (context, offset), (seen, told) in zip(
                expected, asked[4 * n : 4 * n + 4], strict=True
            ):
                assert torch.equal(context, seen)
                assert told is None if offset is None else torch.equal(offset, told)

    def test_who_knows_the_place_only_gains_nothing(self):
        result = layout_awareness(PositionOnly(row=8), MANY, pairs=4)
        for name in LAYOUT_GAINS:
            for numbers in result.scores[name][:3]:
                np.testing.assert_array_equal(numbers, np.zeros((3, 4)))
        top_1 = {name: each.value[0, 0] for name, each in result.scores.items()}
        assert top_1["offset"] > 5 / N  # far above chance, without a look at the image
        assert top_1["offset"] <= top_1["position alone"] + 0.02

    def test_position_alone_is_the_mean_token_of_the_other_images(self):
        model = PositionOnly(row=8)
        result = layout_awareness(model, LARGE, pairs=4)
        tokens = target_tokens(model, LARGE, 4)  # (3, 4, N, D)
        means = np.stack([np.delete(tokens, n, 0).mean((0, 1)) for n in range(3)])
        error = np.square(tokens - means[:, None]).mean()
        np.testing.assert_allclose(result.scores["position alone"].value[0, 3], error, rtol=1e-5)

    @pytest.mark.parametrize("model", [Constant(row=8), Collapsed(row=8)])
    def test_who_predicts_the_same_scores_chance(self, model):
        result = layout_awareness(model, LARGE, pairs=6)
        for name in ("offset", "other offset", "other image", "own frame"):
            np.testing.assert_allclose(result.scores[name].value[0, :2], [1 / N, 5 / N])
        np.testing.assert_allclose(result.chance[:, :2], [[1 / N, 5 / N]] * 3)

    def test_a_collapsed_model_is_as_far_off_as_chance(self):
        result = layout_awareness(Collapsed(row=8), LARGE, pairs=6)
        for name, found in result.scores.items():
            expected = 0 if name in LAYOUT_GAINS else result.chance
            np.testing.assert_allclose(found.value, np.broadcast_to(expected, (3, 4)))
        assert result.chance[:, 3].tolist() == [0, 0, 0]

    def test_the_chance_of_an_error_is_that_of_the_mean_token_there(self):
        model = PositionOnly(content=0.5, row=8)
        result = layout_awareness(model, LARGE, pairs=5)
        tokens = target_tokens(model, LARGE, 5)
        error = np.square(tokens - tokens.mean((0, 1, 2))).mean(-1)  # (3, 5, N)
        np.testing.assert_allclose(result.chance[0, 3], error.mean(), rtol=1e-5)
        binned = result.by_distance
        np.testing.assert_allclose(
            np.average(binned.mean_token, weights=binned.patches), error.mean(), rtol=1e-5
        )
        assert np.ptp(binned.mean_token) > 0.01  # places differ, and so do bins
        row = scores(result)["offset", "error at distance -1 to 0"]
        assert row.chance == binned.mean_token[binned.edges[1:] == 0]

    def test_bins_hold_every_patch_once_and_average_to_the_error(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        for binned in (result.by_distance, result.by_offset):
            assert binned.patches.sum() == 3 * 6 * N
            assert len(binned.edges) == len(binned.patches) + 1
            assert binned.images.max() == 3
            seen = binned.patches > 0
            mean = np.average(binned.error["own frame"].value[seen], weights=binned.patches[seen])
            np.testing.assert_allclose(mean, result.scores["own frame"].value[0, 3])

    def test_bins_of_few_images_have_no_interval(self):
        result = layout_awareness(Oracle(row=8), MANY, pairs=2)
        binned = result.by_distance
        few = binned.images < 5
        assert few.any()
        assert not few.all()
        np.testing.assert_array_equal(np.isnan(binned.error["own frame"].low), few)
        found = scores(result)
        for low, high, images in zip(binned.edges, binned.edges[1:], binned.images, strict=False):
            if images:
                assert found["offset", f"error at distance {low:g} to {high:g}"].images == images

    def test_the_rows_name_their_bins(self):
        result = layout_awareness(Oracle(row=8), LARGE, pairs=6)
        found = scores(result)
        assert found["own frame", "error at distance 0 to 1"].value > 0
        assert found["offset", "error at offset 0.25 to 0.50"].value == 0
        assert found["offset", "top-1 outside"].value == 1
        assert found["offset minus other image", "error outside"].chance == 0

    def test_batches_change_nothing(self):
        model = Oracle(row=8)
        whole = layout_awareness(model, LARGE, pairs=5)
        model.batches = []
        parts = layout_awareness(model, LARGE, pairs=5, batch_size=2)
        assert set(model.batches) == {2, 1}
        assert whole.table().equals(parts.table())

    def test_tokens_are_compared_crop_by_crop(self, monkeypatch):
        sizes, cdist = [], torch.cdist

        def listen(first, second, **options):
            distances = cdist(first, second, **options)
            sizes.append(distances.numel())
            return distances

        monkeypatch.setattr(torch, "cdist", listen)
        layout_awareness(Oracle(row=8), LARGE, pairs=5)
        assert max(sizes) == N * N

    def test_a_context_is_encoded_once_for_all_conditions(self):
        model = Oracle(row=8)
        layout_awareness(model, LARGE, pairs=5)
        # The last image's come first, too: the first image is asked about from them.
        assert model.encoded == [5] * (3 + 1)

    def test_bad_settings(self):
        with pytest.raises(ValueError, match="pairs and batch_size must be at least 1, got 0 and"):
            layout_awareness(Oracle(), LARGE, pairs=0)


def crop_pairs(model, image, seed, pairs):
    rng = np.random.default_rng(seed)
    return [model.views.crop_pair(image, rng) for _ in range(pairs)]


def stack(model, crops):
    return torch.stack([model.views.to_tensor(crop) for crop in crops])


def target_tokens(model, images, pairs):
    """Return the tokens (images, pairs, N, D) that layout asks for under seed 0."""
    drawn = [crop_pairs(model, image, (0, 2, n), pairs) for n, image in enumerate(images)]
    return np.stack(
        [model.targets(stack(model, [each.crops[1] for each in p])).numpy() for p in drawn]
    ).astype(np.float64)


class TestLocal:
    def test_an_oracle_finds_every_patch(self):
        result = local_structure(Oracle(), IMAGES, examples=0)
        assert [numbers.tolist() for numbers in result.scores["masked"][:3]] == [[1, 1, 0, 0]] * 3
        assert result.examples == ()

    def test_an_oracle_finds_nothing_from_another_image(self):
        result = local_structure(Oracle(), IMAGES)
        top_1, _, _, error = result.scores["other image"].value
        assert top_1 < 0.3
        assert error > 1
        gain = result.scores["masked minus other image"].value
        np.testing.assert_allclose(gain[[0, 3]], [1 - top_1, -error])

    def test_examples_change_no_score_and_are_not_predicted_twice(self):
        model = Oracle()
        without = local_structure(model, IMAGES, examples=0)
        assert model.encoded == [1] * (2 * len(IMAGES))  # each, and another under its mask
        model.encoded = []
        assert local_structure(model, IMAGES, examples=3).table().equals(without.table())
        assert model.encoded == [1] * (2 * len(IMAGES))

    def test_who_knows_the_place_only_gains_nothing(self):
        result = local_structure(PositionOnly(), SMALL)
        for numbers in result.scores["masked minus other image"][:3]:
            np.testing.assert_array_equal(numbers, np.zeros(4))
        assert result.scores["masked"].value[0] > 5 / N
        assert result.scores["masked"].value[0] <= result.scores["position alone"].value[0] + 0.02

    def test_position_alone_is_the_mean_token_of_the_other_images(self):
        # With the same content everywhere the mean of the others is the token itself.
        result = local_structure(PositionOnly(content=0.0), IMAGES)
        np.testing.assert_allclose(result.scores["position alone"].value, [1, 1, 0, 0], atol=1e-12)

    def test_a_collapsed_model_scores_chance(self):
        result = local_structure(Collapsed(), IMAGES)
        for name in ("masked", "other image", "position alone"):
            np.testing.assert_allclose(result.scores[name].value, result.chance)
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
    with pytest.raises(ValueError, match="at least two images are needed, got 1"):
        measure(Oracle(), LARGE[:1])
    with pytest.raises(ValueError, match="tokens hold NaN or inf"):
        measure(Broken(), LARGE)


def test_whole_images_are_what_the_deterministic_view_shows():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    views = Oracle().views
    whole = whole_image(views, image)
    assert whole.shape == (SIZE, SIZE)
    assert views.to_tensor(whole).equal(views.eval_view()(image)["image"])


def all_of(model, images=LARGE, candidates=8, pairs=2):
    return (
        domain_sensitivity(model, images, candidates=candidates),
        layout_awareness(model, images, pairs=pairs),
        local_structure(model, images),
    )


def test_one_table_for_all():
    results = all_of(Oracle(row=8), MANY)
    table = world_table(*results)
    assert list(table) == COLUMNS
    assert table["task"].unique().tolist() == ["domain", "layout", "local"]
    assert len(table) == sum(len(result.table()) for result in results)
    assert not table.duplicated(["task", "condition", "measure"]).any()
    bounds = table[["low", "high"]].notna().all(axis=1)
    assert bounds.equals(table["images"] >= 5)
    assert table.drop(columns=["low", "high"]).notna().all(axis=None)
    sure = table[bounds]
    assert (sure["low"] <= sure["value"] + 1e-12).all()
    assert (sure["value"] <= sure["high"] + 1e-12).all()
    assert world_table(None, *results[1:])["task"].unique().tolist() == ["layout", "local"]


def test_headlines_can_be_read_at_a_glance():
    shown = world_headlines(world_table(*all_of(Oracle(row=8), MANY)))
    assert len(shown) <= 20
    assert set(shown["measure"]) == {"recall@1", "top-1"}
    assert sum(" minus " in name for name in shown["condition"]) == 5


def test_scalars_are_what_is_told_and_its_gain():
    table = world_table(*all_of(Oracle(row=8), MANY))
    scalars = world_scalars(table)
    row = table[(table["condition"] == "offset minus other image") & (table["measure"] == "error")]
    assert scalars["layout/error/gain"] == row["value"].item() < 0
    assert scalars["layout/error/gain_low"] == row["low"].item()
    assert scalars["layout/top-1"] == 1
    gains = {name.rsplit("/", 1)[0] for name in scalars if name.endswith("/gain")}
    assert gains == {
        "domain/recall@1",
        *(f"{task}/{name}" for task in ("layout", "local") for name in ("top-1", "error")),
    }
    few = world_scalars(world_table(*all_of(Oracle(row=8), LARGE)))
    assert set(few) == {name for name in scalars if not name.endswith(("_low", "_high"))}


def tiny(views=None, **options):
    return WorldModel(
        ViT("vit_tiny", img_size=32, patch_size=8, depth=1, class_token=False, position="sincos"),
        views=views or WorldViews(image_size=32, patch_size=8, min_keep=1),
        predictor=partial(Predictor, width=24, depth=1, heads=2),
        **options,
    )


def noise_images(count=3):
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=(48, 40), dtype=np.uint8) for _ in range(count)]


def test_an_objective_fresh_from_its_constructor_can_be_measured():
    domain, layout, local = all_of(tiny(), noise_images(), candidates=6)
    assert np.isfinite(world_table(domain, layout, local)["value"]).all()
    assert layout.by_distance.patches.sum() == 3 * 2 * N
    assert len(local.examples) == 3


def test_an_untrained_model_gains_nothing_though_position_alone_finds_patches():
    layout, local = all_of(tiny(), noise_images(8), candidates=2)[1:]
    for result, gain in ((layout, LAYOUT_GAINS[1]), (local, "masked minus other image")):
        found = scores(result)
        assert found["position alone", "top-1"].value > 3 / N
        assert abs(found[gain, "top-1"].value) < 0.05


@pytest.mark.parametrize("options", [{"action": False}, {"domain": "off"}])
def test_a_model_without_actions_cannot_tell_them_apart(options):
    result = domain_sensitivity(tiny(**options), noise_images(5), candidates=6)
    first, *others = (result.recall[name] for name in ACTIONS)
    for each in others:
        for found, expected in zip(each, first, strict=True):
            np.testing.assert_array_equal(found, expected)
    for gain in ("true action minus identity action", "true action minus other action"):
        for numbers in result.recall[gain][:3]:
            np.testing.assert_array_equal(numbers, np.zeros(3))


def test_a_model_without_offsets_cannot_tell_them_apart():
    result = layout_awareness(tiny(offset=False), noise_images(5), pairs=2)
    for name in ("other offset", "own frame"):
        for found, expected in zip(result.scores[name], result.scores["offset"], strict=True):
            np.testing.assert_array_equal(found, expected)
    assert not np.nan_to_num(result.scores["offset minus other offset"].value).any()
    assert result.scores["offset minus other image"].value[0].any()
