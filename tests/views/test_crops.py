import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from cxrssl.errors import InputError
from cxrssl.views import random_resized_crop, resize
from cxrssl.views.crops import check_crop, draw_box

RATIO = (3 / 4, 4 / 3)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def area_weights(old, new):
    """Return (new, old): the share of each old pixel in the area of each new one."""
    edges = np.arange(new + 1) * old / new
    starts = np.arange(old)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return overlap.clip(0) / (old / new)


class TestResize:
    def test_shrinking_by_hand(self):
        image = np.array([[0, 4, 10, 10], [8, 4, 10, 10]], dtype=np.uint8)
        # Means of 2 x 2 pixels: (0 + 4 + 8 + 4) / 4 = 4 and 10.
        assert resize(image, 1, 2).tolist() == [[4, 10]]

    @pytest.mark.parametrize("size", [(31, 50), (64, 40), (17, 90), (9, 9)])
    def test_shrinking_averages_areas(self, size):
        image = noise(64, 90)
        expected = area_weights(64, size[0]) @ image @ area_weights(90, size[1]).T
        assert np.abs(resize(image, *size) - expected).max() <= 1

    def test_one_axis_shrinks_while_the_other_grows(self):
        # One row in three is bright: what shrinks to a third must be averaged, not picked from.
        image = np.zeros((30, 8), dtype=np.uint8)
        image[::3] = 255
        assert np.unique(resize(image, 10, 20)).tolist() == [85]
        assert np.unique(resize(image.T, 20, 10)).tolist() == [85]

    def test_growing_is_bicubic_and_clipped(self):
        step = np.repeat(np.array([[0, 0, 255, 255]], dtype=np.uint8), 4, axis=0)
        grown = resize(step, 8, 8)[0].astype(int)
        assert grown[0] == 0
        assert grown[-1] == 255
        assert (np.diff(grown) >= 0).all()
        # Half a pixel from the step's middle, at t = 0.25 with a = -0.75:
        # the two weights of the dark side are 0.8789 and -0.1055 (t = 1.25).
        assert grown[3] == pytest.approx(255 * (1 - 0.8789 + 0.1055), abs=1)

    @pytest.mark.parametrize("size", [(5, 40), (40, 5), (10, 10), (3, 3), (50, 50), (1, 1)])
    def test_constant_stays_constant(self, size):
        image = np.full((10, 10), 77, dtype=np.uint8)
        resized = resize(image, *size)
        assert resized.shape == size
        assert (resized == 77).all()

    def test_same_size_changes_nothing(self):
        image = noise(12, 7)
        assert np.array_equal(resize(image, 12, 7), image)


class TestPillowResampling:
    @pytest.mark.parametrize("size", [(31, 50), (64, 40), (120, 90), (200, 17), (64, 90), (1, 1)])
    def test_equals_pillow(self, size):
        image = noise(64, 90)
        expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.array_equal(resize(image, *size, "pillow"), np.asarray(expected))

    def test_part_of_an_image_does_not_see_its_surroundings(self):
        image = noise(64, 90)
        part = image[10:50, 20:70]
        assert np.array_equal(resize(part, 16, 16, "pillow"), resize(part.copy(), 16, 16, "pillow"))

    def test_shrinking_does_not_alias(self):
        image = np.zeros((90, 90), dtype=np.uint8)
        image[::3] = 255
        shrunk = resize(image, 30, 30, "pillow")[2:-2]
        assert np.abs(shrunk.astype(int) - 85).max() < 12


