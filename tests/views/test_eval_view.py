import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView, resize


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (90, 60), dtype=np.uint8)


def test_an_image_of_the_right_size_is_only_normalised():
    image = np.array([[0, 255], [51, 102]], dtype=np.uint8)
    view = EvalView(image_size=2, mean=0.0, std=0.5)(image)["image"]
    assert_close(view, torch.tensor([[[0.0, 2.0], [0.4, 0.8]]]))


def test_centre_of_a_long_image(image):
    view = EvalView(image_size=60)
    # 90 rows at the right width already: 15 are cut on either side.
    assert torch.equal(view(image)["image"], view.to_tensor(image[15:75]))
    assert torch.equal(view(image.T)["image"], view.to_tensor(image.T[:, 15:75].copy()))


@pytest.mark.parametrize("size", [20, 224])
def test_shorter_side_is_resized(image, size):
    view = EvalView(image_size=size)
    expected = resize(image, size * 3 // 2, size)[size // 4 : size // 4 + size]
    assert view(image)["image"].shape == (1, size, size)
    assert torch.equal(view(image)["image"], view.to_tensor(expected))


def test_resize_larger_than_the_crop(image):
    view = EvalView(image_size=20, resize=30)
    expected = resize(image, 45, 30)[12:32, 5:25]
    assert torch.equal(view(image)["image"], view.to_tensor(expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (333, 7), (31, 32)])
def test_any_shape(shape):
    view = EvalView(image_size=16)(np.full(shape, 8, dtype=np.uint8))["image"]
    assert view.shape == (1, 16, 16)
    assert view.unique().numel() == 1


def test_nothing_is_random(image):
    view = EvalView(image_size=24)
    rng = np.random.default_rng(0)
    first, second = view(image, rng)["image"], view(image)["image"]
    assert torch.equal(first, second)
    assert rng.random() == np.random.default_rng(0).random()


def test_batch(image):
    view = EvalView(image_size=24, in_chans=3)
    batch = view.collate([view(image), view(image)])
    assert batch["image"].shape == (2, 3, 24, 24)


def test_is_its_own_eval_view():
    view = EvalView(image_size=24, resize=32)
    assert view.eval_view() is view


def test_resize_must_hold_the_crop():
    with pytest.raises(InputError, match=r"at least image_size = 224, .* got 200"):
        EvalView(resize=200)


def test_images_are_checked():
    with pytest.raises(InputError, match="one-channel images"):
        EvalView()(np.zeros((4, 4), dtype=np.float32))
