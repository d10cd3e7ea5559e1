import numpy as np
import pytest
import torch

from cxrssl.errors import InputError
from cxrssl.views import IDENTITY, Box, CropPair, Distortion, MultiBlockMasking, WorldViews
from cxrssl.views.pixels import LEVELS, look_up
from cxrssl.views.world import Jitter, cut, jitter_table, relative_offsets
from tests.golden import load_golden

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = Distortion(photometric_p=0.0, blur_p=0.0)


def noise(height=90, width=110, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def small(**options):
    return WorldViews(**{"image_size": 64, "min_keep": 1, **options})


def levels(tensor):
    """Return the grey levels (.., H, W) of an image (.., 3, H, W) with ImageNet's normalisation."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    grey = 255 * (tensor * std + mean)
    assert (grey - grey.round()).abs().max() < 1e-3
    assert (grey.round() == grey.round()[..., :1, :, :]).all()
    return grey.round()[..., 0, :, :].to(torch.uint8)


class TestGolden:
    @pytest.mark.parametrize("number", range(10))
    def test_replay_of_a_sample_from_its_parameters(self, number):
        golden = load_golden("chexworld/views.npz")
        on, bright, contrast, contrast_first, flip1, *first, flip2, top, left = golden["params"][
            number
        ].tolist()
        image = golden["image_u8"].numpy()
        if on:
            image = look_up(
                image, jitter_table(image, Jitter(bright, contrast, contrast_first == 1))
            )
        first = Box(*map(int, first))
        boxes = first, first._replace(top=int(top), left=int(left))
        views = WorldViews(image_size=32, patch_size=8, min_keep=1, mean=0.0, std=1.0)
        pair = views.pair_at(image, boxes, (flip1 == 1, flip2 == 1))
        actions = np.stack([golden[f"out_aug_params{v}"][number].numpy() for v in (1, 2)])
        sample = views.sample(pair, actions, np.random.default_rng(0))
        for name, key in (("target", "out_image"), ("context", "out_image_aug")):
            expected = levels(torch.stack([golden[f"{key}{v}"][number] for v in (1, 2)]))
            assert torch.equal((255 * sample[name]).round()[:, 0].to(torch.uint8), expected)
        assert np.array_equal(sample["action"], actions)
        assert torch.equal(sample["offset"][0], golden["out_rel_pos_12"][number])
        assert torch.equal(sample["offset"][1], golden["out_rel_pos_21"][number])

    def test_offsets(self):
        golden = load_golden("chexworld/pos_embed.npz")
        geometry = golden["geo_H_W_h_w_i1_j1_flip1_i2_j2_flip2"].tolist()
        for number, (_, width, h, w, i1, j1, flip1, i2, j2, flip2) in enumerate(geometry):
            boxes = Box(i1, j1, h, w), Box(i2, j2, h, w)
            offset = relative_offsets(boxes, (flip1 == 1, flip2 == 1), width)
            assert np.array_equal(offset[0], golden["rel_pos_12"][number])
            assert np.array_equal(offset[1], golden["rel_pos_21"][number])


class TestSample:
    def test_shapes_and_types(self):
        sample = small(in_chans=3)(noise(), np.random.default_rng(0))
        shapes = {name: tuple(tensor.shape) for name, tensor in sample.items()}
        assert shapes == {
            "context": (2, 3, 64, 64),
            "target": (2, 3, 64, 64),
            "action": (2, 5),
            "offset": (2, 4),
        }
        assert all(tensor.dtype == torch.float32 for tensor in sample.values())

    def test_is_made_of_the_public_pieces(self):
        views, image = small(), noise()
        sample = views(image, np.random.default_rng(4))
        rng = np.random.default_rng(4)
        pair = views.crop_pair(views.jitter(image, rng), rng)
        actions = np.stack([views.distortion.draw(rng) for _ in range(2)])
        for number, crop in enumerate(pair.crops):
            distorted = views.distortion.apply(crop, actions[number], rng)
            assert torch.equal(sample["target"][number], views.to_tensor(crop))
            assert torch.equal(sample["context"][number], views.to_tensor(distorted))
        assert np.array_equal(sample["action"], actions)
        assert np.array_equal(sample["offset"], pair.offset)

    def test_same_generator_same_sample(self):
        views, image = small(), noise()
        first, again, other = (views(image, np.random.default_rng(seed)) for seed in (5, 5, 6))
        for name, tensor in first.items():
            assert torch.equal(tensor, again[name])
            assert not torch.equal(tensor, other[name])

    def test_nothing_drawn_leaves_the_context_clean(self):
        sample = small(distortion=STILL)(noise(), np.random.default_rng(0))
        assert torch.equal(sample["context"], sample["target"])
        assert sample["action"].tolist() == [list(IDENTITY)] * 2

    def test_normalised_actions(self):
        raw, normalised = small(), small(normalise_action=True)
        assert raw.identity_action.tolist() == list(IDENTITY)
        assert normalised.identity_action == pytest.approx(np.zeros(5), abs=1e-7)
        drawn = [views(noise(), np.random.default_rng(1)) for views in (raw, normalised)]
        assert torch.equal(drawn[0]["context"], drawn[1]["context"])
        expected = Distortion().normalise(drawn[0]["action"].numpy())
        assert np.array_equal(drawn[1]["action"], expected)

    @pytest.mark.parametrize("resampling", ["area", "pillow"])
    def test_image_is_only_read(self, resampling):
        image = noise()
        image.flags.writeable = False
        sample = small(resampling=resampling)(image, np.random.default_rng(0))
        assert sample["target"].isfinite().all()

    @pytest.mark.parametrize("image", [np.zeros((9, 9), np.float32), np.zeros((9, 9, 3), np.uint8)])
    def test_images_are_checked(self, image):
        with pytest.raises(InputError, match="one-channel images"):
            small()(image, np.random.default_rng(0))
        with pytest.raises(InputError, match="one-channel images"):
            small().crop_pair(image, np.random.default_rng(0))


class TestJitter:
    def test_never_and_always(self):
        views, image, rng = small(), noise(), np.random.default_rng(0)
        assert all(views.jitter(image, rng, 0.0) is image for _ in range(10))
        assert all((views.jitter(image, rng, 1.0) != image).any() for _ in range(10))

    def test_probability_is_that_of_applying(self):
        views, image, rng = small(), noise(8, 8), np.random.default_rng(0)
        applied = np.mean([views.jitter(image, rng) is not image for _ in range(2000)])
        assert applied == pytest.approx(0.8, abs=0.03)

    def test_both_orders_by_hand(self):
        image = np.array([[0, 100]], dtype=np.uint8)
        # Brightness 1.5: 0, 150, mean 75; contrast 0.5: 37.5 and 112.5, rounded down.
        table = jitter_table(image, Jitter(1.5, 0.5, contrast_first=False))
        assert table[image].tolist() == [[37, 112]]
        # Contrast 0.5 about 50: 25, 75; brightness 1.5: 37.5 and 112.5, rounded down.
        table = jitter_table(image, Jitter(1.5, 0.5, contrast_first=True))
        assert table[image].tolist() == [[37, 112]]
        # At 3 the upper level is clipped to 255 first, or never: 64 and 191.5; 75 and 225.
        bright = jitter_table(image, Jitter(3.0, 0.5, contrast_first=False))
        contrast = jitter_table(image, Jitter(3.0, 0.5, contrast_first=True))
        assert bright[image].tolist() == [[64, 191]]
        assert contrast[image].tolist() == [[75, 225]]

    def test_both_orders_are_drawn_alike(self):
        views = small(jitter_p=1.0, jitter_brightness=(3, 3), jitter_contrast=(0.5, 0.5))
        image, rng = np.array([[0, 100]], dtype=np.uint8), np.random.default_rng(0)
        drawn = [views.jitter(image, rng).tolist() for _ in range(1000)]
        assert drawn.count([[64, 191]]) == pytest.approx(500, abs=60)
        assert drawn.count([[64, 191]]) + drawn.count([[75, 225]]) == 1000

    def test_crops_share_it(self):
        views = small(distortion=STILL, jitter_brightness=(0.5, 0.5), jitter_contrast=(1, 1))
        sample = views(np.full((50, 50), 201, np.uint8), np.random.default_rng(0))
        assert torch.equal(
            sample["target"], views.to_tensor(LEVELS[100:101, None]).expand(2, 1, 64, 64)
        )


class TestCropPair:
    def test_crops_are_the_resized_boxes_of_the_mirrored_image(self):
        image = noise()
        views, rng = small(scale=(0.3, 0.6), resampling="area"), np.random.default_rng(0)
        flips = set()
        for _ in range(30):
            pair = views.crop_pair(image, rng)
            assert isinstance(pair, CropPair)
            flips.add(pair.flips)
            again = views.pair_at(image, pair.boxes, pair.flips)
            for box, flip, crop, other in zip(
                pair.boxes, pair.flips, pair.crops, again.crops, strict=True
            ):
                seen = image[:, ::-1] if flip else image
                top, left, height, width = box
                box_pixels = seen[top : top + height, left : left + width]
                assert box_pixels.shape == (height, width)
                assert np.array_equal(cut(image, box, flip), box_pixels)
                assert np.array_equal(crop, other)
                assert crop.shape == (64, 64)
        assert len(flips) == 4

    def test_boxes_have_one_size_and_stay_inside(self):
        rng = np.random.default_rng(1)
        views = small(scale=(0.1, 1.0))
        for _ in range(300):
            height, width = rng.integers(1, 60, 2).tolist()
            first, second = views.crop_pair(noise(height, width), rng).boxes
            assert first[2:] == second[2:]
            for box in (first, second):
                assert 0 <= box.top <= box.top + box.height <= height
                assert 0 <= box.left <= box.left + box.width <= width

    def test_offset_maps_pixels_of_one_crop_to_the_other(self):
        """An image whose pixels are their own columns or rows tells where a crop's pixels are."""
        rows, columns = np.mgrid[:200, :230].astype(np.uint8)
        views, rng = small(scale=(0.2, 0.6), resampling="pillow"), np.random.default_rng(0)
        relative = set()
        for _ in range(40):
            pair = views.crop_pair(columns, rng)
            down = views.pair_at(rows, pair.boxes, pair.flips)
            places = (np.arange(64) + 0.5) / 64  # centres of a crop's pixels in widths of its box
            for this, other in ((0, 1), (1, 0)):
                below, right, mirrored, reach = pair.offset[this]
                relative.add(float(mirrored))
                moved = reach - places if mirrored else right + places
                # Columns of the image under the same places, in this crop and in the other's frame.
                box = pair.boxes[other]
                seen = box.left + moved * box.width
                seen = 230 - seen if pair.flips[other] else seen
                assert pair.crops[this][32] == pytest.approx(seen - 0.5, abs=2.5)
                seen = box.top + (below + places) * box.height
                assert down.crops[this][:, 32] == pytest.approx(seen - 0.5, abs=2.5)
        assert relative == {0.0, 1.0}

    def test_second_box_is_uniform(self):
        rng = np.random.default_rng(0)
        views = small(image_size=16, patch_size=4, scale=(0.25, 0.25), ratio=(1, 1))
        image = noise(40, 40)
        pairs = [views.crop_pair(image, rng) for _ in range(3000)]
        tops = np.array([[box.top for box in pair.boxes] for pair in pairs])
        counts = np.bincount(tops[:, 1], minlength=21)
        assert len(counts) == 21
        assert counts / 3000 == pytest.approx(np.full(21, 1 / 21), abs=0.015)
        assert abs(np.corrcoef(tops.T)[0, 1]) < 0.06

    @pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8, 1.0])
    def test_overlap_in_the_image(self, overlap):
        rng = np.random.default_rng(0)
        views = small(image_size=16, patch_size=4, scale=(0.05, 0.3), min_overlap=overlap)
        image, smallest = noise(200, 300), 1.0
        for _ in range(300):
            pair = views.crop_pair(image, rng)
            first, second = pair.boxes
            lefts = [
                300 - box.left - box.width if flip else box.left
                for box, flip in zip(pair.boxes, pair.flips, strict=True)
            ]
            for gap, side in (
                (abs(first.top - second.top), first.height),
                (abs(lefts[0] - lefts[1]), first.width),
            ):
                assert side - gap >= overlap * side - 0.5
                smallest = min(smallest, 1 - gap / side)
        assert smallest == pytest.approx(overlap, abs=0.1)

    @pytest.mark.parametrize("flip", [0.0, 1.0])
    def test_flip_is_a_probability_of_each_crop(self, flip):
        rng = np.random.default_rng(0)
        views = small(flip=flip)
        assert all(views.crop_pair(noise(), rng).flips == (flip == 1,) * 2 for _ in range(20))


