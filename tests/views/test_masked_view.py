import numpy as np
import pytest
import torch

from cxrssl.errors import InputError
from cxrssl.views import MaskedView, MultiBlockMasking, random_resized_crop


def noise(height=90, width=110, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def small(**options):
    return MaskedView(**{"image_size": 64, "min_keep": 1, **options})


@pytest.mark.parametrize("resampling", ["area", "pillow"])
def test_sample_is_a_normalised_crop(resampling):
    views = small(resampling=resampling, in_chans=3)
    sample = views(noise(), np.random.default_rng(2))
    crop, _ = random_resized_crop(
        noise(), 64, (0.3, 1.0), (3 / 4, 4 / 3), np.random.default_rng(2), resampling=resampling
    )
    assert sample.keys() == {"image"}
    assert sample["image"].shape == (3, 64, 64)
    assert torch.equal(sample["image"], views.to_tensor(crop))


def test_flip():
    plain, flipped = (small(flip=flip)(noise(), np.random.default_rng(0)) for flip in (0.0, 1.0))
    assert torch.equal(plain["image"].flip(-1), flipped["image"])


def test_batch():
    views, rng = MaskedView(n_contexts=2, n_targets=3), np.random.default_rng(0)
    batch = views.collate([views(noise(), rng) for _ in range(5)], np.random.default_rng(7))
    masking = MultiBlockMasking((14, 14), n_contexts=2, n_targets=3)
    contexts, targets = masking.collate_masks(5, np.random.default_rng(7))
    assert batch["image"].shape == (5, 1, 224, 224)
    assert batch["context_index"].shape[:2] == (5, 2)
    assert batch["target_index"].shape[:2] == (5, 3)
    assert batch["context_index"].dtype == batch["target_index"].dtype == torch.int64
    assert np.array_equal(batch["context_index"], contexts)
    assert np.array_equal(batch["target_index"], targets)


def test_options_reach_the_masking():
    views = MaskedView(sampler="corrected", context_scale=(1.0, 1.0), max_keep=12, random_keep=True)
    batch = views.collate([{"image": torch.zeros(1, 2, 2)}] * 200, np.random.default_rng(0))
    assert batch["context_index"].shape == (200, 1, 12)
    assert batch["target_index"].shape == (200, 4, 12)
    # Only the corrected law reaches the last patch.
    assert batch["context_index"].max() == 195


def test_same_generator_same_sample():
    first, again, other = (small()(noise(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])


def test_images_are_checked():
    with pytest.raises(InputError, match="one-channel images"):
        small()(np.zeros((9, 9), np.float32), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of patch_size = 16, got 100"),
        ({"scale": (0.0, 1.0)}, r"scale must be .* got \(0.0, 1.0\)"),
        ({"flip": -0.5}, "flip must be a probability, got -0.5"),
        ({"resampling": "nearest"}, "resampling must be 'area' or 'pillow', got 'nearest'"),
        ({"sampler": "other"}, "sampler must be"),
        ({"min_keep": 10}, "4 x 4 patches .* lower min_keep"),
        (
            {"patch_size": 32, "min_keep": 0},
            "leaves at most 0 of a context block .* on a grid of 2",
        ),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)
