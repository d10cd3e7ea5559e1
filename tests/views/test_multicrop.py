import pickle
import random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView, MultiCrop, Photometry, random_resized_crop

SMALL = {"global_size": 32, "local_size": 16, "patch_size": 8, "n_local": 3}
PLAIN = (Photometry(),) * 3


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (60, 50), dtype=np.uint8)


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_shapes_and_types(image):
    views = MultiCrop(**SMALL)
    rng = np.random.default_rng(0)
    sample = views(image, rng)
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "global_crops": (2, 1, 32, 32),
        "local_crops": (3, 1, 16, 16),
    }
    batch = views.collate([sample, views(image, rng), views(image, rng)], rng)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "global_crops": (3, 2, 1, 32, 32),
        "local_crops": (3, 3, 1, 16, 16),
        "masks": (3, 2, 16),
    }
    assert batch["global_crops"].dtype == batch["local_crops"].dtype == torch.float32
    assert batch["masks"].dtype == torch.bool
    assert int(batch["masks"].any(-1).sum()) <= 3


def test_defaults_are_dinov2s_sizes():
    views = MultiCrop()
    sample = views(np.zeros((256, 256), dtype=np.uint8), np.random.default_rng(0))
    assert sample["global_crops"].shape == (2, 1, 224, 224)
    assert sample["local_crops"].shape == (8, 1, 96, 96)
    assert views.masking.grid == (14, 14)
    assert views.image_size == 224


def test_without_local_crops(image):
    views = MultiCrop(**{**SMALL, "n_local": 0})
    rng = np.random.default_rng(0)
    sample = views(image, rng)
    assert set(sample) == {"global_crops"}
    assert set(views.collate([sample], rng)) == {"global_crops", "masks"}


def test_channels_repeat(image):
    views = MultiCrop(**SMALL, in_chans=3)
    rng = np.random.default_rng(0)
    crops = views.collate([views(image, rng)], rng)["local_crops"]
    assert crops.shape == (1, 3, 3, 16, 16)
    assert crops.is_contiguous()
    assert torch.equal(crops[:, :, 0], crops[:, :, 1])
    assert torch.equal(crops[:, :, 0], crops[:, :, 2])


@pytest.mark.parametrize("mode", ["area", "side"])
def test_equals_the_steps_one_by_one(image, mode):
    views = MultiCrop(
        **SMALL, preset="dinov2", crop_mode=mode, local_scale=(0.1, 0.3), mean=0.4, std=0.3
    )
    sample = views(image, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    kinds = [0, 1, 2, 2, 2]
    crops = [*sample["global_crops"], *sample["local_crops"]]
    for kind, crop in zip(kinds, crops, strict=True):
        size, scale = (16, (0.1, 0.3)) if kind == 2 else (32, (0.32, 1.0))
        expected, _ = random_resized_crop(image, size, scale, (3 / 4, 4 / 3), rng, mode)
        if rng.random() < 0.5:
            expected = expected[:, ::-1].copy()
        expected = views.photometry[kind](expected, rng)
        grey = torch.from_numpy(expected[None]).double() / 255
        assert_close(crop, ((grey - 0.4) / 0.3).float())


def test_flip_mirrors(image):
    views = [
        MultiCrop(**SMALL, flip=flip, photometry=PLAIN, global_scale=(1.0, 1.0), crop_mode="side")
        for flip in (0.0, 1.0)
    ]
    square = np.ascontiguousarray(image[:50])
    plain, flipped = (v(square, np.random.default_rng(0))["global_crops"] for v in views)
    assert torch.equal(plain.flip(-1), flipped)
    assert not torch.equal(plain, flipped)


def test_presets():
    blur = {
        name: tuple(kind.blur_p for kind in MultiCrop(preset=name).photometry)
        for name in ("dinov2", "dinov2-published")
    }
    assert blur == {"dinov2": (0.0, 0.9, 0.5), "dinov2-published": (1.0, 0.1, 0.5)}
    assert MultiCrop(preset="dinov2").flip == 0.5
    assert MultiCrop(preset="dinov2", flip=0.0).flip == 0.0
    assert [kind.solarise_p for kind in MultiCrop(preset="dinov2").photometry] == [0, 0.2, 0]
    radiograph = MultiCrop()
    assert radiograph.flip == 0.0
    assert all(kind.solarise_p == 0 for kind in radiograph.photometry)


def test_same_generator_same_views(image):
    views = MultiCrop(**SMALL)
    first, again, other = (views(image, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state is what is tested
    torch.manual_seed(seed)


def next_global_numbers():
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002 - as above


def test_global_random_state_is_neither_read_nor_written(image):
    views = MultiCrop(**SMALL, preset="dinov2")
    batches = []
    for seed in (1, 2):
        seed_everything(seed)
        expected = next_global_numbers()
        seed_everything(seed)
        rng = np.random.default_rng(0)
        batches.append(views.collate([views(image, rng), views(image, rng)], rng))
        assert next_global_numbers() == expected
    assert equal(*batches)


def test_the_image_is_left_alone(image):
    before = image.copy()
    image.flags.writeable = False
    MultiCrop(**SMALL, preset="dinov2")(image, np.random.default_rng(0))
    assert np.array_equal(image, before)


def test_images_smaller_than_a_crop():
    sample = MultiCrop(**SMALL)(np.full((3, 5), 9, dtype=np.uint8), np.random.default_rng(0))
    assert sample["global_crops"].isfinite().all()


def test_survives_a_worker(image):
    views = pickle.loads(pickle.dumps(MultiCrop(**SMALL)))
    original = MultiCrop(**SMALL)(image, np.random.default_rng(0))
    assert equal(views(image, np.random.default_rng(0)), original)


def test_mask_options_reach_the_masks(image):
    views = MultiCrop(
        **SMALL, mask_ratio=(0.5, 0.5), mask_probability=1.0, mask_exact=True, mask_shift=True
    )
    rng = np.random.default_rng(0)
    masks = views.collate([views(image, rng)], rng)["masks"]
    assert masks.sum(-1).tolist() == [[8, 8]]
    assert views.masking.shift


def test_eval_view_has_size_and_normalisation():
    view = MultiCrop(global_size=64, in_chans=3, mean=0.1, std=0.2).eval_view()
    assert isinstance(view, EvalView)
    assert (view.image_size, view.in_chans, view.mean, view.std) == (64, 3, 0.1, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"global_size": 220},
            "global_size must be a multiple of patch_size = 16, got 220; use 20",
        ),
        ({"patch_size": 14}, "local_size must be a multiple of patch_size = 14, got 96; use 84 or"),
        ({"local_size": 10}, "local_size must be .* got 10; use 16 or 32"),
        ({"patch_size": 0}, "patch_size must be positive, got 0"),
        ({"n_local": -1}, "n_local must not be negative, got -1"),
        ({"preset": "photo"}, "preset must be one of radiograph, dinov2, .* got 'photo'"),
        ({"photometry": [Photometry()]}, "photometry takes three entries .* got 1"),
        ({"flip": 2.0}, "flip must be a probability, got 2.0"),
        ({"crop_mode": "edge"}, "crop mode must be 'area' or 'side', got 'edge'"),
        ({"local_scale": (0.5, 0.1)}, "scale must be"),
        ({"mask_ratio": (0.5, 0.1)}, "mask ratio must be"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        MultiCrop(**options)


def test_images_are_checked():
    with pytest.raises(InputError, match="one-channel images"):
        MultiCrop(**SMALL)(np.zeros((8, 8, 3), dtype=np.uint8), np.random.default_rng(0))
