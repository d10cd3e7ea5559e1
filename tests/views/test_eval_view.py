import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView, SupervisedView, resize
from cxrssl.views.structures import resize_masks
from cxrssl.views.targets import Targets
from tests.golden import load_golden

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VALUES = np.array([0, 1, 255], dtype=np.uint8)


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


def test_chexfounds_transform():
    golden = load_golden("glori/eval_transform.npz")
    image, expected = golden["image_u8"].numpy(), golden["out"]
    # Theirs is normalised channel by channel; what comes before is the same grey image in each.
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    options = {"image_size": 32, "rescale": True, "mean": 0.0, "std": 1.0, "in_chans": 3}
    view = EvalView(**options, resampling="pillow")(image)["image"]
    assert_close((view - mean) / std, expected, atol=1e-6, rtol=1e-5)
    area = EvalView(**options)(image)["image"]
    assert not torch.allclose((area - mean) / std, expected, atol=1e-2)


def test_rescale_by_hand():
    image = np.array([[50, 60], [75, 100]], dtype=np.uint8)
    view = EvalView(image_size=2, rescale=True, mean=0.5, std=0.5)(image)["image"]
    # (x - 50) / 50 = 0, 0.2, 0.5, 1
    assert_close(view, torch.tensor([[[-1.0, -0.6], [0.0, 1.0]]]))


@pytest.mark.parametrize("grey", [0, 8, 255])
def test_rescale_makes_a_constant_image_black(grey):
    image = np.full((5, 7), grey, dtype=np.uint8)
    view = EvalView(image_size=4, rescale=True, mean=0.25, std=0.5)(image)["image"]
    assert view.unique().tolist() == [-0.5]


def test_rescale_is_of_what_is_seen(image):
    image[:10], image[-10:] = 0, 255  # outside the central square
    image[10:80] = image[10:80] // 4 + 90
    view = EvalView(image_size=60, rescale=True, mean=0.0, std=1.0)(image)["image"]
    assert (view.min(), view.max()) == (0, 1)


def test_masks_follow_the_image(image):
    view = EvalView(image_size=30, resize=40)
    masks = np.random.default_rng(1).choice(VALUES, (3, 90, 60))
    sample = view.with_masks(image, masks)
    assert torch.equal(sample["image"], view(image)["image"])
    # 90 x 60 becomes 60 x 40; the pixel at the centre of the new pixel i is floor(1.5 (i + 0.5)).
    rows = [int(1.5 * (i + 0.5)) for i in range(15, 45)]
    columns = [int(1.5 * (i + 0.5)) for i in range(5, 35)]
    expected = [[[int(mask[r, c]) for c in columns] for r in rows] for mask in masks]
    assert sample["masks"].tolist() == expected
    assert sample["masks"].dtype == torch.uint8


def test_masks_of_the_right_size_are_cut(image):
    masks = np.random.default_rng(1).choice(VALUES, (2, 90, 60))
    sample = EvalView(image_size=60).with_masks(image, masks)
    assert torch.equal(sample["masks"], torch.from_numpy(masks[:, 15:75]))


def test_no_structure_is_no_mask(image):
    sample = EvalView(image_size=20).with_masks(image, np.empty((0, 90, 60), np.uint8))
    assert sample["masks"].shape == (0, 20, 20)


def test_batch_with_masks(image):
    view = EvalView(image_size=20)
    sample = view.with_masks(image, np.ones((2, 90, 60), np.uint8), np.random.default_rng(0))
    assert view.collate([sample] * 3)["masks"].shape == (3, 2, 20, 20)


@pytest.mark.parametrize(
    "masks", [np.zeros((90, 60), np.uint8), np.zeros((1, 60, 90), np.uint8), np.zeros((1, 90, 60))]
)
def test_masks_are_checked(image, masks):
    with pytest.raises(InputError, match=r"must be \(K, 90, 60\) of uint8, got shape"):
        EvalView().with_masks(image, masks)


@pytest.mark.parametrize(("new", "old"), [((3, 5), (7, 4)), ((9, 2), (3, 6)), ((4, 4), (4, 4))])
def test_the_nearest_pixel_is_the_one_at_the_centre(new, old):
    masks = np.arange(2 * old[0] * old[1], dtype=np.uint8).reshape(2, *old)
    resized = resize_masks(masks, *new)
    for row in range(new[0]):
        for column in range(new[1]):
            # The pixel whose half-open square holds the centre, in exact fractions.
            y, x = (
                math.floor(Fraction(2 * i + 1, 2) * n / m)
                for i, n, m in zip((row, column), old, new, strict=True)
            )
            assert resized[:, row, column].tolist() == masks[:, y, x].tolist()


def test_resampling_is_checked():
    with pytest.raises(InputError, match="'area' or 'pillow', got 'linear'"):
        EvalView(resampling="linear")


def test_nothing_beside_the_pixels_is_wanted_unless_said():
    view = EvalView()
    assert view.targets == Targets() == ((), (), False)
    assert not view.targets.wanted
    for wanted in ({"findings": ("edema",)}, {"structures": ("lung",)}, {"text": True}):
        assert Targets(**wanted).wanted
    view.targets = Targets(("edema",))
    assert not EvalView().targets.wanted


@pytest.mark.parametrize("rescale", [False, True])
def test_channels_with_a_normalisation_of_their_own(rescale):
    image = np.random.default_rng(0).integers(20, 200, (40, 32), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    options = {"image_size": 32, "rescale": rescale}
    colours = EvalView(**options, in_chans=3, mean=mean, std=std)(image)["image"]
    for channel in range(3):
        grey = EvalView(**options, mean=mean[channel], std=std[channel])(image)["image"]
        assert torch.equal(colours[channel], grey[0])
    view = EvalView(**options, in_chans=3, mean=mean, std=std)
    unit = EvalView(**options, mean=0.0, std=1.0)(image)["image"]
    torch.testing.assert_close(view.grey(colours[None]), unit)
    trained = SupervisedView(image_size=32, in_chans=3, mean=mean, std=std)
    assert trained(image, np.random.default_rng(0))["image"].shape == (3, 32, 32)
    with pytest.raises(InputError, match="one number or one for each of 1 channels"):
        EvalView(mean=mean)
    with pytest.raises(InputError, match="std must be positive"):
        EvalView(in_chans=2, std=(0.2, 0.0))