class TestAreaMode:
    @pytest.mark.parametrize(
        ("height", "width", "scale"),
        [(300, 500, (0.05, 0.32)), (512, 512, (0.32, 1.0)), (200, 330, (0.5, 1.0))],
    )
    def test_law_is_torchvisions(self, height, width, scale):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        image = torch.empty(1, height, width)
        n = 1500
        theirs = np.array(
            [RandomResizedCrop.get_params(image, list(scale), list(RATIO)) for _ in range(n)]
        )
        ours = np.array([draw_box(height, width, scale, RATIO, rng) for _ in range(n)])
        for features in (
            lambda box: box[:, 0],
            lambda box: box[:, 1],
            lambda box: box[:, 2] * box[:, 3],
            lambda box: box[:, 3] / box[:, 2],
        ):
            assert ks_2samp(features(ours), features(theirs)).pvalue > 1e-3

    @pytest.mark.parametrize(("height", "width"), [(40, 400), (400, 40), (90, 131), (1, 9), (7, 1)])
    def test_fallback_is_torchvisions(self, height, width):
        # No box of the whole area and an aspect far from the image's fits.
        scale, ratio = (1.0, 1.0), (1.0, 1.001)
        expected = RandomResizedCrop.get_params(
            torch.empty(1, height, width), list(scale), list(ratio)
        )
        assert draw_box(height, width, scale, ratio, np.random.default_rng(0)) == expected

    def test_fallback_of_an_image_of_allowed_aspect_is_all_of_it(self):
        class Largest:
            def uniform(self, low, high):
                return high

        # 1.0 of the area at aspect 4/3 never fits a square.
        assert draw_box(50, 50, (1.0, 1.0), RATIO, Largest()) == (0, 0, 50, 50)

    @pytest.mark.parametrize(
        ("height", "width", "ratio"), [(1, 50, (0.25, 0.4)), (50, 1, (2.5, 4.0))]
    )
    def test_box_of_an_image_of_one_pixel_across_has_a_pixel(self, height, width, ratio):
        # 1 * 0.4 and 1 / 2.5 pixels round to 0; (50 - 1) // 2 = 24 is the middle.
        box = draw_box(height, width, (0.3, 1.0), ratio, np.random.default_rng(0))
        assert box == ((0, 24, 1, 1) if height == 1 else (24, 0, 1, 1))

    def test_boxes_stay_inside(self):
        rng = np.random.default_rng(1)
        for _ in range(500):
            height, width = rng.integers(1, 40, 2).tolist()
            box = draw_box(height, width, (0.01, 1.0), RATIO, rng)
            assert 0 <= box.top <= box.top + box.height <= height
            assert 0 <= box.left <= box.left + box.width <= width
            assert box.height > 0
            assert box.width > 0


class TestSideMode:
    def test_side_is_uniform_and_square(self):
        rng = np.random.default_rng(0)
        boxes = [draw_box(1000, 3000, (0.2, 0.5), RATIO, rng, "side") for _ in range(1000)]
        sides = np.array([box.height for box in boxes])
        assert all(box.height == box.width for box in boxes)
        assert kstest(sides, "uniform", args=(200, 300)).pvalue > 1e-3

    def test_places_are_uniform(self):
        rng = np.random.default_rng(0)
        boxes = [draw_box(1000, 3000, (0.5, 0.5), RATIO, rng, "side") for _ in range(1000)]
        assert kstest([box.top for box in boxes], "uniform", args=(0, 500)).pvalue > 1e-3
        assert kstest([box.left for box in boxes], "uniform", args=(0, 2500)).pvalue > 1e-3

    def test_at_least_a_pixel(self):
        box = draw_box(3, 3, (0.01, 0.01), RATIO, np.random.default_rng(0), "side")
        assert (box.height, box.width) == (1, 1)


@pytest.mark.parametrize("resampling", ["area", "pillow"])
@pytest.mark.parametrize("mode", ["area", "side"])
@pytest.mark.parametrize("size", [8, 60])
def test_crop_is_the_resized_box(mode, size, resampling):
    image = noise(50, 70)
    rng = np.random.default_rng(3)
    crop, box = random_resized_crop(image, size, (0.3, 0.9), RATIO, rng, mode, resampling)
    cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
    assert crop.shape == (size, size)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, resize(np.ascontiguousarray(cut), size, size, resampling))


def test_read_only_images_are_read():
    image = noise(50, 70)
    image.flags.writeable = False
    crop, _ = random_resized_crop(image, 16, (0.3, 0.9), RATIO, np.random.default_rng(0))
    assert crop.shape == (16, 16)


@pytest.mark.parametrize(
    ("scale", "ratio", "mode", "message"),
    [
        ((0.0, 1.0), RATIO, "area", r"0 < low <= high <= 1, got \(0.0, 1.0\)"),
        ((0.5, 0.2), RATIO, "area", r"0 < low <= high <= 1, got \(0.5, 0.2\)"),
        ((0.5, 1.2), RATIO, "side", r"0 < low <= high <= 1, got \(0.5, 1.2\)"),
        ((0.5, 1.0), (0.0, 1.0), "area", r"ratio must be .* got \(0.0, 1.0\)"),
        ((0.5, 1.0), (0.5, np.inf), "area", r"ratio must be .* finite, got \(0.5, inf\)"),
        ((0.5, 1.0), RATIO, "edge", "must be 'area' or 'side', got 'edge'"),
    ],
)
def test_options_are_checked(scale, ratio, mode, message):
    with pytest.raises(InputError, match=message):
        check_crop(scale, ratio, mode)


def test_resampling_is_checked():
    with pytest.raises(InputError, match="must be 'area' or 'pillow', got 'nearest'"):
        check_crop((0.5, 1.0), RATIO, resampling="nearest")
