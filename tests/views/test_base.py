import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView
from cxrssl.views.base import check_image, check_range, patch_grid


def test_to_tensor_by_hand():
    views = EvalView(image_size=2, mean=0.5, std=0.25)
    # 0 -> (0 - 0.5) / 0.25 = -2; 255 -> (1 - 0.5) / 0.25 = 2; 51 -> (0.2 - 0.5) / 0.25 = -1.2
    tensor = views.to_tensor(np.array([[0, 255], [51, 0]], dtype=np.uint8))
    assert tensor.dtype == torch.float32
    assert_close(tensor, torch.tensor([[[-2.0, 2.0], [-1.2, -2.0]]]))


def test_every_level_is_normalised():
    views = EvalView()
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = (torch.arange(256, dtype=torch.float64).view(1, 16, 16) / 255 - 0.5307) / 0.2583
    assert_close(views.to_tensor(levels), expected.float())


def test_channels_repeat_the_grey_image():
    tensor = EvalView(in_chans=3).to_tensor(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert tensor.shape == (3, 2, 3)
    assert torch.equal(tensor[0], tensor[2])


def test_collate_stacks_every_name():
    samples = [{"a": torch.full((2,), float(i)), "b": torch.tensor(i)} for i in range(3)]
    batch = EvalView().collate(samples)
    assert batch["a"].shape == (3, 2)
    assert batch["b"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "must be positive, got 0 and 1"),
        ({"in_chans": 0}, "must be positive, got 224 and 0"),
        ({"std": 0.0}, "std must be positive and finite, got 0.0"),
        ({"std": float("nan")}, "std must be positive and finite, got nan"),
        ({"std": float("inf")}, "std must be positive and finite, got inf"),
        ({"mean": float("nan")}, "mean must be finite, got nan"),
        ({"mean": float("-inf")}, "mean must be finite, got -inf"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        EvalView(**options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"got shape \(4, 4, 3\) of uint8"),
        (np.zeros((4, 4), np.float32), r"got shape \(4, 4\) of float32"),
        (np.zeros((0, 4), np.uint8), r"got shape \(0, 4\) of uint8"),
    ],
)
def test_images_are_checked(image, message):
    with pytest.raises(InputError, match=message):
        check_image(image)


@pytest.mark.parametrize("bounds", [(0, 1), (0.0, 0.0), (2, 2), (1e-9, 1e9)])
def test_ranges_that_can_be_drawn_from(bounds):
    check_range("gain", bounds)


@pytest.mark.parametrize(
    "bounds",
    [(-0.1, 1.0), (1.0, 0.5), (0.6, np.inf), (np.inf, np.inf), (np.nan, 1.0), (0.0, np.nan)],
)
def test_ranges_are_checked(bounds):
    got = rf"got \({bounds[0]}, {bounds[1]}\)"
    with pytest.raises(InputError, match=rf"gain must be .* 0 <= low <= high, both finite, {got}"):
        check_range("gain", bounds)


def test_zero_can_be_refused():
    check_range("ratio", (0.1, 1.0), zero=False)
    with pytest.raises(InputError, match=r"ratio must be .* 0 < low <= high, .* got \(0, 1\)"):
        check_range("ratio", (0, 1), zero=False)


@pytest.mark.parametrize(("size", "patch", "side"), [(224, 16, 14), (16, 16, 1), (6, 1, 6)])
def test_patches_tile_the_view(size, patch, side):
    assert patch_grid(size, patch) == (side, side)


@pytest.mark.parametrize(
    ("size", "patch", "message"),
    [
        (100, 16, "crop_size must be a multiple of patch_size = 16, got 100; use 96 or 112"),
        (8, 16, "crop_size must be .* got 8; use 16 or 32"),
        (-16, 16, "crop_size must be .* got -16; use 16 or 32"),
        (16, 0, "patch_size must be positive, got 0"),
    ],
)
def test_patches_must_tile_the_view(size, patch, message):
    with pytest.raises(InputError, match=message):
        patch_grid(size, patch, "crop_size")