class TestDistort:
    def test_probability_can_be_overridden(self):
        views = small(distortion=Distortion(blur_p=0.0))
        crop, rng = noise(64, 64), np.random.default_rng(0)
        for _ in range(10):
            clean, identity = views.distort(crop, rng, 0.0)
            assert np.array_equal(clean, crop)
            assert np.array_equal(identity, views.identity_action)
            distorted, action = views.distort(crop, rng, 1.0)
            assert np.array_equal(distorted, views.distortion.apply(crop, action, rng))
            assert (action[:3] != 1).all()

    def test_action_is_as_the_predictor_is_told(self):
        raw, normalised = (
            small(normalise_action=each).distort(noise(64, 64), np.random.default_rng(2))
            for each in (False, True)
        )
        assert np.array_equal(raw[0], normalised[0])
        assert np.array_equal(Distortion().normalise(raw[1]), normalised[1])


class TestCollate:
    def batch(self, n_images=12, **options):
        views = WorldViews(**options)
        sample = {
            "context": torch.zeros(2, 1, 2, 2),
            "target": torch.zeros(2, 1, 2, 2),
            "action": torch.zeros(2, 5),
            "offset": torch.zeros(2, 4),
        }
        return views.collate([sample] * n_images, np.random.default_rng(3))

    def test_shapes(self):
        batch = self.batch()
        assert batch["context"].shape == (12, 2, 1, 2, 2)
        assert batch["action"].shape == (12, 2, 5)
        assert batch["offset"].shape == (12, 2, 4)
        for name in ("context_index", "target_index"):
            assert batch[name].shape[:2] == (12, 2)
            assert batch[name].dtype == torch.int64

    def test_second_crops_have_the_rows_of_the_first_in_one_order(self):
        batch = self.batch()
        first = torch.cat([batch["context_index"][:, 0], batch["target_index"][:, 0]], 1).tolist()
        second = torch.cat([batch["context_index"][:, 1], batch["target_index"][:, 1]], 1).tolist()
        order = [first.index(row) for row in second]
        assert sorted(order) == list(range(12))
        assert order != list(range(12))

    def test_context_and_target_are_disjoint_in_both_crops(self):
        batch = self.batch()
        for seen, wanted in zip(
            batch["context_index"].flatten(0, 1), batch["target_index"].flatten(0, 1), strict=True
        ):
            assert not set(seen.tolist()) & set(wanted.tolist())

    def test_masks_are_those_of_the_masking(self):
        batch = self.batch()
        masking = MultiBlockMasking(
            (14, 14), context_scale=(0.75, 1.0), sampler="corrected", merge=True
        )
        contexts, targets = masking.collate_masks(12, np.random.default_rng(3))
        assert np.array_equal(batch["context_index"][:, :1], contexts)
        assert np.array_equal(batch["target_index"][:, :1], targets)

    def test_options_reach_the_masking(self):
        batch = self.batch(max_keep=15, n_targets=1, random_keep=True, min_keep=12)
        assert batch["context_index"].shape == (12, 2, 15)
        assert batch["target_index"].shape == (12, 2, 15)

    def test_a_batch_of_samples(self):
        views, rng = small(in_chans=3), np.random.default_rng(0)
        batch = views.collate([views(noise(), rng) for _ in range(3)], rng)
        assert batch["context"].shape == (3, 2, 3, 64, 64)
        assert batch["context"].is_contiguous()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of patch_size = 16, got 100"),
        ({"scale": (0.0, 1.0)}, r"scale must be .* got \(0.0, 1.0\)"),
        ({"ratio": (2.0, 1.0)}, r"ratio must be .* got \(2.0, 1.0\)"),
        ({"min_overlap": -1.0}, r"min_overlap must be in \[0, 1\], got -1.0"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"jitter_p": -0.1}, r"jitter_p must be in \[0, 1\], got -0.1"),
        ({"jitter_brightness": (1.4, 0.6)}, r"jitter_brightness must be .* got \(1.4, 0.6\)"),
        ({"jitter_brightness": (0.6, np.inf)}, r"jitter_brightness must be .* got \(0.6, inf\)"),
        ({"jitter_contrast": (-1, 1)}, r"jitter_contrast must be .* got \(-1, 1\)"),
        ({"jitter_contrast": (0, np.nan)}, r"jitter_contrast must be .* got \(0, nan\)"),
        ({"resampling": "nearest"}, "resampling must be 'area' or 'pillow', got 'nearest'"),
        ({"image_size": 64, "min_keep": 10}, "4 x 4 patches .* lower min_keep"),
        ({"image_size": 16, "min_keep": 0}, "leaves at most 0 of a context block .* grid of 1 x 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)
